"""What other projects may call.  Every function works inside the caller's transaction.

A claim is a compare-and-set on the provider's generation: whoever chose from a view that has changed since gets
``Retry`` and looks again, so that no two schedulers give the same memory away.  ``used`` changes by differences,
never by a value that was read before.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from cumulet.core.db import Transaction
from cumulet.core.errors import Conflict, Retry
from cumulet.core.heartbeat import agent_id
from cumulet.placement.model import Capacity, Claim, Inventory, Resources
from cumulet.placement.tables import allocations, inventories, providers

_CAPACITY = (
    sa.select(
        providers.c.host,
        providers.c.id,
        providers.c.generation,
        inventories.c.resource_class,
        inventories.c.total,
        inventories.c.reserved,
        inventories.c.ratio,
        inventories.c.used,
    )
    .join_from(providers, inventories)
    .order_by(providers.c.host)
)
_ADVANCE = (
    sa.update(providers)
    .where(providers.c.id == sa.bindparam("provider"), providers.c.generation == sa.bindparam("seen"))
    .values(generation=providers.c.generation + 1)
)
_TAKE = (
    sa.update(inventories)
    .where(
        inventories.c.provider_id == sa.bindparam("provider"),
        inventories.c.resource_class == sa.bindparam("name"),
    )
    .values(used=inventories.c.used + sa.bindparam("amount"))
)


def provider_id(host: str) -> str:
    """The provider of ``host``; also the id of its hypervisor in nova's API."""
    return agent_id("nova-compute", host)


def list_capacity(tx: Transaction) -> list[Capacity]:
    """Every host that has reported an inventory, with what it gives, what is used and what is free; one query."""
    return _capacities(tx, _CAPACITY)


def find_capacity(tx: Transaction, host: str) -> Capacity | None:
    """The same for one host."""
    return next(iter(_capacities(tx, _CAPACITY.where(providers.c.host == host))), None)


def forget_host(tx: Transaction, host: str) -> None:
    """The host gives nothing any more.  Conflict if something is still claimed of it."""
    provider = provider_id(host)
    if tx.find(sa.select(allocations.c.consumer_id).where(allocations.c.provider_id == provider)):
        raise Conflict(f"something is still claimed of {host}")
    tx.write(sa.delete(inventories).where(inventories.c.provider_id == provider))
    tx.write(sa.delete(providers).where(providers.c.id == provider))


def claim(tx: Transaction, consumer: str, capacity: Capacity, need: Resources) -> None:
    """Take ``need`` from the host, if it has not changed since ``capacity`` was read; else Retry.

    Several claims from one view belong into one ``claim_all``.
    """
    claim_all(tx, [Claim(consumer, capacity, need)])


def claim_all(tx: Transaction, claims: Sequence[Claim]) -> None:
    """All these claims or none; Retry if any of their hosts has changed since it was read."""
    taken: dict[str, Resources] = defaultdict(Resources)
    seen: dict[str, Capacity] = {}
    for wish in claims:
        taken[wish.capacity.provider_id] += wish.need
        seen[wish.capacity.provider_id] = wish.capacity
    for provider in sorted(taken):
        before = seen[provider]
        if not tx.write(_ADVANCE, {"provider": provider, "seen": before.generation}):
            raise Retry(f"{before.host} has changed since it was looked at")
    _change_use(tx, taken)
    rows = [
        {
            "consumer_id": wish.consumer,
            "provider_id": wish.capacity.provider_id,
            "resource_class": name,
            "used": amount,
        }
        for wish in claims
        for name, amount in wish.need.by_class().items()
    ]
    if rows:
        tx.write(allocations.insert(), rows)


def release(tx: Transaction, consumer: str, host: str | None = None) -> None:
    """Give back what ``consumer`` has taken, from ``host`` or from all hosts; nothing if it has nothing."""
    condition = allocations.c.consumer_id == consumer
    if host is not None:
        condition = sa.and_(condition, allocations.c.provider_id == provider_id(host))
    rows = tx.all(sa.select(allocations).where(condition).order_by(allocations.c.provider_id))
    if not rows:
        return
    if tx.write(sa.delete(allocations).where(condition)) != len(rows):
        raise Retry(f"the allocations of {consumer} are being released by someone else")
    for row in rows:
        change = {"provider": row.provider_id, "name": row.resource_class, "amount": -row.used}
        tx.write(_TAKE, change)


def hand_over(tx: Transaction, consumer: str, host: str, to: str) -> None:
    """What ``consumer`` has taken from ``host`` is ``to``'s from now on."""
    condition = sa.and_(allocations.c.consumer_id == consumer, allocations.c.provider_id == provider_id(host))
    tx.write(sa.update(allocations).where(condition).values(consumer_id=to))


def set_inventory(tx: Transaction, host: str, wanted: Mapping[str, Inventory]) -> bool:
    """Write down what ``host`` has, by resource class; whether that was news.

    ``used`` of the given inventories is not looked at.  A host that has less than is used keeps its servers and
    gets no more; a class that is no longer named gives nothing.
    """
    provider = provider_id(host)
    before = find_capacity(tx, host)
    if before is None:
        if not tx.find(sa.select(providers.c.id).where(providers.c.id == provider)):
            tx.write(providers.insert(), {"id": provider, "host": host, "generation": 0})
        rows = [_columns(item) | {"provider_id": provider, "resource_class": name} for name, item in wanted.items()]
        if rows:
            tx.write(inventories.insert(), rows)
        return True
    changes = {
        name: item
        for name, item in ({name: Inventory(0) for name in before.inventories} | dict(wanted)).items()
        if name not in before.inventories or _columns(before.inventories[name]) != _columns(item)
    }
    if not changes:
        return False
    if not tx.write(_ADVANCE, {"provider": provider, "seen": before.generation}):
        raise Retry(f"{host} has changed since it was looked at")
    for name, item in changes.items():
        key = sa.and_(inventories.c.provider_id == provider, inventories.c.resource_class == name)
        if name in before.inventories:
            tx.write(sa.update(inventories).where(key).values(_columns(item)))
        else:
            tx.write(inventories.insert(), _columns(item) | {"provider_id": provider, "resource_class": name})
    return True


def list_allocations(tx: Transaction, consumers: Sequence[str]) -> dict[str, Resources]:
    """What each of these servers has taken, from all hosts together; one query."""
    names: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for row in tx.all(sa.select(allocations).where(allocations.c.consumer_id.in_(consumers))):
        names[row.consumer_id][row.resource_class] += row.used
    return {
        consumer: Resources(used["VCPU"], used["MEMORY_MB"], used["DISK_GB"]) for consumer, used in names.items()
    }


def _columns(item: Inventory) -> dict[str, object]:
    return {"total": item.total, "reserved": item.reserved, "ratio": item.ratio}


def _capacities(tx: Transaction, statement: sa.Select[Any]) -> list[Capacity]:
    found: dict[str, Capacity] = {}
    for row in tx.all(statement):
        capacity = found.get(row.id)
        if capacity is None:
            capacity = found[row.id] = Capacity(row.host, row.id, row.generation, {})
        capacity.inventories[row.resource_class] = Inventory(row.total, row.reserved, row.ratio, row.used)
    return list(found.values())


def _change_use(tx: Transaction, taken: Mapping[str, Resources]) -> None:
    changes = [
        {"provider": provider, "name": name, "amount": amount}
        for provider in sorted(taken)
        for name, amount in taken[provider].by_class().items()
        if amount
    ]
    if changes:
        tx.write(_TAKE, changes)
