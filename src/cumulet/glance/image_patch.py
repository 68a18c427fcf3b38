"""JSON patch, as glance has it: a list of operations on the attributes of one image.  Pure.

Two drafts of the RFC are spoken: ``v2.1`` ({"op": "add", "path": "/name", "value": …}) and the older ``v2.0``
({"add": "/name", "value": …}).  A path names one attribute or one custom property, nothing inside them.
"""

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from cumulet.core.errors import BadRequest, Conflict, Forbidden
from cumulet.glance.image_fields import (
    OWN_NAMES,
    attributes_of,
    check_properties,
    check_property,
    check_writable,
)
from cumulet.glance.model import Record

OLD, NEW = "application/openstack-images-v2.0-json-patch", "application/openstack-images-v2.1-json-patch"
OPERATIONS = ("add", "remove", "replace")


class Step(msgspec.Struct, frozen=True):
    operation: str
    name: str  # of the attribute or property
    value: Any = None
    exclusive: bool = False  # the old draft's "add": the attribute must not be there


def parse(body: Any, content_type: str) -> list[Step]:
    """The steps in a body; BadRequest and Forbidden in upstream's words."""
    if not isinstance(body, list):
        raise BadRequest("Request body must be a JSON array of operation objects.")
    return [_step(raw, content_type == OLD) for raw in body]


def apply(record: Record, steps: Iterable[Step]) -> dict[str, Any]:
    """What changes in ``record``, by the registry's names."""
    changes: dict[str, Any] = {}
    properties = dict(record.properties)
    for step in steps:
        if step.name in OWN_NAMES:
            _change_attribute(record, changes, step)
        else:
            _change_property(properties, step)
    if properties != record.properties:
        changes["properties"] = check_properties(properties)
    return changes


def _change_attribute(record: Record, changes: dict[str, Any], step: Step) -> None:
    if step.operation == "remove":
        raise Forbidden(f"Property {step.name} may not be removed.")
    if step.exclusive:
        raise Conflict(f"Property {step.name} already present.")
    if step.name in ("disk_format", "container_format") and record.status != "queued":
        raise Forbidden(f"Attribute {step.name} can be only replaced for a queued image.")
    changes |= attributes_of({step.name: step.value})


def _change_property(properties: dict[str, str], step: Step) -> None:
    if step.operation != "add" and step.name not in properties:
        raise Conflict(f"Property {step.name} does not exist.")
    if step.exclusive and step.name in properties:
        raise Conflict(f"Property {step.name} already present.")
    if step.operation == "remove":
        del properties[step.name]
    else:
        check_property(step.name, step.value)
        properties[step.name] = step.value


def _step(raw: Any, old: bool) -> Step:
    if not isinstance(raw, dict):
        raise BadRequest("Operations must be JSON objects.")
    operation, path = _old_operation(raw) if old else _operation(raw)
    name = _name(path)
    if name == "id":
        raise Forbidden("Attribute 'id' is read-only.")
    check_writable(name)
    if operation == "remove":
        return Step(operation, name)
    if "value" not in raw:
        raise BadRequest(f'Operation "{operation}" requires a member named "value".')
    return Step(operation, name, raw["value"], old and operation == "add")


def _operation(raw: dict[str, Any]) -> tuple[str, Any]:
    available = ", ".join(OPERATIONS)
    if "op" not in raw:
        raise BadRequest(
            f"Unable to find `op` in JSON Schema change. It must be one of the following: {available}."
        )
    if raw["op"] not in OPERATIONS:
        raise BadRequest(f"Invalid operation: `{raw['op']}`. It must be one of the following: {available}.")
    if "path" not in raw:
        raise BadRequest("Unable to find 'path' in JSON Schema change")
    return raw["op"], raw["path"]


def _old_operation(raw: dict[str, Any]) -> tuple[str, Any]:
    there = [operation for operation in OPERATIONS if operation in raw]
    if len(there) != 1:
        raise BadRequest('Operation objects must contain exactly one member named "add", "remove", or "replace".')
    return there[0], raw[there[0]]


def _name(pointer: Any) -> str:
    """The one name in a JSON pointer.  ``~1`` stands for a slash, ``~0`` for a tilde."""
    if not isinstance(pointer, str) or not pointer.startswith("/"):
        raise BadRequest(f'Pointer `{pointer}` does not start with "/".')
    if re.search("~(?![01])", pointer):
        raise BadRequest(f'Pointer `{pointer}` contains "~" not part of a recognized escape sequence.')
    parts = pointer[1:].split("/")
    if len(parts) != 1 and parts[0] != "locations":
        raise BadRequest(f"Invalid JSON pointer for this resource: '{pointer}'")
    name = parts[0].replace("~1", "/").replace("~0", "~").strip()
    if not name:
        raise BadRequest(f"Pointer `{pointer}` does not contains valid token.")
    return name
