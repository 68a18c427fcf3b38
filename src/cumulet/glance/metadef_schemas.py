"""/v2/schemas/metadefs: JSON schemas of the metadata definitions.  Clients read them before they write one."""

from typing import Any

from cumulet.core.http import Route
from cumulet.core.policy import AUTHENTICATED
from cumulet.glance.schemas import show

_NAME = {"type": "string", "maxLength": 80}
_TEXT = {"type": "string"}
_TIME = {"type": "string", "format": "date-time", "readOnly": True}
_TIMES = {"created_at": _TIME, "updated_at": _TIME}
_LINKS = {"self": {"type": "string", "readOnly": True}, "schema": {"type": "string", "readOnly": True}}
_COUNT = {"type": "integer", "minimum": 0}
_WORDS = {"type": "array", "items": _TEXT, "uniqueItems": True}
_PROPERTY_FIELDS: dict[str, Any] = {
    "title": _TEXT,
    "description": _TEXT,
    "operators": {"type": "array", "items": _TEXT},
    "type": {"type": "string", "enum": ["array", "boolean", "integer", "number", "object", "string", None]},
    "readonly": {"type": "boolean"},
    "required": _WORDS,
    "minimum": {"type": "number"},
    "maximum": {"type": "number"},
    "maxLength": _COUNT,
    "minLength": _COUNT,
    "pattern": {"type": "string", "format": "regex"},
    "enum": {"type": "array"},
    "default": {},
    "items": {"type": "object", "properties": {"type": _TEXT, "enum": {"type": "array"}}},
    "maxItems": _COUNT,
    "minItems": _COUNT,
    "uniqueItems": {"type": "boolean"},
    "additionalItems": {"type": "boolean"},
}
_PROPERTIES = {"type": "object", "additionalProperties": {"type": "object", "properties": _PROPERTY_FIELDS}}
RESOURCE_TYPE: dict[str, Any] = {
    "name": "resource_type_association",
    "properties": {
        "name": {**_NAME, "description": "The type of things, e.g. OS::Glance::Image"},
        "prefix": {**_NAME, "description": "What stands before each property's name"},
        "properties_target": {**_NAME, "description": "Which of several sets of properties is meant"},
        **_TIMES,
    },
    "required": ["name"],
}
OBJECT: dict[str, Any] = {
    "name": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 255},
        "description": _TEXT,
        "required": _WORDS,
        "properties": _PROPERTIES,
        **_TIMES,
        **_LINKS,
    },
    "required": ["name"],
}
PROPERTY: dict[str, Any] = {
    "name": "property",
    "properties": {"name": {"type": "string", "maxLength": 255}, **_PROPERTY_FIELDS},
    "required": ["type", "title", "name"],
}
TAG: dict[str, Any] = {
    "name": "tag",
    "properties": {"name": {"type": "string", "maxLength": 255}, **_TIMES},
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
        "objects": {"type": "array", "items": OBJECT},
        "properties": _PROPERTIES,
        "tags": {"type": "array", "items": TAG},
        **_TIMES,
        **_LINKS,
    },
    "required": ["namespace"],
}


def _list_of(name: str, item: dict[str, Any], key: str = "") -> dict[str, Any]:
    properties = {key or name: {"type": "array", "items": item}, "first": _TEXT, "next": _TEXT, "schema": _TEXT}
    links = [{"rel": rel, "href": f"{{{rel}}}"} for rel in ("first", "next")]
    return {"name": name, "properties": properties, "links": [*links, {"rel": "describedby", "href": "{schema}"}]}


_SCHEMAS = {
    "namespace": NAMESPACE,
    "namespaces": _list_of("namespaces", NAMESPACE),
    "resource_type": RESOURCE_TYPE,
    "resource_types": _list_of("resource_type_associations", RESOURCE_TYPE),
    "object": OBJECT,
    "objects": _list_of("objects", OBJECT),
    "property": PROPERTY,
    "properties": {
        **_list_of("properties", PROPERTY),
        "properties": {"properties": {"type": "object", "additionalProperties": PROPERTY}, "schema": _TEXT},
    },
    "tag": TAG,
    "tags": _list_of("tags", TAG),
}
ROUTES = [
    Route("GET", f"/v2/schemas/metadefs/{name}", show(document), AUTHENTICATED)
    for name, document in _SCHEMAS.items()
]
