"""What a route's answers look like, for ``/openapi.json``: what its handler is annotated to return, and errors.

Errors are what the API's own ``render_error`` makes of a sample, so that the document cannot say another form
than the answers have.  A status that is missing here is an answer nobody announced: the generated tests say so.
"""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, get_origin

from cumulet.core.errors import ApiError
from cumulet.core.policy import PUBLIC

if TYPE_CHECKING:
    from cumulet.core.http import Route

Json = dict[str, Any]
READS = ("GET", "HEAD")
TYPES = {dict: "object", list: "array", str: "string", int: "integer"}


def errors(render: Callable[[ApiError], tuple[bytes, str]]) -> dict[str, Json]:
    """The API's errors by status, as ``components.responses``."""
    kinds = _family(ApiError)[1:]
    return {str(kind.status): _error(kind, render) for kind in kinds if "status" in vars(kind)}


def answers(route: "Route", known: dict[Any, Json], *, versioned: bool) -> dict[str, Json]:
    """By status: what a success holds, and references to the errors that the route may answer."""
    found: dict[str, Json] = {}
    for status in sorted({route.status, *route.also, *_usual_errors(route, versioned)}):
        error = {"$ref": f"#/components/responses/{status}"}
        found[str(status)] = error if status >= 400 else _success(route, status, known)
    return found


def merge(responses: dict[str, Json], status: str, answer: Json) -> None:
    """Add an answer; of actions that share a status but not a form, any form is right."""
    before = responses.setdefault(status, answer)
    if before != answer and "content" in before and "content" in answer:
        for kind, content in answer["content"].items():
            other = before["content"].setdefault(kind, content)
            if other != content:
                before["content"][kind] = {}
    elif before != answer:
        before.pop("content", None)


def _success(route: "Route", status: int, known: dict[Any, Json]) -> Json:
    """A ``Reply`` may hold anything, unless the route tells its type."""
    returned: Any = route.handler.__annotations__.get("return")
    kind = TYPES.get(get_origin(returned) or returned)
    if status in (204, 304) or (kind is None and not route.response):
        return {"description": "done"}
    schema = known[route.response] if route.response else {"type": kind}
    return {"description": "done", "content": {"application/json": {"schema": schema}}}


def _error(kind: type[ApiError], render: Callable[[ApiError], tuple[bytes, str]]) -> Json:
    body, content_type = render(kind("sample"))
    content = {"schema": _shape(json.loads(body))} if "json" in content_type else {}
    return {"description": kind.title, "content": {content_type.partition(";")[0]: content}}


def _shape(sample: Any) -> Json:
    """The schema of which ``sample`` is one."""
    if not isinstance(sample, dict):
        return {"type": TYPES[type(sample)]}
    properties = {name: _shape(value) for name, value in sample.items()}
    return {"type": "object", "required": list(sample), "properties": properties}


def _family(kind: type[ApiError]) -> list[type[ApiError]]:
    return [kind, *(found for child in kind.__subclasses__() for found in _family(child))]


def _usual_errors(route: "Route", versioned: bool) -> set[int]:
    """What the checks before every handler answer, and what handlers of this kind do."""
    found = {400}
    if route.policy != PUBLIC:
        found |= {401, 403, 503}
    if "{" in route.path or route.since or route.until or route.method not in READS:
        found.add(404)
    if route.method not in READS:
        found |= {409, 413}
    if versioned:
        found.add(406)
    return found
