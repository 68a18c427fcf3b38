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
from typing import Any

from cumulet.cli import parts
from cumulet.core import certificates, heartbeat, log, run, secrets
from cumulet.core.bus import Bus, SocketBus
from cumulet.core.client import Controller
from cumulet.core.config import Config
from cumulet.core.heartbeat import Heartbeat
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


def run_service(
    service: Named,
    config: Config,
    status_socket: socket.socket | None,
    api_sockets: Sequence[socket.socket],
    parent: int = 0,
) -> None:
    """Become ``service``: name, user, log; then serve until SIGTERM, or until the process ``parent`` dies.

    Without a parent it logs to the terminal.
    """
    import setproctitle

    setproctitle.setproctitle(service.name)
    known = None if service.agent else secrets.load(config.etc)
    own = secrets.load_host(config.etc, config.node.name) if service.agent else None
    if known:
        become(config.node.user)
    if parent:
        parts.die_with_parent(parent)
    log.setup(service.name, config.logs if parent else None)
    bus = _bus(service, config, known, own)
    build = builder(service)
    beat: Callable[[Heartbeat], None] | None
    if own:
        host_env = _host_env(config, bus, own)
        beat = _agent_beat(service, host_env)
        made = build(host_env)
    elif known:
        made, beat = _controller_service(service, config, bus, known, build)
    run.serve(
        service.name,
        made,
        bus,
        status_socket=status_socket,
        api_sockets=api_sockets,
        beat=beat,
        heartbeat_seconds=config.agents.heartbeat_seconds,
        certificate="" if service.agent else certificates.serving(config),
    )


def _bus(service: Named, config: Config, known: secrets.Secrets | None, own: secrets.HostSecrets | None) -> Bus:
    """Hints within this node, and to and from others if there is a broker between them."""
    near = SocketBus(config.run / "bus")
    if not config.broker.url:
        return near
    from cumulet.core import amqp
    from cumulet.core.amqp_bus import AmqpBus, NodeBus

    user, password = amqp.HOSTS, own.hints_password if own else ""
    if known:
        user, password = amqp.CONTROLLERS, known.broker_password
    url = amqp.complete_url(config.broker.url, user, password)
    return NodeBus(near, AmqpBus(url, config.node.name, service.name, certificates.broker_trust(config)))


def become(user: str) -> None:
    """Give up root for ``user``; nothing to do if this process is not root."""
    if os.geteuid() != 0:
        return
    entry = pwd.getpwnam(user)
    os.setgroups([group.gr_gid for group in grp.getgrall() if user in group.gr_mem])
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)
    os.umask(0o027)


def _controller_service(
    service: Named, config: Config, bus: Bus, known: secrets.Secrets, build: Callable[[Any], Service]
) -> tuple[Service, Callable[[Heartbeat], None] | None]:
    from cumulet.core.controller import ControllerEnv
    from cumulet.core.db import Database
    from cumulet.keystone.public import build_authenticator

    db = Database(config.database_url, bus)
    made = build(ControllerEnv(config, db, bus, known, build_authenticator(config, db)))

    def beat(sign: Heartbeat) -> None:
        with db.transaction() as tx:
            heartbeat.beat(tx, service.name, config.node.name, sign)

    return made, beat if made.loops else None


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
    return functools.partial(controller.post, f"/hosts/{env.host}/heartbeat/{service.name}")
