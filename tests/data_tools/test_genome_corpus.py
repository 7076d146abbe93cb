"""Odd and broken genomes: the right bases or an error that says why, within 1.5 GiB and 60 s."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from corpus import genomes, limited

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def found():
    """Read all cases in children of a process that is small itself."""
    script = Path(limited.__file__)
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    variables = os.environ | {"PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(script)], env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_case_has_a_name_of_its_own():
    names = [case.name for case in genomes.CASES]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("case", genomes.CASES, ids=lambda case: case.name)
def test_a_genome_of_the_corpus_gives_its_bases_or_says_what_is_wrong(found, case):
    outcome = found[case.name]
    assert "died" not in outcome
    assert outcome["peak"] < 300 << 20
    assert outcome["left"] == []
    if isinstance(case.verdict, str):
        assert "InputError" in outcome.get("raised", []), outcome
        message = outcome["says"]
        assert "\n" not in message
        assert re.search(case.verdict, message.removeprefix(outcome["path"])), message
    else:
        expected = json.loads(json.dumps(case.verdict))
        assert outcome.get("gave") == expected, outcome
