"""/v2/info: what this image service offers, and what the caller's project has in it."""

from typing import Any

from cumulet.core.http import Request, Route
from cumulet.core.policy import AUTHENTICATED
from cumulet.glance import store
from cumulet.glance.wiring import import_methods, registry_of

MIB = 1 << 20


def show_import(request: Request) -> dict[str, Any]:
    methods = import_methods(request.config)
    return {"import-methods": {"description": "Import methods available.", "type": "array", "value": methods}}


def list_stores(request: Request) -> dict[str, Any]:
    return {"stores": [{"id": store.NAME, "description": "Files of the image service", "default": "true"}]}


def show_usage(request: Request) -> dict[str, Any]:
    """Sizes in MiB.  There are no limits, which upstream says with -1."""
    usage = registry_of(request).usage(request.context)
    counted = {
        "image_size_total": -(-usage.stored_bytes // MIB),
        "image_stage_total": -(-usage.staged_bytes // MIB),
        "image_count_total": usage.images,
        "image_count_uploading": usage.uploading,
    }
    return {"usage": {name: {"limit": -1, "usage": value} for name, value in counted.items()}}


ROUTES = [
    Route("GET", "/v2/info/import", show_import, AUTHENTICATED),
    Route("GET", "/v2/info/stores", list_stores, AUTHENTICATED),
    Route("GET", "/v2/info/usage", show_usage, AUTHENTICATED),
]
