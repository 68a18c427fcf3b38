"""The map of a cloud of several nodes: what its topology places where, and what really runs there.

This node's services are asked themselves.  Elsewhere, a service that gives signs of life is judged by the last one,
and an API by its answer.  It is the same from every controller.
"""

import http.client
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Row

from cumulet.cli import status, times
from cumulet.cli.database import reading
from cumulet.cli.node_map import EXTRA, MISSING, SICK, UP, Line, NodeMap, judge
from cumulet.cli.status import Health
from cumulet.core import certificates, clock
from cumulet.core.client import connect
from cumulet.core.config import Config
from cumulet.core.reconcile import LoopStatus
from cumulet.core.tables import agents
from cumulet.core.topology import Node, Topology, services_of
from cumulet.services import Named

SECONDS = 2.0
Signs = Mapping[tuple[str, str], Row[Any]]


def look(config: Config, topology: Topology) -> list[NodeMap]:
    """Every node of the topology, then those that tell of themselves and are not in it."""
    with reading(config) as tx:
        signs = {(row.host, row.binary): row for row in tx.all(sa.select(agents))}
    own = status.healths(config)
    with ThreadPoolExecutor(16) as pool:
        futures = [
            (node, [pool.submit(_line, config, node, service, signs, own) for service in services_of(node)])
            for node in topology.nodes
        ]
        found = [
            NodeMap(node.name, node.address, list(node.roles), [future.result() for future in lines])
            for node, lines in futures
        ]
    for node in found:
        node.services += [*_parts(config, node.name, own), *_extra(config, node, signs, own)]
    return [*found, *_strangers(config, {node.name for node in topology.nodes}, signs)]


def _line(config: Config, node: Node, service: Named, signs: Signs, own: Iterable[Health]) -> Line:
    if node.name == config.node.name:
        health = next((one for one in own if one.name == service.name), None)
        state, about = judge(health) if health else (MISSING, "its configuration does not have it")
    elif row := signs.get((node.name, service.name)):
        state, about = _sign(config, row)
    elif service.port and not service.agent:
        state, about = _probe(config, (service.public and node.public_address) or node.address, service.port)
    else:
        state, about = MISSING, "has never told of itself"
    return Line(service.name, service.role, state, about)


def _sign(config: Config, row: Row[Any]) -> tuple[str, str]:
    """What the last sign of life says."""
    if row.seen_at < clock.later(-config.agents.down_seconds):
        return MISSING, f"no sign of life since {times.at(row.seen_at)}"
    troubles = list(_troubles(msgspec.convert(row.loops, list[LoopStatus])))
    if troubles:
        return SICK, troubles[0] + (f" (and {len(troubles) - 1} more)" if len(troubles) > 1 else "")
    return UP, "" if row.enabled else f"disabled: {row.disabled_reason or 'no reason is given'}"


def _troubles(loops: Iterable[LoopStatus]) -> Iterator[str]:
    """Keys that fail; those that only wait for somebody else are no trouble."""
    for loop in loops:
        for key, failure in loop.failing.items():
            if failure.kind == "failed":
                yield f"{loop.name}: {key}: {failure.reason}"


def _probe(config: Config, host: str, port: int) -> tuple[str, str]:
    """What an API answers when it is asked for its health."""
    connection = connect(host, port, certificates.trust(config), SECONDS)
    try:
        connection.request("GET", "/healthcheck")
        code = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return MISSING, f"does not answer on {host}:{port}: {getattr(error, 'strerror', None) or error}"
    finally:
        connection.close()
    return (UP, f"{host}:{port}") if code < 500 else (SICK, f"answers {code} on {host}:{port}")


def _parts(config: Config, node: str, own: Iterable[Health]) -> list[Line]:
    if node != config.node.name:
        return []
    return [Line(one.name, one.role, *judge(one)) for one in own if one.role == "part"]


def _extra(config: Config, node: NodeMap, signs: Signs, own: Iterable[Health]) -> Iterator[Line]:
    """What runs there and is not placed there."""
    placed = {line.name for line in node.services}
    if node.name == config.node.name:
        for health in own:
            if health.role != "part" and health.name not in placed and health.pid:
                yield Line(health.name, health.role, EXTRA, f"pid {health.pid}: cloud.toml does not place it here")
        placed |= {health.name for health in own}
    for (host, binary), row in sorted(signs.items()):
        if host == node.name and binary not in placed:
            yield Line(binary, "", EXTRA, _last_seen(config, row))


def _strangers(config: Config, known: set[str], signs: Signs) -> list[NodeMap]:
    hosts = sorted({host for host, _ in signs} - known)
    return [
        NodeMap(
            host,
            "",
            [],
            [
                Line(binary, "", EXTRA, f"cloud.toml has no such node; {_last_seen(config, row)}")
                for (name, binary), row in sorted(signs.items())
                if name == host
            ],
        )
        for host in hosts
    ]


def _last_seen(config: Config, row: Row[Any]) -> str:
    if row.seen_at < clock.later(-config.agents.down_seconds):
        return f"no sign of life since {times.at(row.seen_at)}"
    return "gives signs of life"
