import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from data_tools.errors import InputError
from federated.policy import POLICIES, POLICY_HELP, NormPolicy, Phase, parse_policy
from federated.policy.fates import FATES, NORM_ROLES, ROLE_FATES


@pytest.mark.parametrize("name", POLICIES)
def test_every_preset_has_its_name_and_a_line_of_help(name: str) -> None:
    assert parse_policy(name).name == name
    assert POLICY_HELP[name]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("fedbm", "did you mean 'fedbn'"),
        ("FedAvg", "did you mean 'fedavg'"),
        ("moment-merge", "did you mean 'moment_merge'"),
        ("fixbm:3", "did you mean 'fixbn'"),
        ("fedbn:3", "Valid: fedavg"),
        ("xyz", "Valid: fedavg"),
        ("", "Valid: fedavg"),
        ("fixbn", "must name the round"),
        ("fixbn:", "must name the round"),
        ("fixbn:1", "2 or later"),
        ("fixbn:-3", "must name the round"),
        ("fixbn:²", "must name the round"),
    ],
)
def test_an_unknown_name_is_refused_with_a_hint(name: str, hint: str) -> None:
    with pytest.raises(InputError, match=hint):
        parse_policy(name)


def test_names_of_policies_cost_no_torch() -> None:
    code = (
        "from federated.policy import POLICIES, parse_policy; parse_policy('fixbn:7'); "
        "import sys; assert not {'torch', 'pandas', 'flwr'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("role", NORM_ROLES)
@pytest.mark.parametrize("fate", FATES)
def test_a_role_takes_the_fates_that_make_sense_for_it_and_no_other(role: str, fate: str) -> None:
    fates: dict[str, Any] = {role: fate}
    if role in ("mean", "variance"):
        fates = {"mean": fate, "variance": fate}
    if fate in ROLE_FATES[role]:
        assert Phase(**fates).of(role) == fate  # type: ignore[arg-type]
    else:
        with pytest.raises(InputError, match=f"{role} cannot be '{fate}'"):
            Phase(**fates)


def test_mean_and_variance_share_their_fate() -> None:
    with pytest.raises(InputError, match="a variance belongs to its mean"):
        Phase(mean="local")


@pytest.mark.parametrize("starts", [(), (2,), (1, 1), (1, 5, 3)])
def test_phases_begin_at_round_1_and_increase(starts: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="must begin at 1"):
        NormPolicy("mine", tuple(Phase(start) for start in starts))


def test_only_what_the_server_has_can_be_frozen_later() -> None:
    still = Phase(3, mean="frozen", variance="frozen")
    local = Phase(mean="local", variance="local")
    with pytest.raises(InputError, match="no value to freeze"):
        NormPolicy("mine", (local, still))
    assert NormPolicy("mine", (Phase(), still)).phase(3) == still


def test_statistics_are_merged_for_the_batchnorm_family_alone() -> None:
    merged = Phase(mean="merged", variance="merged")
    with pytest.raises(InputError, match="set layers='batch'"):
        NormPolicy("mine", (merged,))


def test_other_faults_of_a_policy_are_refused() -> None:
    with pytest.raises(InputError, match="layers must be"):
        NormPolicy("mine", layers="some")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="buffers cannot be 'merged'"):
        NormPolicy("mine", buffers="merged")


@pytest.mark.parametrize("bad", [0, -1, True, 1.0, "1"])
def test_rounds_are_whole_numbers_from_1(bad: Any) -> None:
    with pytest.raises(InputError, match="rounds are counted from 1"):
        parse_policy("fedavg").phase(bad)


def test_a_phase_holds_until_the_next_starts() -> None:
    policy = parse_policy("fixbn:10")
    means = [policy.phase(number).mean for number in (1, 9, 10, 99)]
    assert means == ["averaged", "averaged", "frozen", "frozen"]
    assert replace(policy, name="other").phase_number(10) == 1
