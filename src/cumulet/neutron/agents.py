"""/v2.0/agents and /v2.0/availability_zones: who serves the network, as upstream's clients read it."""

from typing import Any

import sqlalchemy as sa
from msgspec import UNSET, UnsetType
from sqlalchemy.engine import Row

from cumulet.core import clock, listing
from cumulet.core.db import Transaction
from cumulet.core.errors import BadRequest, NotFound
from cumulet.core.http import Request, Route
from cumulet.core.listing import Listing
from cumulet.core.policy import AUTHENTICATED
from cumulet.core.schema import Strict
from cumulet.core.tables import agents
from cumulet.neutron import checks, effects, notices, standard
from cumulet.neutron.bindings import DHCP_AGENT, L2_AGENT, L3_AGENT, METADATA_AGENT
from cumulet.neutron.checks import NameText
from cumulet.neutron.networks import ZONE
from cumulet.neutron.standard import Json

KINDS = {
    L2_AGENT: ("Open vSwitch agent", "N/A", None),
    DHCP_AGENT: ("DHCP agent", "dhcp_agent", ZONE),
    L3_AGENT: ("L3 agent", "l3_agent", ZONE),
    METADATA_AGENT: ("Metadata agent", "N/A", None),
}


class AgentChange(Strict):
    admin_state_up: bool | UnsetType = UNSET
    description: NameText | UnsetType = UNSET


class AgentBody(Strict):
    agent: AgentChange


def list_agents(request: Request) -> Json:
    """Those whom the rule keeps from seeing agents see a list with none in it."""
    since = alive_since(request)
    seen = sa.true() if request.allows("get_agent") else sa.false()
    with request.db.read() as tx:
        page = listing.list_page(tx, _AGENTS.where(seen), request, _listing(since))
    return standard.document(request, "agents", page, [agent_view(row, since) for row in page.rows])


def show_agent(request: Request) -> Json:
    with request.db.read() as tx:
        row = get_agent(tx, request.params["agent_id"])
    return {"agent": standard.selected(request, agent_view(row, alive_since(request)))}


def update_agent(request: Request) -> Json:
    body: AgentChange = request.body.agent
    with request.db.transaction() as tx:
        row = get_agent(tx, request.params["agent_id"])
        values: Json = {}
        if body.admin_state_up is not UNSET:
            values["enabled"] = body.admin_state_up
        if body.description is not UNSET:
            values["disabled_reason"] = body.description
        if values:
            tx.write(sa.update(agents).where(agents.c.id == row.id).values(**values))
            tx.hint(effects.BINDINGS, "*")
        document = agent_view(get_agent(tx, row.id), alive_since(request))
        notices.updated(tx, request, "agent", body, document)
    return {"agent": document}


def delete_agent(request: Request) -> None:
    """Forget an agent that is gone; one that lives comes back with its next sign of life."""
    with request.db.transaction() as tx:
        row = get_agent(tx, request.params["agent_id"])
        tx.write(sa.delete(agents).where(agents.c.id == row.id))
        notices.deleted(tx, request, "agent", row.id)


def list_zones(request: Request) -> Json:
    zones = [{"name": ZONE, "resource": resource, "state": "available"} for resource in ("network", "router")]
    for name in ("name", "resource", "state"):
        if wanted := request.many(name):
            zones = [zone for zone in zones if zone[name] in wanted]
    return {"availability_zones": [standard.selected(request, zone) for zone in zones]}


def check_details(details: dict[str, Any]) -> None:
    """What one host's signs of life tell the others: where its tunnels end."""
    end = details.get("tunnel_address", "")
    if not isinstance(end, str):
        raise checks.bad(f"'{checks.shown(str(end))}' is not a tunnel_address")
    if end:
        checks.ip(end)


def get_agent(tx: Transaction, agent_id: str) -> Row[Any]:
    row = tx.find(_AGENTS.where(agents.c.id == agent_id))
    if row is None:
        raise NotFound(f"Agent {checks.shown(agent_id)} could not be found.", kind="AgentNotFound")
    return row


def alive_since(request: Request) -> str:
    return clock.later(-request.config.agents.down_seconds)


def agent_view(row: Row[Any], since: str) -> Json:
    kind, topic, zone = KINDS[row.binary]
    return {
        "id": row.id,
        "agent_type": kind,
        "binary": row.binary,
        "host": row.host,
        "topic": topic,
        "availability_zone": zone,
        "admin_state_up": row.enabled,
        "alive": row.seen_at >= since,
        "created_at": _time(row.created_at),
        "started_at": _time(row.started_at),
        "heartbeat_timestamp": _time(row.seen_at),
        "description": row.disabled_reason,
        "configurations": row.details,
        "resources_synced": None,
    }


def _time(text: str) -> str:
    """``2026-11-22 13:08:40``, the form of agents' times."""
    return text[:19].replace("T", " ")


def _listing(since: str) -> Listing:
    def alive(values: list[str]) -> sa.ColumnElement[bool]:
        if any(value.lower() not in ("true", "false", "1", "0") for value in values):
            raise BadRequest(f"Invalid input for alive: {values[0]!r} is not a boolean")
        wanted = {value.lower() in ("true", "1") for value in values}
        return sa.or_(*(agents.c.seen_at >= since if yes else agents.c.seen_at < since for yes in wanted))

    def kind(values: list[str]) -> sa.ColumnElement[bool]:
        wanted = {value.lower() for value in values}  # as upstream's database compares them
        return agents.c.binary.in_([binary for binary, (name, _, _) in KINDS.items() if name.lower() in wanted])

    columns = {
        "id": agents.c.id,
        "binary": agents.c.binary,
        "host": agents.c.host,
        "admin_state_up": agents.c.enabled,
        "created_at": agents.c.created_at,
    }
    return Listing(agents.c.id, columns, {"alive": alive, "agent_type": kind})


_AGENTS = sa.select(agents).where(agents.c.binary.in_(list(KINDS)))
ROUTES = [
    Route("GET", "/v2.0/agents", list_agents, AUTHENTICATED),
    Route("GET", "/v2.0/agents/{agent_id}", show_agent, "get_agent"),
    Route("PUT", "/v2.0/agents/{agent_id}", update_agent, "update_agent", body=AgentBody),
    Route("DELETE", "/v2.0/agents/{agent_id}", delete_agent, "delete_agent", 204),
    Route("GET", "/v2.0/availability_zones", list_zones, "get_availability_zone"),
]
