"""The catalogue: which service is where, as every token carries it."""

from typing import Any

import sqlalchemy as sa

from cumulet.core.db import Transaction
from cumulet.core.http import Json
from cumulet.keystone.model import Standing
from cumulet.keystone.tables import endpoints, services

_STATEMENT = (
    sa.select(
        services.c.id.label("service_id"),
        services.c.type,
        services.c.name,
        endpoints.c.id,
        endpoints.c.interface,
        endpoints.c.region_id,
        endpoints.c.url,
    )
    .select_from(services.join(endpoints, endpoints.c.service_id == services.c.id))
    .where(services.c.enabled, endpoints.c.enabled)
    .order_by(services.c.created_at, services.c.id, endpoints.c.created_at, endpoints.c.id)
)


def list_catalog(tx: Transaction, standing: Standing) -> list[Json]:
    """The services and their endpoints; URLs with the caller's ids put in, those that lack one left out."""
    project_id = standing.scope.id if standing.scope.kind == "project" else ""
    values = {"project_id": project_id, "tenant_id": project_id, "user_id": standing.user_id}
    found: dict[str, dict[str, Any]] = {}
    for row in tx.all(_STATEMENT):
        url = _filled(row.url, values)
        entry = found.setdefault(
            row.service_id, {"id": row.service_id, "type": row.type, "name": row.name or "", "endpoints": []}
        )
        if url is not None:
            entry["endpoints"].append(
                {
                    "id": row.id,
                    "interface": row.interface,
                    "region": row.region_id,
                    "region_id": row.region_id,
                    "url": url,
                }
            )
    return list(found.values())


def _filled(url: str, values: dict[str, str]) -> str | None:
    """``url`` with ``%(project_id)s`` and ``$(project_id)s`` replaced; None where there is no such value."""
    for name, value in values.items():
        for mark in (f"%({name})s", f"$({name})s"):
            if mark in url:
                if not value:
                    return None
                url = url.replace(mark, value)
    return url
