"""What processes have used: CPU time and memory."""

import re
import time
from collections.abc import Collection
from pathlib import Path

_SCHEDULED = 2
"""Of a process's clock: the time that its threads, also those that ended, were on a CPU (utime and stime of
``/proc/PID/stat``, in nanoseconds instead of ticks)."""


def cpu_of(pid: int) -> float:
    """Seconds of CPU that a process has used, user and system."""
    return time.clock_gettime((~pid << 3) | _SCHEDULED)


def cpu(pids: Collection[int]) -> float:
    return sum(map(cpu_of, pids))


def memory_mb(pids: Collection[int]) -> float:
    """Proportional set size: memory that several processes share counts once."""
    return sum(map(_pss_kb, pids)) / 1024


def _pss_kb(pid: int) -> int:
    match = re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    assert match
    return int(match.group(1))
