"""What a benchmark says of the machine."""

import platform
from pathlib import Path


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
