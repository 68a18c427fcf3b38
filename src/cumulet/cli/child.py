"""One named service in this process: its environment made from the configuration, then run to its end.

Controller services run as the cloud's own user and get the database; agents run as root and get clients of
their controllers instead.
"""

import functools
import grp
import importlib
import os
import pwd
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cumulet.cli import parts
from cumulet.core import heartbeat, log, run, secrets
from cumulet.core.bus import SocketBus
from cumulet.core.client import Controller
from cumulet.core.config import Config
from cumulet.core.heartbeat import Heartbeat
from cumulet.core.service import HostEnv, Service
from cumulet.services import BY_NAME, Named

BEATING = frozenset({"nova-scheduler", "nova-conductor", "nova-consoleauth"})
"""Controller services that are listed among os-services, so they say that they live; agents all do."""

DRIVERS = {
    "neutron-dhcp-agent": "cumulet.neutron.dhcp.driver",
    "neutron-l3-agent": "cumulet.neutron.l3.driver",
    "neutron-metadata-agent": "cumulet.neutron.metadata.sockets",
    "nova-compute": "cumulet.nova.compute.libvirt",
}
"""What an agent loads only when it is built: a machine that tests it need not have what its host has."""


def load(service: Named) -> None:
    """Load a service's code: before a fork, so that children share it."""
    builder(service)
    if service.name in DRIVERS:
        importlib.import_module(DRIVERS[service.name])


def builder(service: Named) -> Callable[[Any], Service]:
    """The service's ``build``."""
    module, _, function = service.build.partition(":")
    found: Callable[[Any], Service] = getattr(importlib.import_module(module), function)
    return found


@dataclass(frozen=True)
class Built:
    """A service that is ready to run: by this process, or by one that is forked from it."""

    service: Service
    bus: SocketBus
    beat: Callable[[Heartbeat], None] | None


def build(service: Named, config: Config) -> Built:
    """Make what the service consists of.  It opens nothing that a forked child could not use as its own."""
    known = secrets.load(config.etc)
    bus = SocketBus(config.run / "bus")
    make = builder(service)
    if service.agent:
        host_env = _host_env(config, bus, known)
        return Built(make(host_env), bus, _agent_beat(service, host_env))
    return Built(*_controller_service(service, config, bus, known, make))


def run_service(
    service: Named,
    config: Config,
    status_socket: socket.socket | None,
    api_sockets: Sequence[socket.socket],
    parent: int = 0,
    built: Built | None = None,
) -> None:
    """Become ``service``: name, user, log; then serve until SIGTERM, or until the process ``parent`` dies.

    Without a parent it logs to the terminal.  ``built``: what the parent has made of it before the fork.
    """
    import setproctitle

    setproctitle.setproctitle(service.name)
    if not service.agent:
        become(config.node.user)
    if parent:
        parts.die_with_parent(parent)
    log.setup(service.name, config.logs if parent else None)
    made = built or build(service, config)
    run.serve(
        service.name,
        made.service,
        made.bus,
        status_socket=status_socket,
        api_sockets=api_sockets,
        beat=made.beat,
        heartbeat_seconds=config.agents.heartbeat_seconds,
    )


def become(user: str) -> None:
    """Give up root for ``user``; nothing to do if this process is not root."""
    if os.geteuid() != 0:
        return
    uid, gid, groups = identity(user)
    os.setgroups(groups)
    os.setgid(gid)
    os.setuid(uid)
    os.umask(0o027)


@functools.cache
def identity(user: str) -> tuple[int, int, list[int]]:
    """A user's number, group and further groups; looked up once, before the fork, for all that become it."""
    entry = pwd.getpwnam(user)
    return entry.pw_uid, entry.pw_gid, [group.gr_gid for group in grp.getgrall() if user in group.gr_mem]


def _controller_service(
    service: Named, config: Config, bus: SocketBus, known: secrets.Secrets, build: Callable[[Any], Service]
) -> tuple[Service, SocketBus, Callable[[Heartbeat], None] | None]:
    from cumulet.core.controller import ControllerEnv
    from cumulet.core.db import Database
    from cumulet.keystone.public import build_authenticator

    db = Database(config.database_url, bus)
    made = build(ControllerEnv(config, db, bus, known, build_authenticator(config, db)))

    def beat(sign: Heartbeat) -> None:
        with db.transaction() as tx:
            heartbeat.beat(tx, service.name, config.node.name, sign)

    return made, bus, beat if service.name in BEATING else None


def _host_env(config: Config, bus: SocketBus, known: secrets.Secrets) -> HostEnv:
    host = config.node.name
    token = secrets.host_token(known.host_secret, host)

    def client(name: str) -> Controller:
        return Controller(name, f"http://{config.api.controller}:{BY_NAME[name].port}", host, token)

    return HostEnv(
        config,
        bus,
        host,
        nova=client("nova-conductor"),
        neutron=client("neutron-server"),
        glance=client("glance-api"),
        metadata=client("nova-api-metadata"),
        metadata_secret=known.metadata_secret,
    )


def _agent_beat(service: Named, env: HostEnv) -> Callable[[Heartbeat], None]:
    controller = env.nova if service.name.startswith("nova-") else env.neutron
    return functools.partial(controller.post, f"/hosts/{env.host}/heartbeat/{service.name}")
