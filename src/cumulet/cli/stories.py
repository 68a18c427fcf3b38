"""Everything that is known about one thing: what is wanted, what each host has seen, and what it waits for.

Read from the database.  The columns are chosen for an operator's eye; ids are there where they lead further.
"""

import re
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Row

from cumulet.cli.culprits import Culprits, Waiting
from cumulet.core.db import Transaction
from cumulet.glance import tables as glance
from cumulet.neutron import port_status
from cumulet.neutron import tables as neutron
from cumulet.nova import status as server_status
from cumulet.nova import tables as nova

Json = dict[str, Any]
LONGEST_LIST = 20
NEWEST, OLDER = "newest", "older"
_PREFIX = re.compile(r"[0-9a-f-]{6,36}")
_PORTS = sa.select(
    neutron.ports,
    neutron.port_bindings.c.host,
    neutron.port_bindings.c.generation,
    neutron.port_bindings.c.wired_generation,
    neutron.port_bindings.c.wired_at,
    neutron.networks.c.name.label("network"),
).select_from(
    neutron.ports.outerjoin(
        neutron.port_bindings,
        sa.and_(neutron.port_bindings.c.port_id == neutron.ports.c.id, neutron.port_bindings.c.active),
    ).join(neutron.networks)
)


class Story(msgspec.Struct):
    """``state``: in the API's word; ``seen``: one for each host that has to do with it."""

    kind: str
    id: str
    name: str
    state: str
    wanted: Json
    seen: list[Json] = []
    actions: list[Json] = []
    waiting: list[Waiting] = []
    also: list["Story"] = []  # a server's ports, a port's floating IPs


def find(tx: Transaction, thing: str, culprits: Culprits) -> list[Story]:
    """The stories of all things with this id, name or address; of ids that begin so if there is none."""
    teller = Teller(tx, culprits)
    return teller.find(thing) or (teller.find(thing, begins=True) if _PREFIX.fullmatch(thing) else [])


