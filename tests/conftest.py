"""One thread for every test, and what tests of several packages ask."""

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)  # for fixtures of a module or of the session

# How long an example takes says more about what else the machine does.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


@pytest.fixture(autouse=True)
def one_thread_for_every_test() -> Iterator[None]:
    """Bits then depend neither on a machine's number of cores nor on the test before."""
    torch.set_num_threads(1)
    yield
    assert torch.get_num_threads() == 1, "the number of threads of torch has changed"


PROBE = (
    "<iframe id=f style='width:%dpx;height:800px;border:0' src=%s></iframe><script>"
    "f.onload=()=>{const d=f.contentDocument.documentElement;"
    "document.title=d.scrollWidth+' of '+f.clientWidth}</script>"
)


@pytest.fixture
def width_needed() -> Callable[[Path, int], int]:
    """How many pixels a page takes in a browser whose window is so many wide."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("needs Chromium")

    def look(page: Path, width: int) -> int:
        probe = page.with_name("probe.html")
        probe.write_text(PROBE % (width, page.name))
        switches = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
        switches += ["--disable-background-networking", "--disable-component-update"]
        switches += ["--disable-sync", "--allow-file-access-from-files"]
        switches += [f"--user-data-dir={page.with_name('profile')}"]
        switches += ["--virtual-time-budget=5000", "--dump-dom", probe.as_uri()]
        found = subprocess.run(
            [browser, *switches], capture_output=True, text=True, timeout=60, check=True
        ).stdout
        title = re.search(r"<title>(\d+) of (\d+)</title>", found)
        assert title, found[:500]
        assert int(title[2]) == width
        return int(title[1])

    return look
