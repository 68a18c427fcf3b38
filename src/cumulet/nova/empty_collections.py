"""Collections that clients read on their way and that have nothing in them here: there is no way to add to them.

``openstack hypervisor show`` asks for aggregates; dashboards ask for migrations.
"""

from cumulet.core.http import Json, Request, Route


def list_aggregates(request: Request) -> Json:
    return {"aggregates": []}


def list_migrations(request: Request) -> Json:
    return {"migrations": []}


ROUTES = (
    Route("GET", "/v2.1/os-aggregates", list_aggregates, "os_compute_api:os-aggregates:index"),
    Route("GET", "/v2.1/os-migrations", list_migrations, "os_compute_api:os-migrations:index"),
)
