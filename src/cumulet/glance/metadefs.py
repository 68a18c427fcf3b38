"""/v2/metadefs: the catalogue of what properties mean, of which this image service keeps none.

Clients ask for the lists when they show an image; both are empty, and nothing can be put into them.
"""

from typing import Any

from cumulet.core.http import Request, Route
from cumulet.core.policy import AUTHENTICATED
from cumulet.glance.schemas import show

_NAME = {"type": "string", "maxLength": 80}
_TIME = {"type": "string", "format": "date-time", "readOnly": True}
_LINKS = [{"rel": "describedby", "href": "{schema}"}]
RESOURCE_TYPE: dict[str, Any] = {
    "name": "resource_type_association",
    "properties": {
        "name": {**_NAME, "description": "The type of things, e.g. OS::Glance::Image"},
        "prefix": {**_NAME, "description": "What stands before each property's name"},
        "properties_target": {**_NAME, "description": "Which of several sets of properties is meant"},
        "created_at": _TIME,
        "updated_at": _TIME,
    },
    "required": ["name"],
}
NAMESPACE: dict[str, Any] = {
    "name": "namespace",
    "properties": {
        "namespace": {**_NAME, "description": "The unique name of the namespace"},
        "display_name": {**_NAME, "description": "The name to show"},
        "description": {"type": "string", "maxLength": 500},
        "visibility": {"type": "string", "enum": ["public", "private"]},
        "protected": {"type": "boolean"},
        "owner": {"type": "string", "maxLength": 255},
        "resource_type_associations": {"type": "array", "items": RESOURCE_TYPE},
        "created_at": _TIME,
        "updated_at": _TIME,
        "self": {"type": "string", "readOnly": True},
        "schema": {"type": "string", "readOnly": True},
    },
    "required": ["namespace"],
}


def list_namespaces(request: Request) -> dict[str, Any]:
    return {"namespaces": [], "first": "/v2/metadefs/namespaces", "schema": "/v2/schemas/metadefs/namespaces"}


def list_resource_types(request: Request) -> dict[str, Any]:
    return {"resource_types": []}


def _list_of(name: str, item: dict[str, Any]) -> dict[str, Any]:
    text = {"type": "string"}
    properties = {name: {"type": "array", "items": item}, "first": text, "next": text, "schema": text}
    return {"name": name, "properties": properties, "links": _LINKS}


_SCHEMAS = {
    "namespace": NAMESPACE,
    "namespaces": _list_of("namespaces", NAMESPACE),
    "resource_type": RESOURCE_TYPE,
    "resource_types": _list_of("resource_type_associations", RESOURCE_TYPE),
}
ROUTES = [
    Route("GET", "/v2/metadefs/namespaces", list_namespaces, "get_metadef_namespaces"),
    Route("GET", "/v2/metadefs/resource_types", list_resource_types, "list_metadef_resource_types"),
    *(
        Route("GET", f"/v2/schemas/metadefs/{name}", show(document), AUTHENTICATED)
        for name, document in _SCHEMAS.items()
    ),
]
