"""``cumulet why THING``: what is wanted, what is seen, what it waits for and since when.

Reads the database (this command runs on a controller, as root) and asks every service of this node for the
loops that fail; agents elsewhere tell theirs with their heartbeats.
"""

import argparse
import os
import sys
from typing import Any

import msgspec
import sqlalchemy as sa

from cumulet.cli import status
from cumulet.core import config as configuration
from cumulet.core.bus import LocalBus
from cumulet.core.config import Config
from cumulet.core.db import Database, Transaction
from cumulet.core.tables import agents
from cumulet.neutron import tables as neutron
from cumulet.nova import tables as nova

Json = dict[str, Any]
KINDS: tuple[tuple[str, sa.Table, tuple[str, ...]], ...] = (
    ("server", nova.servers, ("id", "name")),
    ("port", neutron.ports, ("id", "name")),
    ("network", neutron.networks, ("id", "name")),
    ("router", neutron.routers, ("id", "name")),
    ("floating ip", neutron.floatingips, ("id", "floating_ip")),
)
HOSTS: dict[str, tuple[sa.Table, str]] = {
    "server": (nova.server_hosts, "server_id"),
    "port": (neutron.port_bindings, "port_id"),
    "network": (neutron.dhcp_bindings, "network_id"),
    "router": (neutron.router_bindings, "router_id"),
}
PRIVATE = frozenset({"user_data", "key"})


class Story(msgspec.Struct):
    """Everything known about one thing."""

    kind: str
    id: str
    wanted: Json
    seen: list[Json]  # one for each host that has to do with it
    waiting: list[Json]  # loops in which it is not right yet
    also: list["Story"] = []  # a server's ports, a port's floating IPs


def main(options: argparse.Namespace) -> int:
    if os.geteuid() != 0:
        sys.exit("cumulet why needs root: it reads the database")
    config = configuration.load(options.config)
    with Database(config.database_url, LocalBus()).read() as tx:
        failures = _failures(config, tx)
        stories = [
            story for kind, table, keys in KINDS for story in _find(tx, kind, table, keys, options.thing, failures)
        ]
    if not stories:
        sys.exit(f"there is no server, port, network, router or floating IP {options.thing!r}")
    if options.json:
        print(msgspec.json.format(msgspec.json.encode(stories), indent=1).decode())
    else:
        print("\n\n".join(text(story) for story in stories))
    return 0


def text(story: Story, indent: str = "") -> str:
    """A story for people."""
    lines = [f"{indent}{story.kind} {story.wanted.get('name') or ''} {story.id}".replace("  ", " ")]
    for title, rows in (("wanted", [story.wanted]), ("seen", story.seen), ("waiting", story.waiting)):
        for row in rows:
            facts = ", ".join(f"{k} {_short(v)}" for k, v in row.items() if v not in (None, "", {}, [], ()))
            lines.append(f"{indent}  {title:<8}{facts}")
        if not rows:
            lines.append(f"{indent}  {title:<8}{'nothing' if title == 'waiting' else 'on no host'}")
    return "\n".join([*lines, *(text(part, indent + "  ") for part in story.also)])


def _find(
    tx: Transaction, kind: str, table: sa.Table, keys: tuple[str, ...], thing: str, failures: dict[str, list[Json]]
) -> list[Story]:
    rows = tx.all(sa.select(table).where(sa.or_(*(table.c[key] == thing for key in keys))).limit(20))
    return [_story(tx, kind, row, failures) for row in rows]


def _story(tx: Transaction, kind: str, row: Any, failures: dict[str, list[Json]]) -> Story:
    seen: list[Json] = []
    if kind in HOSTS:
        table, key = HOSTS[kind]
        seen = [_plain(found) for found in tx.all(sa.select(table).where(table.c[key] == row.id))]
    also: list[Story] = []
    if kind == "server":
        ports = tx.all(sa.select(neutron.ports).where(neutron.ports.c.device_id == row.id))
        also = [_story(tx, "port", port, failures) for port in ports]
        actions = sa.select(nova.server_actions).where(
            nova.server_actions.c.server_id == row.id, nova.server_actions.c.finished_at.is_(None)
        )
        seen += [
            {"action under way": a.action, "since": a.started_at, "request": a.request_id} for a in tx.all(actions)
        ]
    return Story(kind, row.id, _plain(row), seen, failures.get(row.id, []), also)


def _failures(config: Config, tx: Transaction) -> dict[str, list[Json]]:
    """By key: each loop in which it fails, on this node (asked now) and elsewhere (from heartbeats)."""
    found: dict[str, list[Json]] = {}
    for service, loops in status.loops(config).items():
        for loop in loops:
            for key, failure in loop["failing"].items():
                found.setdefault(key, []).append({"service": service, "loop": loop["name"], **failure})
    for agent in tx.all(sa.select(agents).where(agents.c.host != config.node.name)):
        for name, failing in agent.details.get("failing", {}).items():
            for key, failure in failing.items():
                place = {"service": agent.binary, "host": agent.host, "loop": name}
                found.setdefault(key, []).append({**place, **failure})
    return found


def _plain(row: Any) -> Json:
    return {name: value for name, value in row._mapping.items() if name not in PRIVATE}


def _short(value: Any) -> str:
    shown = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return shown if len(shown) <= 120 else shown[:117] + "..."
