import subprocess
import sys

import pytest

from data_tools.errors import InputError
from federated.strategies.names import (
    FLOWER_STRATEGIES,
    STRATEGY_HELP,
    STRATEGY_NAMES,
    STRATEGY_OPTIONS,
    check_optimizer,
    check_strategy,
)


def test_every_name_has_options_and_a_line_of_help() -> None:
    assert set(STRATEGY_NAMES) == set(STRATEGY_OPTIONS) == set(STRATEGY_HELP)
    assert set(FLOWER_STRATEGIES) < set(STRATEGY_NAMES)


@pytest.mark.parametrize("name", STRATEGY_NAMES)
def test_defaults_are_filled_in_and_pass_their_own_check(name: str) -> None:
    defaults = check_strategy(name)
    assert check_strategy(name, defaults) == defaults
    assert set(defaults) == set(STRATEGY_OPTIONS[name])


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("fedavm", {}, "did you mean 'fedavgm'"),
        ("fedavg", {"mu": 1}, "it has none"),
        ("fedprox", {"nu": 1}, "did you mean 'mu'"),
        ("fedprox", {"mu": -0.1}, "mu must be a finite number from 0, got -0.1"),
        ("fedprox", {"mu": float("nan")}, "mu must be a finite number from 0, got nan"),
        ("fedprox", {"mu": float("inf")}, "got inf"),
        ("fedprox", {"mu": "1"}, "got '1'"),
        ("fedprox", {"mu": True}, "got True"),
        ("fedprox", {"mu": None}, "got None"),
        ("fedavgm", {"server_learning_rate": 0}, "a finite number above 0, got 0"),
        ("fedavgm", {"server_momentum": 1}, "from 0 to 0.999999, got 1"),
        ("fedadam", {"tau": 0.0}, "tau must be a finite number above 0"),
        ("fedtrimmedavg", {"beta": 0.5}, "got 0.5"),
        ("krum", {"num_malicious_nodes": 1.0}, "a whole number from 0, got 1.0"),
        ("multikrum", {"num_nodes_to_select": 0}, "a whole number from 1, got 0"),
        ("scaffold", {"clients": 0}, "a whole number from 1, got 0"),
    ],
)
def test_what_cannot_be_is_named_with_what_can(
    name: str, options: dict[str, object], told: str
) -> None:
    with pytest.raises(InputError) as caught:
        check_strategy(name, options)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["scaffold", "fednova"])
def test_control_variates_and_step_counts_ask_for_plain_sgd(name: str) -> None:
    check_optimizer(name, "sgd")
    with pytest.raises(InputError, match="defined for plain SGD, got 'adamw'"):
        check_optimizer(name, "adamw")
    with pytest.raises(InputError, match=r"'sgd' with momentum 0\.9"):
        check_optimizer(name, "sgd", 0.9)


def test_the_names_load_neither_torch_nor_flower() -> None:
    code = (
        "import sys, federated.strategies.names, federated.strategies as s; s.STRATEGY_NAMES; "
        "print([m for m in ('torch', 'flwr') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_weighted_mean_loads_no_flower() -> None:
    code = (
        "import sys; from federated.strategies import make_strategy; make_strategy('scaffold'); "
        "print('flwr' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
