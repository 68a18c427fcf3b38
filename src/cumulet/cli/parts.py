"""The parts that are not ours: Open vSwitch, libvirtd and RabbitMQ as supervised children of the node's parent.

A part may outlive the parent (kill -9, upgrade).  The next parent finds it by its pid file and watches it by a
pidfd, without starting a second one.
"""

import contextlib
import ctypes
import functools
import os
import resource
import signal
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from cumulet.cli.supervision import Supervised
from cumulet.core import certificates, secrets
from cumulet.core.config import Config
from cumulet.host import libvirtd, mariadb, openvswitch, process, rabbitmq
from cumulet.services import Named

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
QUEUE, LONG_QUEUE = Path("/proc/sys/net/unix/max_dgram_qlen"), 512
NAMES = ("ovsdb-server", "ovs-vswitchd", "libvirtd", "rabbitmq", "mariadbd")
AMQP_PORTS = {"amqp": 5672, "amqps": 5671}
REFUSALS = (libvirtd.LibvirtdError, openvswitch.OpenvswitchError, rabbitmq.RabbitmqError, mariadb.MariadbError)
NETWORK_AGENTS = frozenset({"neutron-openvswitch-agent", "neutron-dhcp-agent", "neutron-l3-agent", "nova-compute"})


def become_subreaper() -> None:
    """Orphans below this process come to it, not to PID 1, so they are reaped at once."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def allow_many_files() -> None:
    """Open vSwitch holds some descriptors for each port: our children may open as many as this process might."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def allow_long_queues() -> None:
    """Hints beyond the queue of a socket are lost until the next full pass: room for a hundred servers at once.

    The kernel's own 10 are few, systemd makes 512 of them; where the setting may not be changed, so be it.
    """
    if int(QUEUE.read_text()) < LONG_QUEUE:
        with contextlib.suppress(OSError):
            QUEUE.write_text(str(LONG_QUEUE))


def die_with_parent(parent: int) -> None:
    """SIGTERM to this process when ``parent`` dies, at once if it is dead already.

    The kernel forgets this wish whenever the process changes its user: call it after that.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


def switch_dirs(config: Config) -> tuple[str, str]:
    """State and run directory of the cloud's own Open vSwitch."""
    return str(config.state / "openvswitch"), str(config.run / "openvswitch")


def supervised(config: Config, services: Sequence[Named]) -> list[Supervised]:
    """The parts that these services need on this node."""
    names = {service.name for service in services}
    needed = {
        "mariadbd": config.database.private,
        "rabbitmq": config.broker.private,
        "ovsdb-server": names & NETWORK_AGENTS,
        "ovs-vswitchd": names & NETWORK_AGENTS,
        "libvirtd": "nova-compute" in names,
    }
    return [
        Supervised(name, functools.partial(ensure, config, name), part=True)
        for name, wanted in needed.items()
        if wanted
    ]


def ensure(config: Config, name: str) -> int:
    """Start this part unless it runs; its pid.  ProcessError says what is missing."""
    running = _alive(config, name)
    if running is None:
        try:
            argv, extra = _command(config, name)
        except REFUSALS as error:
            raise process.ProcessError(str(error)) from error
        log_path = str(config.logs / f"{name}.log")
        env = {**os.environ, **extra}
        running = process.start(argv, str(pid_file(config, name)), log_path=log_path, env=env)
    return running.pid


def pid_file(config: Config, name: str) -> Path:
    return config.run / "parts" / f"{name}.pid"


def marker(config: Config) -> str:
    """What tells our part's command line from the machine's own daemon of that name."""
    return str(config.run)


def _alive(config: Config, name: str) -> process.Process | None:
    return process.find(str(pid_file(config, name)), marker(config))


def _command(config: Config, name: str) -> tuple[list[str], dict[str, str]]:
    """What to execute, and what to add to its environment; what it needs is there afterwards."""
    state, run = switch_dirs(config)
    if name == "mariadbd":
        user, bind = f"{config.node.user}-db", urlsplit(config.database.url).hostname or ""
        password = secrets.load(config.etc).database_password
        mariadb.prepare(config.state, config.run, user, config.node.user, password, bind)
        return mariadb.argv(config.state, config.run, user, config.database.cache_mb, bind), {}
    if name == "rabbitmq":
        url = urlsplit(config.broker.url)
        address = (url.hostname or "127.0.0.1", url.port or AMQP_PORTS.get(url.scheme, 5672))
        certificate = certificates.server_path(config).read_text() if url.scheme == "amqps" else ""
        rabbitmq.prepare(config.state, address, rabbitmq.users(secrets.load(config.etc)), certificate)
        return rabbitmq.command(config.state, config.run)
    if name == "libvirtd":
        libvirtd.prepare(config.state, config.run)
        return libvirtd.argv(config.state, config.run), {}
    if name == "ovsdb-server":
        openvswitch.prepare(state, run, config.node.name)
        return openvswitch.ovsdb_server(state, run)
    return openvswitch.ovs_vswitchd(state, run)
