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
from cumulet.core import certificates, heartbeat, log, moments, run, secrets, tracing
from cumulet.core.bus import Bus, SocketBus
from cumulet.core.client import Controller
from cumulet.core.config import Config
from cumulet.core.heartbeat import Heartbeat, Wishes
from cumulet.core.service import HostEnv, Service
from cumulet.services import BY_NAME, Named

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
    bus: Bus
    beat: Callable[[Heartbeat], None] | None


def build(service: Named, config: Config) -> Built:
    """Make what the service consists of.  It opens nothing that a forked child could not use as its own."""
    make = builder(service)
    if service.agent:
        own = secrets.load_host(config.etc, config.node.name)
        bus = _bus(service, config, own.hints_password)
        host_env = _host_env(config, bus, own)
        return Built(make(host_env), bus, _agent_beat(service, host_env))
    known = secrets.load(config.etc)
    bus = _bus(service, config, known.broker_password)
    return _controller_service(service, config, bus, known, make)


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
        certificate=certificates.serving(config, service.agent),
    )


def _bus(service: Named, config: Config, password: str) -> Bus:
    """Hints within this node, and to and from others if there is a broker between them."""
    near = SocketBus(config.run / "bus")
    if not config.broker.url:
        return near
    from cumulet.core import broker
    from cumulet.core.amqp_bus import AmqpBus, NodeBus

    user = broker.HOSTS if service.agent else broker.CONTROLLERS
    url = broker.complete_url(config.broker.url, user, password)
    return NodeBus(near, AmqpBus(url, config.node.name, service.name, certificates.broker_trust(config)))


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
    service: Named, config: Config, bus: Bus, known: secrets.Secrets, build: Callable[[Any], Service]
) -> Built:
    from cumulet.core.controller import ControllerEnv
    from cumulet.core.db import Database
    from cumulet.keystone.public import build_authenticator

    db = Database(config.database_url, bus)
    made = build(ControllerEnv(config, db, bus, known, build_authenticator(config, db)))

    host, alone = config.node.name, not any(one.agent for one in config.services)

    def beat(sign: Heartbeat) -> None:
        with db.transaction() as tx:
            heartbeat.beat(tx, service.name, host, sign)
            wanted = tracing.wishes(tx, host) if alone else []  # agents answer for it, and may read all logs
        for request_id in wanted:
            told = moments.gather(config.logs, host, request_id)
            with db.transaction() as tx:
                tracing.answer(tx, host, request_id, told)

    return Built(made, bus, beat if made.loops else None)


def _host_env(config: Config, bus: Bus, own: secrets.HostSecrets) -> HostEnv:
    host, trust = config.node.name, certificates.trust(config)

    def client(name: str) -> Controller:
        return Controller(name, config.controller_urls(BY_NAME[name].port), host, own.host_token, trust)

    return HostEnv(
        config,
        bus,
        host,
        nova=client("nova-conductor"),
        neutron=client("neutron-server"),
        glance=client("glance-api"),
        metadata=client("nova-api-metadata"),
        metadata_secret=own.metadata_secret,
    )


def _agent_beat(service: Named, env: HostEnv) -> Callable[[Heartbeat], None]:
    controller = env.nova if service.name.startswith("nova-") else env.neutron
    here = f"/hosts/{env.host}"

    def beat(sign: Heartbeat) -> None:
        wishes = controller.tell(f"{here}/heartbeat/{service.name}", sign, Wishes)
        for request_id in wishes.traces if wishes else ():
            told = moments.gather(env.config.logs, env.host, request_id)
            controller.post(f"{here}/traces/{request_id}", told)

    return beat
