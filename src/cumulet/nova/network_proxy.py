"""What compute still serves of the network's API to clients of old: it asks neutron in its user's name.

neutron is asked in this process, by its own API and with the caller's own token: its rights, quotas and checks
hold, and there is nothing here that could disagree with it.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from cumulet.core.errors import ApiError, BadRequest, Conflict, Forbidden, NotFound, Unavailable
from cumulet.core.http import Request

_ERRORS: Mapping[int, type[ApiError]] = {400: BadRequest, 403: Forbidden, 404: NotFound, 409: Conflict}


def ask(request: Request, method: str, path: str, body: Any = None, **query: str) -> Any:
    """neutron's answer to ``/v2.0/{path}``; its refusals as nova words them."""
    url = f"/v2.0/{path}" + (f"?{urlencode(query)}" if query else "")
    headers = {name: request.headers[name] for name in _PASSED if name in request.headers}
    status, answer, _ = request.app.extras.network.call(method, url, body, headers)
    if status < 300:
        return answer
    error = answer.get("NeutronError", {}) if isinstance(answer, dict) else {}
    message, kind = str(error.get("message", "")), str(error.get("type", ""))
    if kind == "OverQuota":
        raise Forbidden(message, kind=kind)
    if status not in _ERRORS:
        raise Unavailable(f"the network does not answer ({status}), try again later")
    raise _ERRORS[status](message, kind=kind)


def mine(request: Request) -> dict[str, str]:
    """The query for what belongs to the caller's project, whatever else an administrator would see."""
    return {"project_id": request.context.project_id}


_PASSED = ("x-auth-token", "x-openstack-request-id")
