"""What versions there are: for anybody, before any token."""

from cumulet.core.http import Json, Reply, Request, Route
from cumulet.core.policy import PUBLIC


def list_versions(request: Request) -> Json:
    return {"versions": {"values": [_version(request)]}}


def show_version(request: Request) -> Json:
    return {"version": _version(request)}


def show_health(request: Request) -> Reply:
    return Reply(b"OK", 200, content_type="text/plain")


def _version(request: Request) -> Json:
    return {
        "id": "v3.14",
        "status": "stable",
        "updated": "2020-04-07T00:00:00Z",
        "links": [{"rel": "self", "href": f"{request.app.endpoint}/v3/"}],
        "media-types": [
            {"base": "application/json", "type": "application/vnd.openstack.identity-v3+json"},
        ],
    }


ROUTES = [
    Route("GET", "/", list_versions, PUBLIC, 300),
    Route("GET", "/v3", show_version, PUBLIC),
    Route("GET", "/healthcheck", show_health, PUBLIC),
]
