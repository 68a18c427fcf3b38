"""/v2.0/agents/{id}/dhcp-networks, /networks/{id}/dhcp-agents, /agents/{id}/l3-routers, /routers/{id}/l3-agents.

Which agent serves what, and an administrator's way to change it.  What is taken from its last agent goes to another
one that lives; if there is none, whoever lives next gets it, for a subnet with DHCP and a router are to be served.
"""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Row

from cumulet.core.db import Transaction
from cumulet.core.errors import Conflict, NotFound
from cumulet.core.http import Request, Route
from cumulet.core.schema import Strict
from cumulet.core.tables import agents
from cumulet.neutron import bindings, effects, notices
from cumulet.neutron.agents import agent_view, alive_since, get_agent
from cumulet.neutron.bindings import DHCP_AGENT, L3_AGENT, find_host
from cumulet.neutron.checks import IdText
from cumulet.neutron.networks import get_network, network_views
from cumulet.neutron.routers import claim_router, get_router, router_views
from cumulet.neutron.standard import Json
from cumulet.neutron.tables import dhcp_bindings, networks, router_bindings, routers


class NetworkBody(Strict):
    network_id: IdText


class RouterBody(Strict):
    router_id: IdText


def list_networks(request: Request) -> Json:
    with request.db.read() as tx:
        agent = get_agent(tx, request.params["agent_id"])
        rows = tx.all(_served(networks, dhcp_bindings, "network_id", agent, DHCP_AGENT))
        return {"networks": network_views(tx, request, rows)}


def list_routers(request: Request) -> Json:
    with request.db.read() as tx:
        agent = get_agent(tx, request.params["agent_id"])
        rows = tx.all(_served(routers, router_bindings, "router_id", agent, L3_AGENT))
        return {"routers": router_views(tx, rows)}


def _served(
    things: sa.Table, table: sa.Table, key: str, agent: Row[Any], binary: str
) -> sa.Select[tuple[Any, ...]]:
    """What the agent serves; nothing for an agent of another kind."""
    here = sa.select(table.c[key]).where(table.c.host == agent.host, table.c.wanted == "run")
    mine = things.c.id.in_(here) if agent.binary == binary else sa.false()
    return sa.select(things).where(mine).order_by(things.c.created_at, things.c.id)


def list_dhcp_agents(request: Request) -> Json:
    with request.db.read() as tx:
        network = get_network(tx, request, request.params["network_id"])
        return _agents(tx, request, DHCP_AGENT, dhcp_bindings, dhcp_bindings.c.network_id == network.id)


def list_l3_agents(request: Request) -> Json:
    with request.db.read() as tx:
        router = get_router(tx, request, request.params["router_id"])
        return _agents(tx, request, L3_AGENT, router_bindings, router_bindings.c.router_id == router.id)


def _agents(tx: Transaction, request: Request, binary: str, table: sa.Table, mine: sa.ColumnElement[bool]) -> Json:
    hosts = sa.select(table.c.host).where(mine, table.c.wanted == "run")
    rows = tx.all(
        sa.select(agents).where(agents.c.binary == binary, agents.c.host.in_(hosts)).order_by(agents.c.host)
    )
    return {"agents": [agent_view(row, alive_since(request)) for row in rows]}


def add_network(request: Request) -> None:
    with request.db.transaction() as tx:
        agent = _enabled(
            tx, request, DHCP_AGENT, "is not a valid DHCP Agent or has been disabled", "InvalidDHCPAgent"
        )
        network = get_network(tx, request, request.body.network_id)
        bindings.lock(tx, networks, network.id)
        if _binding(tx, dhcp_bindings, "network_id", network.id, agent.host):
            raise Conflict(
                f"The network {network.id} has been already hosted by the DHCP Agent {agent.id}.",
                kind="NetworkHostedByDHCPAgent",
            )
        bindings.begin_dhcp(tx, network.id, agent.host)
        effects.bump_routers_of_network(tx, network.id)
        notices.scheduled(tx, request, "dhcp_agent.network.add", agent.id, "network_id", network.id)


