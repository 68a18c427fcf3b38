"""What each host has to give, as its nova-compute says; served by nova-conductor to nova-compute."""

import msgspec
import sqlalchemy as sa

from cumulet.core.config import Compute
from cumulet.core.db import Transaction
from cumulet.core.heartbeat import agent_id
from cumulet.core.http import Request, Route
from cumulet.core.policy import HOST
from cumulet.core.tables import agents
from cumulet.nova.model import Inventory
from cumulet.placement import public as placement
from cumulet.placement.model import DISK_GB, MEMORY_MB, VCPU
from cumulet.placement.model import Inventory as Stock


def show_inventory(request: Request) -> Inventory | None:
    """What the controller knows of this host; null if it has to be told (again)."""
    host = request.params["host"]
    with request.db.read() as tx:
        known = find_inventory(tx, host)
        stock = placement.find_capacity(tx, host)
    if known is None or stock is None:
        return None
    wanted = _stock(known, request.config.compute)
    same = {name: (item.total, item.reserved, item.ratio) for name, item in stock.inventories.items()}
    return known if same == {n: (i.total, i.reserved, i.ratio) for n, i in wanted.items()} else None


def report_inventory(request: Request) -> None:
    host, inventory = request.params["host"], request.body
    with request.db.transaction() as tx:
        if placement.set_inventory(tx, host, _stock(inventory, request.config.compute)):
            tx.hint("nova.servers", "*")
        key = agents.c.id == agent_id("nova-compute", host)
        row = tx.find(sa.select(agents.c.details).where(key))
        document = msgspec.to_builtins(inventory)
        if row and row.details.get("inventory") != document:
            tx.write(sa.update(agents).where(key).values(details={**row.details, "inventory": document}))


def find_inventory(tx: Transaction, host: str) -> Inventory | None:
    """What nova-compute on ``host`` last said that it has."""
    row = tx.find(sa.select(agents.c.details).where(agents.c.id == agent_id("nova-compute", host)))
    document = row.details.get("inventory") if row else None
    return msgspec.convert(document, Inventory) if document else None


def _stock(inventory: Inventory, options: Compute) -> dict[str, Stock]:
    """What placement may give out of it."""
    return {
        VCPU: Stock(inventory.vcpus, 0, options.cpu_ratio),
        MEMORY_MB: Stock(
            inventory.memory_mb, min(options.reserved_memory_mb, inventory.memory_mb), options.memory_ratio
        ),
        DISK_GB: Stock(inventory.disk_gb, 0, options.disk_ratio),
    }


ROUTES = [
    Route("GET", "/hosts/{host}/inventory", show_inventory, HOST),
    Route("POST", "/hosts/{host}/inventory", report_inventory, HOST, 204, body=Inventory),
]