class Teller:
    def __init__(self, tx: Transaction, culprits: Culprits) -> None:
        self._tx, self._culprits = tx, culprits

    def find(self, thing: str, begins: bool = False) -> list[Story]:
        servers, ports, floating = nova.servers.c, neutron.ports.c, neutron.floatingips.c
        addressed = sa.select(neutron.port_addresses.c.port_id).where(neutron.port_addresses.c.ip == thing)

        def named(table: sa.Table, *also: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
            if begins:
                return table.c.id.like(f"{thing}%")
            return sa.or_(table.c.id == thing, table.c.name == thing, *also)

        living = sa.or_(servers.gone_at.is_(None), servers.id == thing)
        address = sa.and_(ports.id.in_(addressed), ports.device_owner != "network:floatingip")
        of_server = server_status.DETAIL.where(named(nova.servers), living)
        of_port = _PORTS.where(named(neutron.ports, ports.mac == thing.lower(), address))
        of_floating = sa.select(neutron.floatingips).where(
            named(neutron.floatingips, floating.floating_ip == thing)
        )
        return [
            *(self.server(row) for row in self._some(of_server)),
            *(self.port(row) for row in self._some(of_port)),
            *(self.network(row) for row in self._some(_named(neutron.networks, named))),
            *(self.router(row) for row in self._some(_named(neutron.routers, named))),
            *(self.floating_ip(row) for row in self._some(of_floating)),
        ]

    def server(self, row: Row[Any]) -> Story:
        story = Story("server", row.id, row.name, row.status, self._server_wish(row))
        if row.task_state:
            story.state = f"{row.status}, {row.task_state}"
        hosts = nova.server_hosts
        found = self._tx.all(sa.select(hosts).where(hosts.c.server_id == row.id))
        story.seen = [_seen_server(row, one) for one in found]
        actions = nova.server_actions
        latest = sa.select(actions).where(actions.c.server_id == row.id).order_by(actions.c.id.desc()).limit(5)
        past = self._tx.all(latest)
        story.actions = [_action(one) for one in past if one.finished_at is None] or [
            _action(one) for one in past[:1]
        ]
        if row.gone_at is None:
            story.waiting = self._server_waits(row, found)
        ports = self._some(_PORTS.where(neutron.ports.c.device_id == row.id))
        story.also = [self.port(port) for port in ports]
        return story

    def port(self, row: Row[Any]) -> Story:
        ips = sa.select(neutron.port_addresses).where(neutron.port_addresses.c.port_id == row.id)
        addresses = [one.ip for one in sorted(self._tx.all(ips), key=lambda one: one.position)]
        wanted = {
            "addresses": addresses,
            "mac": row.mac,
            "network": row.network,
            "up": row.admin_up,
            "owner": row.device_owner,
            "device": row.device_id,
            "ordered_at": row.updated_at,
        }
        story = Story("port", row.id, row.name, port_status.status(row), wanted)
        if row.host is not None:
            words = {0: "not wired", row.generation: "wired as wanted"}
            wiring = words.get(row.wired_generation, "wired as was wanted before")
            story.seen = [{"host": row.host, "wiring": wiring, "at": row.wired_at}]
        if row.host is None:
            story.waiting = self._culprits.of(row.id)
        elif row.wired_generation != row.generation and row.admin_up:
            reason = "has not wired it as it is wanted now"
            story.waiting = self._behind(row.id, "neutron-openvswitch-agent", row.host, reason, row.updated_at)
        else:
            story.waiting = self._done(row.id, "neutron-openvswitch-agent", row.host)
        floating = sa.select(neutron.floatingips).where(neutron.floatingips.c.port_id == row.id)
        story.also = [self.floating_ip(one) for one in self._some(floating)]
        return story

    def network(self, row: Row[Any]) -> Story:
        subnets = sa.select(neutron.subnets).where(neutron.subnets.c.network_id == row.id)
        wanted = {
            "subnets": [f"{one.cidr}{'' if one.dhcp else ' (no DHCP)'}" for one in self._some(subnets)],
            "kind": f"{row.kind} {row.segmentation_id or row.physical_network}",
            "mtu": row.mtu,
            "up": row.admin_up,
            "external": row.external,
            "shared": bool(self._tx.find(_shared(row.id))),
            "ordered_at": row.updated_at,
        }
        story = Story("network", row.id, row.name, "ACTIVE" if row.admin_up else "DOWN", wanted)
        bindings = neutron.dhcp_bindings
        story.seen, story.waiting = self._bindings(
            row, sa.select(bindings).where(bindings.c.network_id == row.id), "neutron-dhcp-agent", "DHCP"
        )
        return story

    def router(self, row: Row[Any]) -> Story:
        ports = neutron.ports.c
        owned = sa.select(neutron.port_addresses.c.ip, ports.device_owner).where(
            neutron.port_addresses.c.port_id == ports.id, ports.device_id == row.id
        )
        found = self._tx.all(owned)
        wanted = {
            "interfaces": [one.ip for one in found if one.device_owner != "network:router_gateway"],
            "gateway": [one.ip for one in found if one.device_owner == "network:router_gateway"],
            "snat": row.snat,
            "up": row.admin_up,
            "routes": [f"{one['destination']} via {one['nexthop']}" for one in row.routes],
            "ordered_at": row.updated_at,
        }
        story = Story("router", row.id, row.name, "ACTIVE" if row.admin_up else "DOWN", wanted)
        story.seen, story.waiting = self._bindings(row, _router_bindings(row.id), "neutron-l3-agent", "routing")
        return story

    def floating_ip(self, row: Row[Any]) -> Story:
        wanted = {
            "to": row.fixed_ip,
            "port": row.port_id,
            "router": row.router_id,
            "ordered_at": row.updated_at,
        }
        story = Story("floating ip", row.id, row.floating_ip, "DOWN", wanted)
        for one in self._some(_router_bindings(row.router_id)) if row.router_id else ():
            placed = row.seen_generation >= row.generation and bool(row.seen_generation)
            story.state = "ACTIVE" if placed else story.state
            story.seen.append({"host": one.host, "in_place": placed, "at": one.seen_at})
            if not placed:
                reason = "has not put it in place yet"
                story.waiting += self._behind(row.router_id, "neutron-l3-agent", one.host, reason, row.updated_at)
            else:
                story.waiting += self._culprits.away("neutron-l3-agent", one.host)
        return story

    def _server_wish(self, row: Row[Any]) -> Json:
        image = glance.images.c
        known = self._tx.find(sa.select(image.name).where(image.id == row.image_id)) if row.image_id else None
        flavor = f"{row.flavor['name']} ({row.vcpus} vCPU, {row.memory_mb} MB, {row.root_gb} GB)"
        return {
            "power": "gone" if row.deleted_at else row.power,
            "flavor": flavor,
            "image": (known.name if known else None) or row.image_id,
            "ordered_at": row.deleted_at or row.updated_at,
        }

    def _server_waits(self, row: Row[Any], hosts: list[Row[Any]] | Any) -> list[Waiting]:
        """The scheduler while it has no host, else each host whose report is not about the present wish."""
        if not hosts:
            if row.placement_fault:
                fault = row.placement_fault
                return [Waiting("nova-scheduler", "", "terminal", fault, "place", since=row.placement_fault_at)]
            service = "nova-conductor" if row.deleted_at else "nova-scheduler"
            reason = "has not released it yet" if row.deleted_at else "has not chosen a host yet"
            return self._culprits.of(row.id) or self._local(service, reason, row)
        waits = []
        for one in hosts:
            acted = one.seen_generation >= row.generation
            if one.seen_fault and acted:
                waits.append(Waiting("nova-compute", one.host, "terminal", one.seen_fault, since=one.seen_fault_at))
            elif row.task_state:
                reason = one.seen_waiting or "has not acted on the newest order yet"
                since = one.seen_at if one.seen_waiting else row.deleted_at or row.updated_at
                waits += self._behind(row.id, "nova-compute", one.host, reason, since)
        return waits or self._culprits.of(row.id)

    def _local(self, service: str, reason: str, row: Row[Any]) -> list[Waiting]:
        """As ``_behind`` for a service that runs on controllers: this one's is asked."""
        return self._culprits.behind(row.id, service, self._culprits.here, reason, row.updated_at)

    def _behind(self, key: str, service: str, host: str, reason: str, since: str) -> list[Waiting]:
        others = [one for one in self._culprits.of(key) if (one.service, one.host) != (service, host)]
        return [*self._culprits.behind(key, service, host, reason, since), *others]

    def _done(self, key: str, service: str, host: str) -> list[Waiting]:
        """``service`` has done its part, as far as it can be known: loops that fail, and whether it is there."""
        return [*self._culprits.of(key), *self._culprits.away(service, host)]

    def _bindings(self, row: Row[Any], query: Any, service: str, what: str) -> tuple[list[Json], list[Waiting]]:
        """A network's or a router's hosts: what each has seen, and what those wait for that are behind."""
        seen, waiting = [], []
        for one in self._tx.all(query):
            order = {0: "no", one.generation: NEWEST}.get(one.seen_generation, OLDER)
            seen.append(
                {"host": one.host, what.lower(): "runs" if one.running else "does not run", "order": order}
                | {"fault": one.fault, "at": one.seen_at}
            )
            if one.seen_generation != one.generation or one.fault or one.running != (one.wanted == "run"):
                reason = one.fault or "has not acted on the newest order yet"
                waiting += self._behind(row.id, service, one.host, reason, one.seen_at or row.updated_at)
            else:
                waiting += self._culprits.away(service, one.host)
        return seen, waiting or self._culprits.of(row.id)

    def _some(self, query: Any) -> list[Row[Any]]:
        return list(self._tx.all(query.limit(LONGEST_LIST)))


def _named(table: sa.Table, named: Any) -> sa.Select[Any]:
    return sa.select(table).where(named(table))


def _shared(thing_id: str) -> sa.Select[Any]:
    rbacs = neutron.network_rbacs
    return sa.select(rbacs.c.id).where(rbacs.c.object_id == thing_id, rbacs.c.action == "access_as_shared")


def _router_bindings(router_id: str) -> sa.Select[Any]:
    bindings = neutron.router_bindings
    return sa.select(bindings).where(bindings.c.router_id == router_id)


def _seen_server(row: Row[Any], one: Row[Any]) -> Json:
    order = NEWEST if one.seen_generation >= row.generation else OLDER if one.seen_generation else "no"
    return {
        "host": one.host,
        "power": one.seen_power or "nothing reported yet",
        "order": order,
        "fault": one.seen_fault,
        "at": one.seen_at,
        "launched_at": one.launched_at,
    }


def _action(one: Row[Any]) -> Json:
    return {
        "action": one.action,
        "state": "failed" if one.fault else "done" if one.finished_at else "under way",
        "started_at": one.started_at,
        "finished_at": one.finished_at,
        "request": one.request_id,
        "fault": one.fault,
    }