def remove_network(request: Request) -> None:
    with request.db.transaction() as tx:
        agent = get_agent(tx, request.params["agent_id"])
        network = get_network(tx, request, request.params["network_id"])
        bindings.lock(tx, networks, network.id)
        binding = _binding(tx, dhcp_bindings, "network_id", network.id, agent.host)
        if binding is None or agent.binary != DHCP_AGENT:
            raise Conflict(
                f"The network {network.id} is not hosted by the DHCP agent {agent.id}.",
                kind="NetworkNotHostedByDhcpAgent",
            )
        here = sa.select(dhcp_bindings.c.host).where(
            dhcp_bindings.c.network_id == network.id, dhcp_bindings.c.wanted == "run"
        )
        others = {row.host for row in tx.all(here)} - {agent.host}
        host = find_host(tx, request.config, DHCP_AGENT, dhcp_bindings, besides=[agent.host])
        if others or host is None:
            bindings.end_dhcp(tx, binding)
        else:
            bindings.move_dhcp(tx, binding, host)
        effects.bump_routers_of_network(tx, network.id)
        notices.scheduled(tx, request, "dhcp_agent.network.remove", agent.id, "network_id", network.id)


def add_router(request: Request) -> None:
    with request.db.transaction() as tx:
        agent = _enabled(tx, request, L3_AGENT, "is not a L3 Agent or has been disabled", "InvalidL3Agent")
        router = get_router(tx, request, request.body.router_id)
        claim_router(tx, router, {})
        there = tx.find(
            sa.select(router_bindings).where(
                router_bindings.c.router_id == router.id, router_bindings.c.wanted == "run"
            )
        )
        if there is None:
            bindings.begin_router(tx, router.id, agent.host)
        elif there.host != agent.host:
            other = tx.find(sa.select(agents.c.id).where(agents.c.binary == L3_AGENT, agents.c.host == there.host))
            raise Conflict(
                f"The router {router.id} has been already hosted by the L3 Agent "
                f"{other.id if other else there.host}.",
                kind="RouterHostedByL3Agent",
            )
        notices.scheduled(tx, request, "l3_agent.router.add", agent.id, "router_id", router.id)


def remove_router(request: Request) -> None:
    with request.db.transaction() as tx:
        agent = get_agent(tx, request.params["agent_id"])
        router = get_router(tx, request, request.params["router_id"])
        claim_router(tx, router, {})
        if agent.binary != L3_AGENT or not _binding(tx, router_bindings, "router_id", router.id, agent.host):
            raise Conflict(
                f"The router {router.id} is not hosted by L3 agent {agent.id}.", kind="RouterNotHostedByL3Agent"
            )
        bindings.end_router(tx, router.id)
        host = find_host(tx, request.config, L3_AGENT, router_bindings, besides=[agent.host])
        if host is not None:
            bindings.begin_router(tx, router.id, host)
        notices.scheduled(tx, request, "l3_agent.router.remove", agent.id, "router_id", router.id)


def _enabled(tx: Transaction, request: Request, binary: str, reason: str, kind: str) -> Row[Any]:
    agent = get_agent(tx, request.params["agent_id"])
    if agent.binary != binary or not agent.enabled:
        raise NotFound(f"Agent {agent.id} {reason}", kind=kind)
    return agent


def _binding(tx: Transaction, table: sa.Table, key: str, thing_id: str, host: str) -> Row[Any] | None:
    mine = sa.and_(table.c[key] == thing_id, table.c.host == host, table.c.wanted == "run")
    return tx.find(sa.select(table).where(mine))


AGENT, NETWORK, ROUTER = "/v2.0/agents/{agent_id}", "/v2.0/networks/{network_id}", "/v2.0/routers/{router_id}"
ROUTES = [
    Route("GET", AGENT + "/dhcp-networks", list_networks, "get_dhcp-networks"),
    Route("POST", AGENT + "/dhcp-networks", add_network, "create_dhcp-network", 201, body=NetworkBody),
    Route("DELETE", AGENT + "/dhcp-networks/{network_id}", remove_network, "delete_dhcp-network", 204),
    Route("GET", NETWORK + "/dhcp-agents", list_dhcp_agents, "get_dhcp-agents"),
    Route("GET", AGENT + "/l3-routers", list_routers, "get_l3-routers"),
    Route("POST", AGENT + "/l3-routers", add_router, "create_l3-router", 201, body=RouterBody),
    Route("DELETE", AGENT + "/l3-routers/{router_id}", remove_router, "delete_l3-router", 204),
    Route("GET", ROUTER + "/l3-agents", list_l3_agents, "get_l3-agents"),
]
