"""``cumulet logs``: the services' JSON logs as readable lines, in order of time."""

import argparse
import heapq
import os
import subprocess
import sys
from collections import deque
from pathlib import Path
from typing import Any

import msgspec

from cumulet.core import config as configuration
from cumulet.core.config import Config


def main(options: argparse.Namespace) -> int:
    config = configuration.load(options.config)
    files = _files(config, options.service)
    if not files:
        sys.exit(f"there is no log of {options.service or 'anything'} in {config.logs}")
    tails = [deque(file.open(errors="replace"), maxlen=options.lines) for file in files]
    lines = list(heapq.merge(*tails, key=_time))
    for line in lines[-options.lines :]:
        print(readable(line))
    if options.follow:
        command = ["tail", "-q", "-n", "0", "-F", "--", *map(str, files)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            for line in process.stdout:
                print(readable(line), flush=True)
    return 0


def readable(line: str) -> str:
    """One JSON record as a line for people; other lines (of libvirtd, Open vSwitch) as they are."""
    try:
        record: dict[str, Any] = msgspec.json.decode(line)
    except (msgspec.DecodeError, ValueError):
        return line.rstrip("\n")
    text = f"{record['time'][11:23]} {record['service']:<26} {record['level']:<7} {record['message']}"
    if record.get("request_id"):
        text += f"  [{record['request_id']}]"
    if record.get("traceback"):
        text += "\n" + record["traceback"]
    return text


def _files(config: Config, service: str | None) -> list[Path]:
    if service:
        file = config.logs / f"{os.path.basename(service)}.log"
        return [file] if file.exists() else []
    return sorted(config.logs.glob("*.log"))


def _time(line: str) -> str:
    return line[9:36] if line.startswith('{"time":') else ""
