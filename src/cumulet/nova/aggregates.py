"""``/os-aggregates``: sets of compute hosts, with words that an administrator puts on them.

The word ``availability_zone`` makes the zone of the set's hosts (``nova.zones``).  A host is in one zone at most,
and does not change it while it has servers, for they were placed by it.
"""

import re
import uuid
from collections import defaultdict
from collections.abc import Iterable
from typing import Annotated, Any

import sqlalchemy as sa
from msgspec import UNSET, Meta, UnsetType
from sqlalchemy.engine import Row

from cumulet.core import clock
from cumulet.core.db import Transaction
from cumulet.core.errors import BadRequest, Conflict, NotFound, Retry
from cumulet.core.http import Json, Reply, Request, Route
from cumulet.core.schema import Strict, given
from cumulet.nova import notices, quotas, versions, zones
from cumulet.nova.checks import check_name
from cumulet.nova.services import list_hosts
from cumulet.nova.tables import aggregate_hosts, aggregates, server_hosts

GUARD = "aggregates"
"""Of all changes here: what two aggregates say of one host's zone must agree."""
ZONE = "availability_zone"
_ID = re.compile(r"[0-9]{1,9}", re.ASCII)
Word = Annotated[str, Meta(max_length=255)]


class NewAggregate(Strict):
    name: str
    availability_zone: str | None = None


class CreateAggregate(Strict):
    aggregate: NewAggregate


class AggregateChange(Strict):
    name: str | UnsetType = UNSET
    availability_zone: str | UnsetType | None = UNSET


class UpdateAggregate(Strict):
    aggregate: AggregateChange


class HostName(Strict):
    host: Annotated[str, Meta(min_length=1, max_length=255)]


class AddHost(Strict):
    add_host: HostName


class RemoveHost(Strict):
    remove_host: HostName


class Words(Strict):
    metadata: dict[Annotated[str, Meta(min_length=1, max_length=255)], Word | None]


class SetMetadata(Strict):
    set_metadata: Words


def list_aggregates(request: Request) -> Json:
    with request.db.read() as tx:
        rows = tx.all(sa.select(aggregates).order_by(aggregates.c.id))
        hosts = _hosts(tx, [row.id for row in rows])
    return {"aggregates": [_view(request, row, hosts[row.id]) for row in rows]}


def show_aggregate(request: Request) -> Json:
    with request.db.read() as tx:
        return _shown(tx, request)


def create_aggregate(request: Request) -> Json:
    """Its answer has neither hosts nor metadata, as upstream."""
    wish: NewAggregate = request.body.aggregate
    zone = _zone(wish.availability_zone)
    values = {"uuid": str(uuid.uuid4()), "name": check_name(wish.name), "zone": zone, "created_at": clock.now()}
    with request.db.transaction() as tx:
        _insert(tx, values)
        row = tx.find(sa.select(aggregates).where(aggregates.c.name == values["name"]))
        assert row is not None
        _tell(tx, request, "create", row)
    document = _view(request, row, [])
    return {"aggregate": {name: document[name] for name in document if name not in ("hosts", "metadata")}}


def _insert(tx: Transaction, values: dict[str, Any]) -> None:
    try:
        tx.write(aggregates.insert(), values)
    except Conflict as error:
        raise Conflict(f"Aggregate {values['name']} already exists.", kind="AggregateNameExists") from error


def update_aggregate(request: Request) -> Json:
    wish = given(request.body.aggregate)
    if not wish:
        raise BadRequest("Invalid input for field/attribute aggregate. It names nothing that would change")
    values: dict[str, Any] = {}
    if "name" in wish:
        values["name"] = check_name(wish["name"])
    if ZONE in wish:
        values["zone"] = _zone(wish[ZONE])
    with request.db.transaction() as tx:
        row = _locked(tx, request)
        if "zone" in values:
            _check_zone(tx, row, _hosts(tx, [row.id])[row.id], values["zone"])
        _change(tx, row, values)
        _tell(tx, request, "updateprop", row, meta_data=dict(wish))
        return _shown(tx, request)


def delete_aggregate(request: Request) -> Reply:
    with request.db.transaction() as tx:
        row = _locked(tx, request)
        if _hosts(tx, [row.id])[row.id]:
            raise BadRequest(f"Cannot delete host aggregate {row.id}. Reason: Host aggregate is not empty.")
        tx.write(sa.delete(aggregates).where(aggregates.c.id == row.id))
        _tell(tx, request, "delete", row)
    return Reply()


def add_host(request: Request) -> Json:
    host = request.body.add_host.host
    with request.db.transaction() as tx:
        row = _locked(tx, request)
        if host not in list_hosts(tx):
            raise NotFound(f"Compute host {host} could not be found.", kind="ComputeHostNotFound")
        if host in _hosts(tx, [row.id])[row.id]:
            raise Conflict(f"Aggregate {row.id} already has host {host}.", kind="AggregateHostExists")
        _check_zone(tx, row, [host], row.zone)
        tx.write(aggregate_hosts.insert(), {"aggregate_id": row.id, "host": host})
        _change(tx, row, {})
        _tell(tx, request, "addhost", row, host_name=host)
        return _shown(tx, request)


def remove_host(request: Request) -> Json:
    host = request.body.remove_host.host
    with request.db.transaction() as tx:
        row = _locked(tx, request)
        if host not in _hosts(tx, [row.id])[row.id]:
            raise NotFound(f"Aggregate {row.id} has no host {host}.", kind="AggregateHostNotFound")
        _check_zone(tx, row, [host], None)
        tx.write(
            sa.delete(aggregate_hosts).where(
                aggregate_hosts.c.aggregate_id == row.id, aggregate_hosts.c.host == host
            )
        )
        _change(tx, row, {})
        _tell(tx, request, "removehost", row, host_name=host)
        return _shown(tx, request)


