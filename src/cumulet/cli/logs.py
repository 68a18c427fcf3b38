"""``cumulet logs``: the services' JSON logs as readable lines, in order of time.

The parts' own logs (libvirtd, Open vSwitch) are put in order with them; a line without a time stays with the one
before it.  What agents ask of their controllers every few seconds is left out unless a service is named.
"""

import argparse
import heapq
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from cumulet.cli import record, times
from cumulet.core import config as configuration
from cumulet.core.config import Config
from cumulet.core.moments import decode
from cumulet.services import SERVICES

PARTS = ("ovsdb-server", "ovs-vswitchd", "libvirtd")
NAMES = (record.TITLE, *(service.name for service in SERVICES), *PARTS)
TAIL_BYTES = 4 << 20
ROUTINE = re.compile(r"(?:GET|POST) /hosts/[^ ]+ (?:204|304) ")
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d(?:\.\d+)?)")


def main(options: argparse.Namespace) -> int:
    config = configuration.load(options.config)
    if options.service not in (None, *NAMES):
        sys.exit(f"there is no service {options.service!r}; there are {', '.join(NAMES)}")
    if config.logs.exists() and not os.access(config.logs, os.R_OK | os.X_OK):
        sys.exit(f"cumulet logs needs root, or the group {config.node.user}: it reads {config.logs}")
    names = [options.service] if options.service else list(NAMES)
    files = {name: config.logs / f"{name}.log" for name in names}
    if not any(file.exists() for file in files.values()):
        sys.exit(f"there is no log of {options.service or 'anything'} in {config.logs} yet")
    quiet = options.service is None
    lines = heapq.merge(*(stamped(name, tail(file)) for name, file in files.items()), key=lambda line: line[0])
    shown = [text for _, text in lines if not (quiet and ROUTINE.search(text))]
    for text in shown[-options.lines :] if options.lines > 0 else ():
        print(readable(text))
    if options.follow:
        _follow(files, quiet)
    return 0


def readable(line: str) -> str:
    """One JSON record as a line for people; other lines (of libvirtd, Open vSwitch) as they are."""
    record = decode(line)
    if not record:
        return line.rstrip("\n")
    text = f"{times.short(record['time'], 3)} {record['service']:<25} {record['level']:<7} {record['message']}"
    if record.get("request_id"):
        text += f"  [{record['request_id']}]"
    if record.get("traceback"):
        text += "\n" + record["traceback"]
    return text


def stamped(name: str, lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Each line with its time, for merging; a line of a part gets the part's name in front."""
    time = ""
    for line in lines:
        match = _TIME.search(line[:64])
        if match:
            time = f"{match[1]}T{match[2]}"
        yield time, line if line.startswith("{") else f"{name}: {line}"


def tail(file: Path, most: int = TAIL_BYTES) -> list[str]:
    """The lines in the last ``most`` bytes of the file; none if there is no file."""
    try:
        with file.open("rb") as opened:
            size = opened.seek(0, os.SEEK_END)
            opened.seek(max(0, size - most))
            lines = opened.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return []
    return lines[1:] if size > most else lines


def last_error(config: Config, name: str, since: str) -> str:
    """The service's last error since then, in one line; empty if there is none."""
    for line in reversed(tail(config.logs / f"{name}.log", 1 << 18)):
        record = decode(line)
        if record and record["time"] < since:
            break
        if record.get("level") in ("ERROR", "CRITICAL"):
            return str(record["message"]).splitlines()[0][:300]
    return ""


def last_line(file: Path) -> str:
    return next((line for line in reversed(tail(file, 1 << 16)) if line.strip()), "")


def _follow(files: dict[str, Path], quiet: bool) -> None:
    """New lines as they come, also of files that are made later or rotated away, until Ctrl-C."""
    sys.stdout.flush()
    command = ["tail", "-v", "-n", "0", "-F", "--", *map(str, files.values())]
    name = next(iter(files))
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, errors="replace"
    ) as process:
        assert process.stdout
        for line in process.stdout:
            if match := re.fullmatch(r"==> (.+)\.log <==\n", line):
                name = os.path.basename(match[1])
            elif line.strip() and not (quiet and ROUTINE.search(line)):
                print(readable(line if line.startswith("{") else f"{name}: {line}"), flush=True)
