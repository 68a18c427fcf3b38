"""What the cloud's processes cost: CPU time and memory of the members that ``node.json`` names."""

import os
import re
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

import msgspec

_SCHEDULED = 2
"""Of a process's clock: the time that its threads, also those that ended, were on a CPU (utime and stime of
``/proc/PID/stat``, in nanoseconds instead of ticks)."""


def members(run_dir: Path, *, parts: bool) -> dict[str, int]:
    """Name → pid of the node's parent and services, or of its parts (libvirtd, Open vSwitch)."""
    node = msgspec.json.decode((run_dir / "node.json").read_bytes())
    found = {member["name"]: member["pid"] for member in node["members"] if member["part"] is parts}
    return found if parts else {"cumulet-node": node["pid"], **found}


def everything(run_dir: Path) -> list[int]:
    return [*members(run_dir, parts=False).values(), *members(run_dir, parts=True).values()]


def cpu_of(pid: int) -> float:
    """Seconds of CPU that a process has used, user and system."""
    return time.clock_gettime((~pid << 3) | _SCHEDULED)


def cpu(pids: Collection[int]) -> float:
    return sum(cpu_of(pid) for pid in pids)


def memory_mb(pids: Collection[int]) -> float:
    """Proportional set size: memory that several processes share counts once."""
    return sum(map(_pss_kb, pids)) / 1024


def called(name: str) -> list[int]:
    """The processes with this command name."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and (entry / "comm").read_text().strip() == name:
                found.append(int(entry.name))
    return found


def _pss_kb(pid: int) -> int:
    match = re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    assert match
    return int(match.group(1))


def cores() -> int:
    return os.cpu_count() or 1
