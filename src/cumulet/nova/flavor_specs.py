"""``/flavors/{id}/os-extra_specs``, ``/os-flavor-access``: what more a flavor asks for, and who may use it."""

import re
from typing import Any

import sqlalchemy as sa
from msgspec import field

from cumulet.core.db import Transaction
from cumulet.core.errors import BadRequest, Conflict, NotFound
from cumulet.core.http import Json, Reply, Request, Route
from cumulet.core.schema import Strict
from cumulet.nova.extra_spec_rules import check_spec
from cumulet.nova.flavors import change_flavor, get_flavor
from cumulet.nova.tables import flavor_access

_KEY = re.compile(r"[a-zA-Z0-9\-_:. ]{1,255}")
Value = str | int | float


class ExtraSpecs(Strict):
    extra_specs: dict[str, Value]


class Tenant(Strict):
    tenant: str


class AddAccess(Strict):
    add: Tenant = field(name="addTenantAccess")


class RemoveAccess(Strict):
    remove: Tenant = field(name="removeTenantAccess")


def _checked(specs: dict[str, Value], request: Request) -> dict[str, str]:
    for key, value in specs.items():
        if not _KEY.fullmatch(key):
            raise BadRequest(f"Invalid input for field/attribute extra_specs. Value: {key[:300]!r} is not a key")
        if len(str(value)) > 255:
            raise BadRequest(f"Invalid input for field/attribute {key}. Its value is longer than 255 characters")
        if request.version >= (2, 86):
            check_spec(key, str(value))
    return {key: str(value) for key, value in specs.items()}


def list_specs(request: Request) -> Json:
    with request.db.read() as tx:
        return {"extra_specs": get_flavor(tx, request, request.params["id"]).extra_specs}


def show_spec(request: Request) -> Json:
    key = request.params["key"]
    with request.db.read() as tx:
        specs = get_flavor(tx, request, request.params["id"]).extra_specs
    if key not in specs:
        raise _no_spec(request)
    return {key: specs[key]}


def _no_spec(request: Request) -> NotFound:
    return NotFound(f"Flavor {request.params['id']} has no extra specs with key {request.params['key']}.")


def add_specs(request: Request) -> Json:
    specs = _checked(request.body.extra_specs, request)
    _change_specs(request, specs)
    return {"extra_specs": specs}


def set_spec(request: Request) -> Json:
    specs = _checked(request.body, request)
    if set(specs) != {request.params["key"]}:
        raise BadRequest("Request body and URI mismatch")
    _change_specs(request, specs)
    return dict(specs)


def _change_specs(request: Request, specs: dict[str, str]) -> None:
    with request.db.transaction() as tx:
        flavor = get_flavor(tx, request, request.params["id"])
        change_flavor(tx, flavor, extra_specs={**flavor.extra_specs, **specs})


def delete_spec(request: Request) -> Reply:
    with request.db.transaction() as tx:
        flavor = get_flavor(tx, request, request.params["id"])
        if request.params["key"] not in flavor.extra_specs:
            raise _no_spec(request)
        left = {key: value for key, value in flavor.extra_specs.items() if key != request.params["key"]}
        change_flavor(tx, flavor, extra_specs=left)
    return Reply()


def list_access(request: Request) -> Json:
    with request.db.read() as tx:
        flavor = get_flavor(tx, request, request.params["id"])
        if flavor.is_public:
            raise NotFound("Access list not available for public flavors.")
        return _access(tx, flavor.id)


def _access(tx: Transaction, flavor_id: str) -> Json:
    rows = tx.all(
        sa.select(flavor_access).where(flavor_access.c.flavor_id == flavor_id).order_by(flavor_access.c.project_id)
    )
    return {"flavor_access": [{"flavor_id": row.flavor_id, "tenant_id": row.project_id} for row in rows]}


def add_access(request: Request) -> Json:
    project_id = _project(request.body.add)
    with request.db.transaction() as tx:
        flavor = get_flavor(tx, request, request.params["id"])
        if flavor.is_public:
            raise Conflict("Can not add access to a public flavor.")
        try:
            tx.write(flavor_access.insert(), {"flavor_id": flavor.id, "project_id": project_id})
        except Conflict as error:
            text = f"Flavor access already exists for flavor {flavor.id} and project {project_id} combination."
            raise Conflict(text) from error
        return _access(tx, flavor.id)


def remove_access(request: Request) -> Json:
    project_id = _project(request.body.remove)
    with request.db.transaction() as tx:
        flavor = get_flavor(tx, request, request.params["id"])
        row: Any = sa.and_(flavor_access.c.flavor_id == flavor.id, flavor_access.c.project_id == project_id)
        if not tx.write(sa.delete(flavor_access).where(row)):
            raise NotFound(f"Flavor access not found for {flavor.id} / {project_id} combination.")
        return _access(tx, flavor.id)


def _project(tenant: Tenant) -> str:
    if not re.fullmatch(r"[a-zA-Z0-9-]{1,64}", tenant.tenant):
        raise BadRequest(f"Project ID {tenant.tenant[:300]} is not a valid project.")
    return tenant.tenant


SPECS, ACCESS = "os_compute_api:os-flavor-extra-specs:", "os_compute_api:os-flavor-access"
ROUTES = (
    Route("GET", "/v2.1/flavors/{id}/os-extra_specs", list_specs, SPECS + "index"),
    Route("POST", "/v2.1/flavors/{id}/os-extra_specs", add_specs, SPECS + "create", body=ExtraSpecs),
    Route("GET", "/v2.1/flavors/{id}/os-extra_specs/{key}", show_spec, SPECS + "show"),
    Route("PUT", "/v2.1/flavors/{id}/os-extra_specs/{key}", set_spec, SPECS + "update", body=dict[str, Value]),
    Route("DELETE", "/v2.1/flavors/{id}/os-extra_specs/{key}", delete_spec, SPECS + "delete"),
    Route("GET", "/v2.1/flavors/{id}/os-flavor-access", list_access, ACCESS),
    Route(
        "POST", "/v2.1/flavors/{id}/action", add_access, ACCESS + ":add_tenant_access",
        body=AddAccess, action="addTenantAccess",
    ),
    Route(
        "POST", "/v2.1/flavors/{id}/action", remove_access, ACCESS + ":remove_tenant_access",
        body=RemoveAccess, action="removeTenantAccess",
    ),
)  # fmt: skip
