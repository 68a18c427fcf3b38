"""Collections that clients read on their way and that have nothing in them here: there is no way to add to them."""

from cumulet.core.http import Json, Request, Route


def list_migrations(request: Request) -> Json:
    return {"migrations": []}


ROUTES = (Route("GET", "/v2.1/os-migrations", list_migrations, "os_compute_api:os-migrations:index"),)
