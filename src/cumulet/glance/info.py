"""/v2/info: what this image service offers.  No import methods: data comes in by PUT alone."""

from typing import Any

from cumulet.core.http import Request, Route
from cumulet.core.policy import AUTHENTICATED
from cumulet.glance import store


def show_import(request: Request) -> dict[str, Any]:
    return {"import-methods": {"description": "Import methods available.", "type": "array", "value": []}}


def list_stores(request: Request) -> dict[str, Any]:
    return {"stores": [{"id": store.NAME, "description": "Files of the image service", "default": "true"}]}


ROUTES = [
    Route("GET", "/v2/info/import", show_import, AUTHENTICATED),
    Route("GET", "/v2/info/stores", list_stores, AUTHENTICATED),
]
