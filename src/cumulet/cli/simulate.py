"""``cumulet sim``: real controller services, and as many simulated hosts and servers as one likes.

All of it is in one machine of namespaces (``host.machine``) with disks of its own, so that no cloud and no file of
this machine is touched, and ending that machine ends everything.  ``simulation`` is what runs in it.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from cumulet.cli import lab
from cumulet.core import config as configuration
from cumulet.core import topology
from cumulet.core.config import Config
from cumulet.host import machine
from cumulet.host.machine import Machine, MachineError
from cumulet.services import SERVICES

RUN, DISKS = Path("/run/cumulet-sim"), Path("/srv/cumulet-sim")
MOST_HOSTS = 20_000
MOST_PER_HOST = 500
LONGEST_IDLE = 86400.0
CONTROLLERS = [service.name for service in SERVICES if not service.agent]


def main(options: argparse.Namespace) -> int:
    if os.geteuid() != 0:
        sys.exit("cumulet sim needs root: it makes namespaces")
    if not 0 < options.idle <= LONGEST_IDLE:
        sys.exit(f"--idle: more than 0 and at most {LONGEST_IDLE:.0f} seconds")
    if not 1 <= options.hosts <= MOST_HOSTS or not 0 <= options.servers <= options.hosts * MOST_PER_HOST:
        sys.exit(f"1 to {MOST_HOSTS} hosts, and on each up to {MOST_PER_HOST} servers")
    found = Machine("controller", RUN, DISKS / "controller")
    if machine.find(found):
        sys.exit("there is a simulation already: one at a time")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal; nothing of it is left"))
    try:
        _start(found)
        return _play(found, options)
    except MachineError as error:
        sys.exit(str(error))
    finally:
        machine.stop(found)
        for place in (DISKS, RUN):
            shutil.rmtree(place, ignore_errors=True)


def _start(found: Machine) -> None:
    """Its power; on its disks the configuration of a node that only controls."""
    shutil.rmtree(DISKS, ignore_errors=True)  # of one that a reboot of this machine ended
    DISKS.mkdir(parents=True)
    config = Config(
        node=configuration.Node(name=found.name, services=CONTROLLERS),
        identity=configuration.Identity(bcrypt_rounds=4),  # each of many projects costs a login
    )
    files = {f"{lab.ETC}/cumulet.toml": topology.render(config), "/etc/hostname": f"{found.name}\n"}
    machine.prepare(found, [lab.ETC, lab.STATE, lab.LOGS], files)
    machine.start(found)
    subprocess.run(machine.network_command(found, ["ip", "link", "set", "lo", "up"]), check=True)


def _play(found: Machine, options: argparse.Namespace) -> int:
    """Have it run until it ends or is interrupted."""
    words = [sys.executable, "-m", "cumulet.cli.simulation", *_words(options)]
    if not options.json:
        enter = " ".join(machine.command(found, ["bash"]))
        print(f"inside: {enter}   (there: . {lab.ETC}/openrc; openstack …)", flush=True)
    inner = subprocess.Popen(machine.command(found, words), env=lab.environment(), cwd="/")
    try:
        return inner.wait()
    except KeyboardInterrupt:
        if not options.json:
            print("\nended; nothing of it is left")
        return 0
    finally:
        inner.send_signal(signal.SIGKILL)
        inner.wait()


def _words(options: argparse.Namespace) -> Sequence[str]:
    flags = [f"--{name}" for name in ("once", "json") if getattr(options, name)]
    return [str(options.hosts), str(options.servers), str(options.idle), *flags]
