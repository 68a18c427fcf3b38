"""``cumulet up``: from a bare machine to a cloud with a first server that answers ssh.

Packages and the virtual environment are there already (``tools/setup`` ran before Python).  Every step looks
first and does only what is missing, so that a second ``up`` is quick and harmless.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from cumulet.cli import credentials, first_things, launch, prepare, status, where
from cumulet.cli.cloud import Cloud, Refused
from cumulet.core import config as configuration
from cumulet.core.config import Config

HOME = Path(__file__).parents[3]
HEALTHY_SECONDS = 60.0
SERVER = "first"
UNIT = "cumulet.service"
SYSTEMD = Path("/run/systemd/system")
FILE = """# Cumulet's configuration; every option with its default is in docs/reference/options.md.
# A change takes effect after `cumulet down` and `cumulet up`.

[node]
name = "{name}"
"""
KEEPER = 'until "$@"; do sleep 0.5; done'
"""Starts the parent again if it is killed; an orderly end (exit code 0) ends it."""


def main(options: argparse.Namespace) -> int:
    if os.geteuid() != 0:
        sys.exit("cumulet up needs root: it makes bridges, network namespaces and virtual machines")
    started = time.monotonic()
    if not options.config.exists():
        options.config.parent.mkdir(parents=True, exist_ok=True)
        options.config.write_text(FILE.format(name=configuration.Config().node.name))
    config = configuration.load(options.config)
    prepare.directories(config)
    image = guest_image(config)
    start(config, options.config)
    wait_healthy(config)
    print(f"healthy after {time.monotonic() - started:.1f} s")
    cloud = Cloud(config)
    try:
        first_things.ensure(cloud, config, image)
        written = credentials.write(config)
        server = None if options.no_server else launch.ensure(cloud, config, SERVER, "cirros", "m1.tiny", "private")
    except Refused as error:
        sys.exit(str(error))
    print()
    print(where.table(config, status.healths(config)))
    print()
    print(_farewell(config, written, server))
    return 0


def guest_image(config: Config) -> Path:
    """The guest image, built from Debian packages if there is none."""
    image = config.state / "guest" / "cirros.qcow2"
    if not image.exists():
        print("building the guest image from Debian packages", flush=True)
        image.parent.mkdir(parents=True, exist_ok=True)
        log = config.logs / "image-build.log"
        with log.open("wb") as file:
            done = subprocess.run(
                [HOME / "images" / "build", image], stdout=file, stderr=subprocess.STDOUT, check=False
            )
        if done.returncode:
            sys.exit(f"the guest image could not be built, see {log}")
    return image


def start(config: Config, file: Path) -> None:
    """Start the node's parent unless it runs: by systemd where there is systemd, else below a keeper."""
    if status.running(config):
        return
    command = [sys.executable, "-m", "cumulet.cli.main", "--config", str(file), "node"]
    if SYSTEMD.exists():
        _systemd(command)
        return
    with (config.logs / "cumulet-node.out").open("ab") as out:
        subprocess.Popen(
            ["/bin/sh", "-c", KEEPER, "cumulet-keeper", *command],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            cwd="/",
            start_new_session=True,
        )


def _systemd(command: list[str]) -> None:
    words = " ".join(command)
    unit = (
        "[Unit]\nDescription=Cumulet\nAfter=network.target\n\n"
        f"[Service]\nExecStart={words}\nRestart=on-failure\nKillMode=process\nDelegate=yes\n\n"
        "[Install]\nWantedBy=multi-user.target\n"
    )
    path = Path("/etc/systemd/system") / UNIT
    if not path.exists() or path.read_text() != unit:
        path.write_text(unit)
        subprocess.run(["systemctl", "daemon-reload"], check=True)
    subprocess.run(["systemctl", "enable", "--now", "--quiet", UNIT], check=True)


def wait_healthy(config: Config) -> None:
    """Wait for every service of the map, one line for each as it becomes healthy; say what is missing."""
    deadline = time.monotonic() + HEALTHY_SECONDS
    done: set[str] = set()
    while True:
        found = status.healths(config) if status.running(config) else []
        for line in found:
            if line.healthy and line.name not in done:
                done.add(line.name)
                print(f"  {line.name:<28}up", flush=True)
        missing = [line for line in found if not line.healthy]
        if found and not missing:
            return
        if time.monotonic() > deadline:
            for line in missing:
                print(f"  {line.name:<28}{line.problem}", file=sys.stderr)
            sys.exit(f"not healthy after {HEALTHY_SECONDS:.0f} s; see 'cumulet logs' and {config.logs}")
        time.sleep(0.05)


def _farewell(config: Config, written: credentials.Written, server: launch.Launched | None) -> str:
    lines = [
        f"Identity   {config.keystone_url}   user admin, project admin, domain Default",
        f"Password   in {written.clouds} (cloud name cumulet) and {written.openrc}",
        "Log in     export OS_CLOUD=cumulet; openstack server list",
    ]
    if server:
        lines += [
            f"Server     {server.name} is {server.status} and answers ssh on {server.floating_ip}",
            f"           cumulet ssh {server.name}",
        ]
    return "\n".join(lines)
