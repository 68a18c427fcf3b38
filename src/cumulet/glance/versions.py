"""The versions of the image API that this service fulfils: up to 2.9.

From 2.10 on a version promises parts that are not here (import to many stores, the cache, locations), though the
tasks of an image and a project's usage are.
"""

from typing import Any

from cumulet.core.errors import NotFound
from cumulet.core.http import Request, Route
from cumulet.core.policy import PUBLIC

NEWEST = 9


def list_versions(request: Request) -> dict[str, Any]:
    href = f"{request.app.endpoint}/v2/"
    return {
        "versions": [
            {
                "id": f"v2.{minor}",
                "status": "CURRENT" if minor == NEWEST else "SUPPORTED",
                "links": [{"rel": "self", "href": href}],
            }
            for minor in range(NEWEST, -1, -1)
        ]
    }


def choose(request: Request) -> dict[str, Any]:
    """The document of the root, as it answers to whoever asks for no version or for a version's root."""
    return list_versions(request)


def choose_minor(request: Request) -> dict[str, Any]:
    name = request.params["version"]
    if name not in {"v2", *(f"v2.{minor}" for minor in range(NEWEST + 1))}:
        raise NotFound("The resource could not be found.")
    return choose(request)


ROUTES = [
    Route("GET", "/", choose, PUBLIC, 300),
    Route("GET", "/versions", list_versions, PUBLIC),
    Route("GET", "/{version}", choose_minor, PUBLIC, 300),
]
