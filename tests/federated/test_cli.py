"""The command: what a person sees, and what it costs to ask."""

import subprocess
import sys
from pathlib import Path

import pytest

from federated.policy import POLICY_HELP
from federated.strategies import STRATEGY_NAMES

SPEC = Path(__file__).parents[2] / "examples" / "federated_ctcf.toml"
CODE = "import sys; sys.argv[0] = 'federated'; from federated.cli import main; main()"


def federated(*arguments):
    return subprocess.run(
        [sys.executable, "-c", CODE, *map(str, arguments)], capture_output=True, text=True
    )


@pytest.mark.parametrize(
    "command", ["", "simulate", "study", "share", "report", "manifest", "policies", "strategies"]
)
def test_help_has_an_example_and_loads_neither_torch_nor_flower(command):
    code = CODE.replace("main()", "\ntry:\n    main()\nexcept SystemExit:\n    pass\n") + (
        "print('LOADED', *({'torch', 'flwr', 'pandas', 'ray'} & set(sys.modules)))"
    )
    words = [command] if command else []
    done = subprocess.run(
        [sys.executable, "-c", code, *words, "--help"], capture_output=True, text=True
    )
    assert "Example" in done.stdout, done.stderr
    assert done.stdout.splitlines()[-1] == "LOADED"


def test_policies_and_strategies_are_listed_with_what_they_do():
    listed = federated("policies").stdout
    assert all(name in listed and told in listed for name, told in POLICY_HELP.items())
    listed = federated("strategies").stdout
    assert all(name in listed for name in STRATEGY_NAMES)


def test_the_manifest_says_of_every_norm_tensor_where_it_goes():
    done = federated("manifest", SPEC, "--norm", "batch", "--policy", "fedbn")
    lines = [line.split() for line in done.stdout.splitlines() if "running_mean" in line]
    assert [line[-3:] for line in lines] == [["local", "never", "never"]] * 2
    done = federated("manifest", SPEC, "--norm", "layer")
    assert done.returncode == 2
    assert done.stderr == (
        "federated: error: the spec has no norm 'layer'; it has group:8, instance, batch\n"
    )


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("simulate", "no.toml"), "no.toml"),
        (("simulate", SPEC, "--override", "training.round=3"), "did you mean"),
        (("study", SPEC, "--out", "{out}"), "no table 'study'"),
        (("report", "{out}"), "run.json"),
        (("simulate", SPEC, "--out", "{out}", "--workers", "0"), "at least 1"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments, told, tmp_path):
    done = federated(*(str(word).format(out=tmp_path) for word in arguments))
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
