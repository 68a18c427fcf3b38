"""The parts that are not ours: Open vSwitch and libvirtd as supervised children of the node's parent.

A part may outlive the parent (kill -9, upgrade).  The next parent finds it by its pid file and watches it by a
pidfd, without starting a second one.
"""

import ctypes
import os
import resource
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cumulet.core.config import Config
from cumulet.host import libvirtd, openvswitch, process
from cumulet.services import Named

if TYPE_CHECKING:
    from cumulet.cli.node import Supervised

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
NETWORK_AGENTS = frozenset({"neutron-openvswitch-agent", "neutron-dhcp-agent", "neutron-l3-agent", "nova-compute"})


def become_subreaper() -> None:
    """Orphans below this process come to it, not to PID 1, so they are reaped at once."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def allow_many_files() -> None:
    """Open vSwitch holds some descriptors for each port: our children may open as many as this process might."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def die_with_parent() -> None:
    """SIGTERM to this process when its parent dies: no service runs twice after a new parent starts."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def switch_dirs(config: Config) -> tuple[str, str]:
    """State and run directory of the cloud's own Open vSwitch."""
    return str(config.state / "openvswitch"), str(config.run / "openvswitch")


def supervised(config: Config, services: Sequence[Named]) -> list["Supervised"]:
    """The parts that these services need on this node."""
    from cumulet.cli.node import Supervised

    names = {service.name for service in services}
    found = []
    if names & NETWORK_AGENTS:
        state, run = switch_dirs(config)
        if not _alive(config, "ovsdb-server"):
            openvswitch.prepare(state, run, config.node.name)
        for name, command in (
            ("ovsdb-server", openvswitch.ovsdb_server(state, run)),
            ("ovs-vswitchd", openvswitch.ovs_vswitchd(state, run)),
        ):
            found.append(Supervised(name, _starter(config, name, command.argv, command.env), part=True))
    if "nova-compute" in names:
        libvirtd.prepare(config.state, config.run)
        argv = libvirtd.argv(config.state, config.run)
        found.append(Supervised("libvirtd", _starter(config, "libvirtd", argv, {}), part=True))
    return found


def pid_file(config: Config, name: str) -> Path:
    return config.run / "parts" / f"{name}.pid"


def marker(config: Config) -> str:
    """What tells our part's command line from the machine's own daemon of that name."""
    return str(config.run)


def _alive(config: Config, name: str) -> process.Process | None:
    return process.find(str(pid_file(config, name)), marker(config))


def _starter(config: Config, name: str, argv: list[str], extra: dict[str, str]) -> Callable[[], int]:
    def start() -> int:
        running = _alive(config, name)
        if running is None:
            log_path = str(config.logs / f"{name}.log")
            env = {**os.environ, **extra}
            running = process.start(argv, str(pid_file(config, name)), log_path=log_path, env=env)
        return running.pid

    return start
