"""What nova tells the world, in upstream's names and fields, for meters and billing.

Of servers (``compute.instance.*``) the start is told when something is ordered, the end when its host has done it.
Of key pairs, aggregates and server groups, which no host has to know, it is told with the change itself.
"""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Row

from cumulet.core.context import Context
from cumulet.core.db import Transaction
from cumulet.core.http import Request
from cumulet.nova.tables import servers

COLUMNS = tuple(column for column in servers.c if column.key not in ("user_data", "key", "encrypted_password"))
"""What a notification is made from; a select of these gives ``tell`` its row."""
EVENTS = {
    "create": "create",
    "delete": "delete",
    "start": "power_on",
    "stop": "power_off",
    "reboot": "reboot",
    "pause": "pause",
    "unpause": "unpause",
    "suspend": "suspend",
    "resume": "resume",
    "rebuild": "rebuild",
    "evacuate": "rebuild",
    "resize": "resize",
    "migrate": "resize",
    "confirmResize": "resize.confirm",
    "revertResize": "resize.revert",
    "createImage": "snapshot",
    "createBackup": "snapshot",
}
"""From an action's name to the event that tells of it."""
PUBLISHERS = {"keypair": "api.nova-api", "aggregate": "aggregate.nova-api"}

_ONE = sa.select(*COLUMNS).where(servers.c.id == sa.bindparam("server"))


def find_row(tx: Transaction, server_id: str) -> Row[Any] | None:
    return tx.find(_ONE, {"server": server_id})


def tell(
    tx: Transaction,
    row: Row[Any],
    event: str,
    *,
    state: str,
    host: str = "",
    launched_at: str = "",
    message: str = "",
) -> None:
    """Notify ``compute.instance.<event>`` of the server ``row``.  ``state``: upstream's vm_state."""
    context = Context(request_id=row.request_id, user_id=row.user_id, project_id=row.project_id)
    flavor = row.flavor
    payload = {
        "tenant_id": row.project_id,
        "user_id": row.user_id,
        "instance_id": row.id,
        "display_name": row.name,
        "reservation_id": row.reservation_id,
        "hostname": row.hostname,
        "instance_type": flavor.get("name", ""),
        "instance_flavor_id": flavor.get("id", ""),
        "memory_mb": row.memory_mb,
        "vcpus": row.vcpus,
        "root_gb": row.root_gb,
        "ephemeral_gb": flavor.get("ephemeral", 0),
        "disk_gb": row.root_gb + flavor.get("ephemeral", 0),
        "host": host,
        "node": host,
        "availability_zone": row.availability_zone or "",
        "image_meta": {"base_image_ref": row.image_id or ""},
        "created_at": row.created_at,
        "launched_at": launched_at,
        "deleted_at": row.deleted_at or "",
        "terminated_at": row.deleted_at or "",
        "access_ip_v4": row.access_ip_v4 or "",
        "access_ip_v6": row.access_ip_v6 or "",
        "metadata": row.metadata,
        "state": state,
        "state_description": "",
        "message": message,
    }
    tx.notify(context, f"compute.instance.{event}", f"compute.{host}" if host else "compute", payload)


def tell_done(tx: Transaction, request: Request, kind: str, verb: str, payload: Mapping[str, Any]) -> None:
    """``<kind>.<verb>.start`` and ``.end`` of a change that this transaction makes."""
    for moment in ("start", "end"):
        tx.notify(request.context, f"{kind}.{verb}.{moment}", PUBLISHERS[kind], payload)


def tell_group(tx: Transaction, request: Request, verb: str, payload: Mapping[str, Any]) -> None:
    """``servergroup.<verb>``, which has neither start nor end."""
    tx.notify(request.context, f"servergroup.{verb}", "servergroup.nova-api", payload)
