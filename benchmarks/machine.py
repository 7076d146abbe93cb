"""What a benchmark says of the machine."""

import platform
import sys
from pathlib import Path

# A benchmark may be called as the package that it measures; that has to be found first.
if sys.path and Path(sys.path[0]) == Path(__file__).parent:
    sys.path.append(sys.path.pop(0))


def processor() -> str:
    """Name the processor as the system does."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def peak_memory() -> float:
    """Most memory that this process has had resident, in MiB.

    Not from getrusage: that starts with the peak of whoever started the process.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
