"""``cumulet up``: from a bare machine to a cloud with a first server that answers ssh.

Packages and the virtual environment are there already (``tools/setup`` ran before Python).  Every step looks
first and does only what is missing, so that a second ``up`` is quick and harmless, and one that was interrupted
goes on where it was.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from cumulet.cli import (
    credentials,
    first_things,
    keeper,
    launch,
    lock,
    logs,
    prepare,
    record,
    sockets,
    status,
    where,
)
from cumulet.cli.cloud import Cloud, Refused
from cumulet.core import clock
from cumulet.core import config as configuration
from cumulet.core.config import Config
from cumulet.services import SERVICES

HOME = Path(__file__).parents[3]
HEALTHY_SECONDS, PATIENCE_SECONDS = 60.0, 3.0
SERVER = "first"
FILE = """# Cumulet's configuration; every option with its default is in docs/reference/options.md.
# A change takes effect after `cumulet down` and `cumulet up`.

[node]
name = "{name}"
"""


def main(options: argparse.Namespace) -> int:
    if os.geteuid() != 0:
        sys.exit("cumulet up needs root: it makes bridges, network namespaces and virtual machines")
    os.umask(0o022)
    if not options.config.exists():
        options.config.parent.mkdir(parents=True, exist_ok=True)
        options.config.write_text(FILE.format(name=configuration.Config().node.name))
    config = configuration.load(options.config)
    with lock.alone(config, "up"):
        return _up(config, options.config, server=not options.no_server and config.services == SERVICES)


def _up(config: Config, file: Path, server: bool) -> int:
    prepare.directories(config)
    _check_ports(config)
    image = guest_image(config) if config.controls else None
    keeper.start(config, file)
    wait_healthy(config)
    if image is None:
        print(
            f"\n{where.table(config, status.healths(config))}\n\nThe cloud's controller is {config.api.controller}."
        )
        return 0
    cloud = Cloud(config)
    first_things.ensure(cloud, config, image)
    written = credentials.write(config)
    launched, problem = None, ""
    try:
        launched = launch.ensure(cloud, config, SERVER, "cirros", "m1.tiny", "private") if server else None
    except Refused as error:
        problem = str(error)
    print(f"\n{where.table(config, status.healths(config))}\n")
    print(_farewell(config, written, launched))
    if problem:
        print(f"\nThe cloud is up, but not the first server: {problem}", file=sys.stderr)
    return 1 if problem else 0


def guest_image(config: Config) -> Path:
    """The guest image, built from Debian packages if there is none."""
    image = config.state / "guest" / "cirros.qcow2"
    if not image.exists():
        print("building the guest image from Debian packages", flush=True)
        image.parent.mkdir(parents=True, exist_ok=True)
        log = config.logs / "image-build.log"
        with log.open("wb") as file:
            done = subprocess.run(
                [HOME / "images" / "build", image],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if done.returncode:
            sys.exit(f"the guest image could not be built: {logs.last_line(log)}\nsee {log}")
    return image


def _check_ports(config: Config) -> None:
    """Say at once who is in the way, where nothing of ours runs that may still hold a port."""
    if record.find_parent(config) or record.find_keeper(config) or record.read_state(config):
        return
    taken = sockets.taken_ports(config)
    if taken:
        sys.exit("\n".join([*taken, "stop that, or change bind or internal_bind in [api]"]))


def wait_healthy(config: Config) -> None:
    """Wait for every service of this node, a line for each that becomes healthy; say what is missing, and why."""
    started, begun, shown = time.monotonic(), clock.now(), _Shown()
    found = status.healths(config) if status.running(config) else []
    if found and all(line.healthy for line in found):
        print(f"all {len(found)} services are up already", flush=True)
        return
    while not found or not all(line.healthy for line in found):
        seconds = time.monotonic() - started
        for line in found:
            shown.tell(line.name, "up" if line.healthy else line.problem, seconds)
        if not found:
            trouble = logs.last_error(config, record.TITLE, begun)
            shown.tell(record.TITLE, trouble or "is loading the services", seconds)
        if seconds > HEALTHY_SECONDS:
            sys.exit(_missing(config, found, begun))
        time.sleep(0.05)
        found = status.healths(config) if status.running(config) else []
    for line in found:
        shown.tell(line.name, "up", 0)
    print(f"healthy after {time.monotonic() - started:.1f} s", flush=True)


class _Shown:
    """What a person has been told, line by line: good news at once, a problem if it stays for a while."""

    def __init__(self) -> None:
        self._told: dict[str, str] = {}
        self._since: dict[tuple[str, str], float] = {}

    def tell(self, name: str, state: str, seconds: float) -> None:
        since = self._since.setdefault((name, state), seconds)
        if self._told.get(name) != state and (state == "up" or seconds - since > PATIENCE_SECONDS):
            self._told[name] = state
            print(f"  {name:<28}{state}", flush=True)


def _missing(config: Config, found: list[status.Health], begun: str) -> str:
    """Each service that is not healthy with its reason, its last error and where its log is."""
    lines = [f"not healthy after {HEALTHY_SECONDS:.0f} s:"]
    for name, problem in [(line.name, line.problem) for line in found if not line.healthy] or [(record.TITLE, "")]:
        error = logs.last_error(config, name, begun)
        reasons = ": ".join(filter(None, (problem, error if error != problem else "")))
        lines.append(f"  {name:<28}{reasons or 'does not start its services'}")
        lines.append(f"  {'':<28}log: {config.logs / name}.log")
    return "\n".join(lines)


def _farewell(config: Config, written: credentials.Written, server: launch.Launched | None) -> str:
    lines = [
        f"Identity   {config.keystone_url}   user admin, project admin, domain Default",
        f"Password   in {written.clouds} (cloud name {credentials.NAME}) and {written.openrc}",
        f"Log in     export OS_CLOUD={credentials.NAME}; openstack server list",
    ]
    if server:
        lines += [
            f"Server     {server.name} is {server.status} and answers ssh on {server.floating_ip}",
            f"           cumulet ssh {server.name}",
        ]
    return "\n".join(lines)
