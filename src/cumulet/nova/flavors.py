"""``/flavors``: the sizes that servers come in.

A server keeps a copy of its flavor, so a flavor can be deleted while servers have it.  A private flavor does
not exist for projects without access (``flavor_access``).
"""

import re
import uuid
from typing import Annotated, Any

import sqlalchemy as sa
from msgspec import UNSET, Meta, UnsetType, field
from sqlalchemy.engine import Row

from cumulet.core import clock
from cumulet.core.db import Transaction
from cumulet.core.errors import BadRequest, Conflict, NotFound, Retry
from cumulet.core.http import Json, Reply, Request, Route
from cumulet.core.listing import Listing, list_page
from cumulet.core.policy import AUTHENTICATED
from cumulet.core.schema import Strict, given
from cumulet.nova import versions
from cumulet.nova.checks import check_description, check_name
from cumulet.nova.paging import PAGE, boolean, next_links
from cumulet.nova.tables import flavor_access, flavors

_ID = re.compile(r"(?! )[a-zA-Z0-9. _-]{1,255}(?<! )")
LARGEST = 0x7FFFFFFF
Positive = Annotated[int, Meta(ge=1, le=LARGEST)]
Natural = Annotated[int, Meta(ge=0, le=LARGEST)]


class NewFlavor(Strict):
    name: str
    ram: Positive
    vcpus: Positive
    disk: Natural
    id: str | int | None = None
    ephemeral: Natural = field(name="OS-FLV-EXT-DATA:ephemeral", default=0)
    swap: Natural = 0
    rxtx_factor: Annotated[float, Meta(gt=0, le=3.40282e38)] = 1.0
    is_public: bool | str = field(name="os-flavor-access:is_public", default=True)
    description: str | UnsetType | None = UNSET


class CreateFlavor(Strict):
    flavor: NewFlavor


class FlavorChange(Strict):
    description: str | None


class UpdateFlavor(Strict):
    flavor: FlavorChange


def get_flavor(tx: Transaction, request: Request, flavor_id: str) -> Row[Any]:
    """The flavor, if the caller may use it; NotFound otherwise."""
    row = tx.find(sa.select(flavors).where(flavors.c.id == flavor_id, _visible(request)))
    if row is None:
        raise NotFound(f"Flavor {flavor_id} could not be found.", kind="FlavorNotFound")
    return row


def _visible(request: Request) -> sa.ColumnElement[bool]:
    if request.context.admin:
        return sa.true()
    mine = sa.exists().where(
        flavor_access.c.flavor_id == flavors.c.id, flavor_access.c.project_id == request.context.project_id
    )
    return sa.or_(flavors.c.is_public, mine)


def change_flavor(tx: Transaction, row: Row[Any], **values: Any) -> None:
    """Write ``values``, unless the flavor has changed since ``row`` was read (then Retry)."""
    same = sa.and_(flavors.c.id == row.id, flavors.c.generation == row.generation)
    if not tx.write(sa.update(flavors).where(same).values(generation=row.generation + 1, **values)):
        raise Retry(f"flavor {row.id} has changed meanwhile")


def list_flavors(request: Request) -> Json:
    return _list(request, _brief)


def list_flavors_detail(request: Request) -> Json:
    return _list(request, _detail)


def _list(request: Request, view: Any) -> Json:
    versions.check_query("flavors", request)
    with request.db.read() as tx:
        page = list_page(tx, sa.select(flavors).where(_wanted(request)), request, _LISTING)
    return {"flavors": [view(request, row) for row in page.rows], **next_links(request, "flavors", page)}


def _wanted(request: Request) -> sa.ColumnElement[bool]:
    """Only administrators choose between public and private ones; others see what they may use."""
    if not request.context.admin:
        return _visible(request)
    asked = request.one("is_public")
    if asked is not None and asked.lower() == "none":
        return sa.true()
    try:
        public = True if asked is None else boolean(asked, "is_public")
    except BadRequest as error:
        raise BadRequest(f"Invalid is_public filter [{asked}]") from error
    return flavors.c.is_public == public


def show_flavor(request: Request) -> Json:
    with request.db.read() as tx:
        row = get_flavor(tx, request, request.params["id"])
    return {"flavor": _detail(request, row)}


def create_flavor(request: Request) -> Json:
    wish: NewFlavor = request.body.flavor
    versions.check_fields("flavor", given(wish), request.version)
    values = {
        "id": _flavor_id(wish.id),
        "name": check_name(wish.name),
        "description": check_description(wish.description or None, longest=65535),
        "vcpus": wish.vcpus,
        "memory_mb": wish.ram,
        "root_gb": wish.disk,
        "ephemeral_gb": wish.ephemeral,
        "swap_mb": wish.swap,
        "rxtx_factor": wish.rxtx_factor,
        "is_public": boolean(wish.is_public, "os-flavor-access:is_public"),
        "created_at": clock.now(),
    }
    with request.db.transaction() as tx:
        if tx.find(sa.select(flavors.c.id).where(flavors.c.name == values["name"])):
            raise Conflict(f"Flavor with name {values['name']} already exists.")
        if tx.find(sa.select(flavors.c.id).where(flavors.c.id == values["id"])):
            raise Conflict(f"Flavor with ID {values['id']} already exists.")
        tx.write(flavors.insert(), values)
        row = get_flavor(tx, request, str(values["id"]))
    return {"flavor": _detail(request, row)}