def set_metadata(request: Request) -> Json:
    """Words are added and replaced; one that is null goes."""
    wish: dict[str, str | None] = dict(request.body.set_metadata.metadata)
    with request.db.transaction() as tx:
        row = _locked(tx, request)
        values: dict[str, Any] = {}
        if ZONE in wish:
            values["zone"] = _zone(wish.pop(ZONE))
            _check_zone(tx, row, _hosts(tx, [row.id])[row.id], values["zone"])
        merged = {**row.metadata, **wish}
        values["metadata"] = {name: word for name, word in merged.items() if word is not None}
        _change(tx, row, values)
        _tell(tx, request, "updatemetadata", row, meta_data=dict(wish))
        return _shown(tx, request)


def _tell(tx: Transaction, request: Request, verb: str, row: Row[Any], **more: Any) -> None:
    notices.tell_done(tx, request, "aggregate", verb, {"aggregate_id": row.id, "name": row.name, **more})


def _zone(name: str | None) -> str | None:
    if name is None:
        return None
    if ":" in name or name == zones.INTERNAL:
        raise BadRequest(f"Invalid input for field/attribute availability_zone. Value: {name[:300]}")
    return check_name(name, ZONE)


def _locked(tx: Transaction, request: Request) -> Row[Any]:
    quotas.lock(tx, GUARD)
    return _get(tx, request)


def _get(tx: Transaction, request: Request) -> Row[Any]:
    number = request.params["id"]
    found = sa.select(aggregates).where(aggregates.c.id == int(number)) if _ID.fullmatch(number) else None
    row = None if found is None else tx.find(found)
    if row is None:
        raise NotFound(f"Aggregate {number} could not be found.", kind="AggregateNotFound")
    return row


def _check_zone(tx: Transaction, row: Row[Any], hosts: Iterable[str], zone: str | None) -> None:
    """Raise Conflict if ``hosts`` cannot be in ``zone`` by this aggregate: another one's or their servers'."""
    elsewhere = zones.read_zones(tx, aggregates.c.id != row.id)
    now = zones.read_zones(tx)
    occupied = {one.host for one in tx.all(sa.select(server_hosts.c.host).distinct())}
    for host in hosts:
        if zone and elsewhere.get(host, zone) != zone:
            raise Conflict(
                f"Cannot perform action on aggregate {row.id}. Reason: Host {host} already in availability zone "
                f"{elsewhere[host]}.",
                kind="InvalidAggregateAction",
            )
        after = elsewhere.get(host) or zone or zones.DEFAULT
        if host in occupied and after != now.get(host, zones.DEFAULT):
            raise Conflict(
                f"Cannot perform action on aggregate {row.id}. Reason: One or more hosts contain instances in "
                "this zone.",
                kind="InvalidAggregateAction",
            )


def _change(tx: Transaction, row: Row[Any], values: dict[str, Any]) -> None:
    same = sa.and_(aggregates.c.id == row.id, aggregates.c.generation == row.generation)
    change = {**values, "generation": row.generation + 1, "updated_at": clock.now()}
    try:
        changed = tx.write(sa.update(aggregates).where(same).values(change))
    except Conflict as error:
        raise Conflict(f"Aggregate {values['name']} already exists.", kind="AggregateNameExists") from error
    if not changed:
        raise Retry(f"aggregate {row.id} has changed meanwhile")
    tx.hint("nova.servers", "*")


def _hosts(tx: Transaction, ids: Iterable[int]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = defaultdict(list)
    statement = sa.select(aggregate_hosts).where(aggregate_hosts.c.aggregate_id.in_(list(ids)))
    for row in tx.all(statement.order_by(aggregate_hosts.c.host)):
        found[row.aggregate_id].append(row.host)
    return found


def _shown(tx: Transaction, request: Request) -> Json:
    row = _get(tx, request)
    return {"aggregate": _view(request, row, _hosts(tx, [row.id])[row.id])}


def _view(request: Request, row: Row[Any], hosts: list[str]) -> Json:
    document = {
        "id": row.id,
        "uuid": row.uuid,
        "name": row.name,
        "availability_zone": row.zone,
        "hosts": hosts,
        "metadata": {**row.metadata, **({ZONE: row.zone} if row.zone else {})},
        "created_at": row.created_at[:26],
        "updated_at": row.updated_at[:26] if row.updated_at else None,
        "deleted": False,
        "deleted_at": None,
    }
    return versions.render("aggregate", document, request.version)


POLICY = "os_compute_api:os-aggregates:"
URL = "/v2.1/os-aggregates"
ACT = URL + "/{id}/action"
ROUTES = (
    Route("GET", URL, list_aggregates, POLICY + "index"),
    Route("POST", URL, create_aggregate, POLICY + "create", body=CreateAggregate),
    Route("GET", URL + "/{id}", show_aggregate, POLICY + "show"),
    Route("PUT", URL + "/{id}", update_aggregate, POLICY + "update", body=UpdateAggregate),
    Route("DELETE", URL + "/{id}", delete_aggregate, POLICY + "delete"),
    Route("POST", ACT, add_host, POLICY + "add_host", body=AddHost, action="add_host"),
    Route("POST", ACT, remove_host, POLICY + "remove_host", body=RemoveHost, action="remove_host"),
    Route("POST", ACT, set_metadata, POLICY + "set_metadata", body=SetMetadata, action="set_metadata"),
)
