"""``/openapi.json`` of every API, from the same routes and types that answer the requests."""

from typing import TYPE_CHECKING, Any

import msgspec

from cumulet.core import openapi_answers
from cumulet.core.policy import PUBLIC

if TYPE_CHECKING:
    from cumulet.core.http import App, Route

REFERENCE = "#/components/schemas/{name}"
BYTES = "application/octet-stream"


def document(app: "App") -> dict[str, Any]:
    """The API as OpenAPI 3.1.  Actions that share one URL are one operation whose body is any of theirs."""
    routes = [route for route in app.routes if route.policy != "host"]
    types = list(dict.fromkeys(kind for route in routes for kind in (route.body, route.response) if kind))
    schemas, components = msgspec.json.schema_components(types, ref_template=REFERENCE)
    known = dict(zip(types, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        operation = paths.setdefault(_path(route), {}).setdefault(route.method.lower(), _operation(route))
        _describe(operation, app, route, known)
    return {
        "openapi": "3.1.0",
        "info": {"title": app.name, "version": "1"},
        "servers": [{"url": app.endpoint}],
        "paths": paths,
        "components": {
            "schemas": components,
            "responses": openapi_answers.errors(app.render_error),
            "securitySchemes": {"token": {"type": "apiKey", "in": "header", "name": "X-Auth-Token"}},
        },
    }


def _path(route: "Route") -> str:
    return route.path.replace(":path}", "}") or "/"


def _operation(route: "Route") -> dict[str, Any]:
    names = [part[1:-1].split(":")[0] for part in route.path.split("/") if part.startswith("{")]
    operation: dict[str, Any] = {
        "operationId": f"{route.method.lower()} {_path(route)}",
        "summary": (route.handler.__doc__ or route.handler.__name__).strip().split("\n")[0],
        "responses": {},
    }
    if names:
        operation["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
        ]
    if route.policy != PUBLIC:
        operation["security"] = [{"token": []}]
    return operation


def _describe(operation: dict[str, Any], app: "App", route: "Route", known: dict[Any, Any]) -> None:
    """Add what this route says: its policy, its answers, its body (one of several where routes are actions)."""
    operation.setdefault("x-policies", []).append(route.policy)
    answers = openapi_answers.answers(route, known, versioned=app.versions is not None)
    for status, answer in answers.items():
        openapi_answers.merge(operation["responses"], status, answer)
    body = _body(route, known)
    if body is not None:
        content = operation.setdefault("requestBody", {"required": True, "content": {}})["content"]
        kind = BYTES if route.streams else "application/json"
        content.setdefault(kind, {"schema": {"anyOf": []}})["schema"]["anyOf"].append(body)


def _body(route: "Route", known: dict[Any, Any]) -> dict[str, Any] | None:
    """The schema of what is sent, if anything is; an action without a type of its own is its bare key."""
    if route.body:
        found: dict[str, Any] = known[route.body]
        return found
    if route.streams and route.method not in openapi_answers.READS:
        return {}
    if route.action:
        return {"type": "object", "required": [route.action], "maxProperties": 1, "properties": {route.action: {}}}
    return None
