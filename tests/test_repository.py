"""What is kept under version control is what somebody wrote."""

import ast
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_nothing_that_is_to_be_ignored_is_kept() -> None:
    """What an install leaves behind was once committed, and broke the build of fresh clones."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout: there is no list of what is kept")
    command = ["git", "ls-files", "--cached", "--ignored", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == ""


def test_no_test_imports_a_conftest() -> None:
    """There are several of that name; which one an import finds hangs on what was collected."""
    for path in sorted((ROOT / "tests").rglob("*.py")):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names = [name.name for name in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            else:
                continue
            assert "conftest" not in names, f"{path}:{node.lineno}: make it a fixture"