def _flavor_id(asked: str | int | None) -> str:
    """``auto`` is the openstack command's word for none."""
    if asked is None or asked == "auto":
        return str(uuid.uuid4())
    text = str(asked)
    if not _ID.fullmatch(text):
        raise BadRequest(
            f"Invalid input for field/attribute id. Value: {text[:300]!r}. "
            "It has 1 to 255 letters, digits, spaces, or any of . _ -, and no space at either end"
        )
    return text


def update_flavor(request: Request) -> Json:
    description = check_description(request.body.flavor.description, longest=65535)
    with request.db.transaction() as tx:
        change_flavor(tx, get_flavor(tx, request, request.params["id"]), description=description)
        row = get_flavor(tx, request, request.params["id"])
    return {"flavor": _detail(request, row)}


def delete_flavor(request: Request) -> Reply:
    with request.db.transaction() as tx:
        row = get_flavor(tx, request, request.params["id"])
        tx.write(sa.delete(flavor_access).where(flavor_access.c.flavor_id == row.id))
        tx.write(sa.delete(flavors).where(flavors.c.id == row.id))
    return Reply()


def _brief(request: Request, row: Row[Any]) -> Json:
    document = {
        "id": row.id,
        "name": row.name,
        "description": row.description,
        "links": flavor_links(request.app.endpoint, row.id),
    }
    return versions.render("flavor_brief", document, request.version)


def _detail(request: Request, row: Row[Any]) -> Json:
    document = {
        "id": row.id,
        "name": row.name,
        "ram": row.memory_mb,
        "disk": row.root_gb,
        "swap": row.swap_mb,
        "OS-FLV-EXT-DATA:ephemeral": row.ephemeral_gb,
        "OS-FLV-DISABLED:disabled": False,
        "vcpus": row.vcpus,
        "os-flavor-access:is_public": row.is_public,
        "rxtx_factor": row.rxtx_factor,
        "links": flavor_links(request.app.endpoint, row.id),
        "description": row.description,
    }
    if request.allows("os_compute_api:os-flavor-extra-specs:index"):
        document["extra_specs"] = row.extra_specs
    return versions.render("flavor", document, request.version)


def flavor_links(endpoint: str, flavor_id: str) -> list[Json]:
    return [
        {"rel": "self", "href": f"{endpoint}/v2.1/flavors/{flavor_id}"},
        {"rel": "bookmark", "href": f"{endpoint}/flavors/{flavor_id}"},
    ]


def _at_least(column: sa.Column[int], name: str) -> Any:
    def condition(values: list[str]) -> sa.ColumnElement[bool]:
        if not re.fullmatch(r"-?[0-9]{1,10}", values[-1]):
            raise BadRequest(f"Invalid {name} filter [{values[-1][:300]}]")
        return column >= int(values[-1])

    return condition


_LISTING = Listing(
    zero_is_empty=True,
    id=flavors.c.id,
    columns={
        "flavorid": flavors.c.id,
        "name": flavors.c.name,
        "vcpus": flavors.c.vcpus,
        "memory_mb": flavors.c.memory_mb,
        "root_gb": flavors.c.root_gb,
        "ephemeral_gb": flavors.c.ephemeral_gb,
        "swap": flavors.c.swap_mb,
        "rxtx_factor": flavors.c.rxtx_factor,
        "created_at": flavors.c.created_at,
        "description": flavors.c.description,
    },
    conditions={
        "minRam": _at_least(flavors.c.memory_mb, "minRam"),
        "minDisk": _at_least(flavors.c.root_gb, "minDisk"),
        "is_public": lambda values: sa.true(),  # see _wanted
    },
    default_sort=(("flavorid", "asc"),),
    default_page=PAGE,
)

MANAGE = "os_compute_api:os-flavor-manage:"
ROUTES = (
    Route("GET", "/v2.1/flavors", list_flavors, AUTHENTICATED),
    Route("GET", "/v2.1/flavors/detail", list_flavors_detail, AUTHENTICATED),
    Route("GET", "/v2.1/flavors/{id}", show_flavor, AUTHENTICATED),
    Route("POST", "/v2.1/flavors", create_flavor, MANAGE + "create", body=CreateFlavor),
    Route("PUT", "/v2.1/flavors/{id}", update_flavor, MANAGE + "update", body=UpdateFlavor, since=(2, 55)),
    Route("DELETE", "/v2.1/flavors/{id}", delete_flavor, MANAGE + "delete", 202),
)
