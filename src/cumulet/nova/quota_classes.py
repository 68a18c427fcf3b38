"""``/os-quota-class-sets``: limits by class; ``default`` is for projects without limits of their own."""

from typing import Any

import sqlalchemy as sa

from cumulet.core.http import Json, Request, Route
from cumulet.core.schema import Strict
from cumulet.nova import quotas, versions
from cumulet.nova.checks import check_name
from cumulet.nova.tables import quota_class_limits


class QuotaClassBody(Strict):
    quota_class_set: quotas.Limits


def show_quota_class(request: Request) -> Json:
    name = check_name(request.params["id"], "id")
    with request.db.read() as tx:
        return _document(request, {"id": name, **quotas.read_class(tx, name)})


def update_quota_class(request: Request) -> Json:
    name = check_name(request.params["id"], "id")
    with request.db.transaction() as tx:
        for resource, limit in quotas.given_limits(request.body.quota_class_set).items():
            row = {"class_name": name, "resource": resource}
            same = (quota_class_limits.c[key] == value for key, value in row.items())
            tx.write(sa.delete(quota_class_limits).where(*same))
            tx.write(quota_class_limits.insert(), {**row, "hard_limit": limit})
        return _document(request, quotas.read_class(tx, name))


def _document(request: Request, limits: dict[str, Any]) -> Json:
    return {"quota_class_set": versions.render("quota_class_set", limits, request.version)}


POLICY = "os_compute_api:os-quota-class-sets:"
URL = "/v2.1/os-quota-class-sets/{id}"
ROUTES = (
    Route("GET", URL, show_quota_class, POLICY + "show"),
    Route("PUT", URL, update_quota_class, POLICY + "update", body=QuotaClassBody),
)
