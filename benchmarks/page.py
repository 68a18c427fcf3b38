"""``docs/benchmarks.md``: every figure of one run, where it was measured, and why some miss their targets."""

import os
import platform
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.figures import LIMITS, TARGETS, Figure
from cumulet.host import kvm

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
NO_LIMIT = "what limits it is not known yet"
COMMAND = "./cumulet bench --write"
HEAD = (
    "Measured on {date} by `{command}` on {machine}. That command writes this page; `./cumulet bench NAME` "
    "measures one figure, `--json` prints a list.",
    "The time of a request is the CPU time that all processes of the cloud spend on it, with one client, as the"
    " median of some runs; the rows below it say how long one client waits at one connection, and each of "
    "sixteen at sixteen, the client being a process of the same machine. `_sim` figures have real controllers "
    "and real agents on hosts made of dictionaries. `_pss_mb` is proportional set size: memory that several "
    "processes share counts once; libvirtd, Open vSwitch, dnsmasq and guests are listed apart. Figures without "
    "a target explain those that have one.",
)


def names() -> Iterator[str]:
    """What the page has: all but the figures of scale, which have a page of their own, docs/scale.md."""
    for group, known in TARGETS.items():
        if group != "scale":
            yield from known


def write(found: Sequence[Figure]) -> None:
    PAGE.write_text(text(found, datetime.now(UTC).strftime("%Y-%m-%d"), machine()))


def text(found: Sequence[Figure], date: str, where: str) -> str:
    lines = ["# Benchmarks", ""]
    for paragraph in HEAD:
        lines += [paragraph.format(date=date, command=COMMAND, machine=where), ""]
    lines += ["| name | value | unit | runs | target |", "|---|---|---|---|---|"]
    for one in found:
        value = f"**{one.value:g}**" if one.met is False else f"{one.value:g}"
        lines.append(f"| {one.name} | {value} | {one.unit} | {one.runs} | {one.target} |")
    missed = [one for one in found if one.met is False]
    lines += ["", "## What misses its target, and why", ""]
    lines += [f"- **{one.name}**: {LIMITS.get(one.name, NO_LIMIT)}" for one in missed] or ["Nothing."]
    return "\n".join(lines) + "\n"


def machine() -> str:
    """Processor, cores, memory, system."""
    model = _field("/proc/cpuinfo", r"model name\s*:\s*(.+)") or platform.machine()
    memory = int(_field("/proc/meminfo", r"MemTotal:\s*(\d+)") or 0) / (1 << 20)
    system = _field("/etc/os-release", r'PRETTY_NAME="(.+)"')
    virtual = "with KVM" if kvm.usable() else "without KVM"
    cores, python = os.cpu_count(), platform.python_version()
    return f"{cores} cores of {model}, {memory:.0f} GiB, {system}, Python {python}, {virtual}"


def _field(path: str, pattern: str) -> str:
    found = re.search(pattern, Path(path).read_text())
    return found.group(1).strip() if found else ""
