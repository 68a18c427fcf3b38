"""``/os-services``: nova's services, where they run, whether they live and whether they may be used.

A service is up if it gave a sign of life within ``agents.down_seconds``.  Disabling a nova-compute keeps new
servers away from its host; only nova-compute can be disabled, as upstream.
"""

from typing import Any

import sqlalchemy as sa
from msgspec import UNSET, UnsetType
from sqlalchemy.engine import Row

from cumulet.core import clock
from cumulet.core.config import Config
from cumulet.core.db import Transaction
from cumulet.core.errors import BadRequest, NotFound
from cumulet.core.http import Json, Request, Route
from cumulet.core.schema import Strict, given
from cumulet.core.tables import agents
from cumulet.nova import versions
from cumulet.nova.checks import check_description

COMPUTE = "nova-compute"
API_SERVICES = ("nova-api", "nova-api-metadata")
ZONE, INTERNAL_ZONE = "nova", "internal"


class ServiceChange(Strict):
    status: str | UnsetType = UNSET
    disabled_reason: str | UnsetType = UNSET
    forced_down: bool | UnsetType = UNSET


def list_agents(tx: Transaction, *conditions: sa.ColumnElement[bool]) -> list[Row[Any]]:
    """nova's services but for its APIs, by binary and host."""
    mine = sa.and_(agents.c.binary.like("nova-%"), agents.c.binary.not_in(API_SERVICES), *conditions)
    return list(tx.all(sa.select(agents).where(mine).order_by(agents.c.binary, agents.c.host)))


def list_hosts(tx: Transaction) -> dict[str, Row[Any]]:
    """The nova-compute of each host."""
    return {row.host: row for row in list_agents(tx, agents.c.binary == COMPUTE)}


def is_up(row: Row[Any], config: Config) -> bool:
    return bool(row.seen_at >= clock.later(-config.agents.down_seconds))


def host_address(row: Row[Any] | None) -> str:
    """Where this nova-compute can be asked for consoles, as it said; empty if it has not."""
    details = row.details if row else {}
    return str(details.get("address") or details.get("inventory", {}).get("address") or "")


def host_status(row: Row[Any] | None, config: Config) -> str:
    """What ``host_status`` of a server says of its host."""
    if row is None:
        return "UNKNOWN"
    if not row.enabled:
        return "MAINTENANCE"
    return "UP" if is_up(row, config) else "UNKNOWN"


def list_services(request: Request) -> Json:
    wanted = [getattr(agents.c, name) == value for name in ("host", "binary") if (value := request.one(name))]
    with request.db.read() as tx:
        rows = list_agents(tx, *wanted)
    return {"services": [_view(request, row) for row in rows]}


def update_service(request: Request) -> Json:
    """Enable or disable a nova-compute, with a reason."""
    change: ServiceChange = request.body
    values = _values(change)
    with request.db.transaction() as tx:
        rows = list_agents(tx, agents.c.id == request.params["id"])
        if not rows:
            raise NotFound(f"Service {request.params['id']} could not be found.")
        if rows[0].binary != COMPUTE:
            raise BadRequest(
                f"Updating a {rows[0].binary} service is not supported. Only nova-compute services can be updated."
            )
        tx.write(sa.update(agents).where(agents.c.id == rows[0].id).values(values))
        tx.hint("nova.servers", "*")
        changed = list_agents(tx, agents.c.id == rows[0].id)[0]
    return {"service": _view(request, changed)}


def _values(change: ServiceChange) -> dict[str, Any]:
    if change.forced_down is True:
        raise BadRequest(
            "forced_down is not supported: a host whose service gives no sign of life is down by itself"
        )
    if not given(change):
        raise BadRequest("No updates were requested. Fields 'status' or 'forced_down' should be specified.")
    if change.status not in ("enabled", "disabled", UNSET):
        raise BadRequest(
            f"Invalid input for field/attribute status. Value: {change.status}. It is enabled or disabled"
        )
    reason = (
        None if change.disabled_reason is UNSET else check_description(change.disabled_reason, "disabled_reason")
    )
    if reason is not None and change.status != "disabled":
        raise BadRequest("Specifying 'disabled_reason' when status is 'enabled' is invalid.")
    return {"enabled": change.status != "disabled", "disabled_reason": reason}


def _view(request: Request, row: Row[Any]) -> Json:
    document = {
        "binary": row.binary,
        "host": row.host,
        "id": row.id,
        "zone": ZONE if row.binary == COMPUTE else INTERNAL_ZONE,
        "status": "enabled" if row.enabled else "disabled",
        "state": "up" if is_up(row, request.config) else "down",
        "updated_at": row.seen_at[:26],
        "disabled_reason": row.disabled_reason,
        "forced_down": False,
    }
    return versions.render("service", document, request.version)


POLICY = "os_compute_api:os-services:"
ROUTES = (
    Route("GET", "/v2.1/os-services", list_services, POLICY + "list"),
    Route(
        "PUT", "/v2.1/os-services/{id}", update_service, POLICY + "update", body=ServiceChange, since=(2, 53)
    ),
)  # fmt: skip
