"""Starting and ending the cloud under measurement, inside its machine."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from benchmarks.session import wait_until
from cumulet.cli import prepare, status
from cumulet.core.config import Config, DatabaseOptions
from cumulet.services import SERVICES

HEALTHY_SECONDS = 60.0
CUMULET = (sys.executable, "-m", "cumulet.cli.main")


def start(config: Config, services: Sequence[str] = ()) -> float:
    """Start a node's parent; seconds until all of its services and parts are healthy."""
    words = ["--services", ",".join(services)] if services else []
    names = set(services or [service.name for service in SERVICES])
    started = time.perf_counter()
    with (config.logs / "cumulet-node.out").open("ab") as out:
        subprocess.Popen([*CUMULET, "node", *words], stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd="/")
    wait_until(lambda: healthy(config, names), HEALTHY_SECONDS, 0.02, "healthy cloud")
    return time.perf_counter() - started


def healthy(config: Config, names: set[str]) -> bool:
    if not status.running(config):
        return False
    found = [line for line in status.healths(config) if line.name in names or line.role == "part"]
    return len(found) >= len(names) and all(line.healthy for line in found)


def end() -> None:
    subprocess.run([*CUMULET, "down", "--now"], stdout=subprocess.DEVNULL, check=True)


def database_setup(config: Config) -> float:
    """Seconds to make an empty database with its schema and keystone's first rows, as the parent does it."""
    with tempfile.TemporaryDirectory(dir=config.state) as place:
        Path(place).chmod(0o755)
        other = msgspec.structs.replace(
            config, node=msgspec.structs.replace(config.node, state_dir=place), database=DatabaseOptions()
        )
        prepare.directories(other)
        started = time.perf_counter()
        prepare.database(other)
        return time.perf_counter() - started
