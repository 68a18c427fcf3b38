"""``/os-security-groups`` and ``/os-security-group-rules``, until 2.35: neutron's in compute's own old form."""

from ipaddress import ip_network
from typing import Annotated, Any

from msgspec import Meta

from cumulet.core.errors import BadRequest, Conflict
from cumulet.core.http import Json, Reply, Request, Route
from cumulet.core.schema import Strict
from cumulet.neutron.model import Inlet, SecurityGroup
from cumulet.nova.network_proxy import ask, mine
from cumulet.nova.paging import boolean, whole_number
from cumulet.nova.server_security_groups import group_view, rule_view

Text = Annotated[str, Meta(max_length=255)]
Names = dict[str, tuple[str, str]]
"""Group's id → its name and its project."""


class Group(Strict):
    name: Annotated[str, Meta(min_length=1, max_length=255)]
    description: Text | None = None


class GroupBody(Strict):
    security_group: Group


class NewRule(Strict):
    parent_group_id: str
    ip_protocol: str | int | None = None
    from_port: int | None = None
    to_port: int | None = None
    cidr: str | None = None
    group_id: str | None = None


class RuleBody(Strict):
    security_group_rule: NewRule


def list_groups(request: Request) -> Json:
    every = request.one("all_tenants")
    scope = {} if every is not None and boolean(every, "all_tenants") and request.context.admin else mine(request)
    groups = ask(request, "GET", "security-groups", **scope)["security_groups"]
    limit, offset = (whole_number(request.one(name), name) for name in ("limit", "offset"))
    page = groups[offset or 0 :][: limit or None]
    names = _names(request, page)
    return {"security_groups": [group_view(_group(group, names)) for group in page]}


def show_group(request: Request) -> Json:
    return _shown(request, ask(request, "GET", _url(request)))


def create_group(request: Request) -> Json:
    return _shown(request, ask(request, "POST", "security-groups", _body(request)))


def update_group(request: Request) -> Json:
    return _shown(request, ask(request, "PUT", _url(request), _body(request)))


def delete_group(request: Request) -> Reply:
    """What neutron calls a conflict (in use, or the project's first) compute has always called a bad request."""
    try:
        ask(request, "DELETE", _url(request))
    except Conflict as error:
        raise BadRequest(error.message, kind=error.kind) from error
    return Reply()


def create_rule(request: Request) -> Json:
    wish: NewRule = request.body.security_group_rule
    ports = {"port_range_min": _port(wish.from_port), "port_range_max": _port(wish.to_port)}
    rule = {
        "security_group_id": wish.parent_group_id,
        "direction": "ingress",
        "ethertype": "IPv4" if wish.cidr is None else _ethertype(wish.cidr),
        "protocol": wish.ip_protocol,
        **(ports if wish.ip_protocol is not None else {}),
    }
    if wish.group_id is not None:
        rule["remote_group_id"] = wish.group_id
    else:
        rule["remote_ip_prefix"] = wish.cidr or "0.0.0.0/0"
    try:
        made = ask(request, "POST", "security-group-rules", {"security_group_rule": rule})["security_group_rule"]
    except Conflict as error:
        raise BadRequest(error.message, kind=error.kind) from error
    parent = ask(request, "GET", f"security-groups/{made['security_group_id']}")["security_group"]
    names = _names(request, [{"security_group_rules": [made]}])
    return {"security_group_rule": rule_view(_group(parent, names), _inlet(made, names))}


def delete_rule(request: Request) -> Reply:
    ask(request, "DELETE", f"security-group-rules/{request.params['id']}")
    return Reply()


def _port(number: int | None) -> int | None:
    """-1 is any ICMP type or code."""
    return None if number == -1 else number


def _ethertype(cidr: str) -> str:
    try:
        return f"IPv{ip_network(cidr, strict=False).version}"
    except ValueError as error:
        raise BadRequest(f"Invalid input for field/attribute cidr. Value: {cidr[:300]}. {error}") from error


def _url(request: Request) -> str:
    return f"security-groups/{request.params['id']}"


def _body(request: Request) -> Json:
    group: Group = request.body.security_group
    return {"security_group": {"name": group.name, "description": group.description or ""}}


def _shown(request: Request, answer: Any) -> Json:
    group = answer["security_group"]
    return {"security_group": group_view(_group(group, _names(request, [group])))}


def _names(request: Request, groups: list[Any]) -> Names:
    """Of the groups that rules let in."""
    ids = {rule["remote_group_id"] for group in groups for rule in group["security_group_rules"]} - {None}
    if not ids:
        return {}
    found = ask(request, "GET", "security-groups")["security_groups"]
    return {one["id"]: (one["name"], one["project_id"]) for one in found if one["id"] in ids}


def _group(group: Any, names: Names) -> SecurityGroup:
    inlets = [_inlet(rule, names) for rule in group["security_group_rules"] if rule["direction"] == "ingress"]
    return SecurityGroup(group["id"], group["name"], group["description"], group["project_id"], tuple(inlets))


def _inlet(rule: Any, names: Names) -> Inlet:
    remote = rule["remote_group_id"]
    return Inlet(
        rule["id"],
        rule["ethertype"],
        rule["protocol"],
        rule["port_range_min"],
        rule["port_range_max"],
        rule["remote_ip_prefix"],
        names.get(remote, ("", "")) if remote else None,
    )


POLICY = "os_compute_api:os-security-groups:"
URL, RULES, UNTIL = "/v2.1/os-security-groups", "/v2.1/os-security-group-rules", (2, 35)
ROUTES = (
    Route("GET", URL, list_groups, POLICY + "get", until=UNTIL),
    Route("POST", URL, create_group, POLICY + "create", body=GroupBody, until=UNTIL),
    Route("GET", URL + "/{id}", show_group, POLICY + "show", until=UNTIL),
    Route("PUT", URL + "/{id}", update_group, POLICY + "update", body=GroupBody, until=UNTIL),
    Route("DELETE", URL + "/{id}", delete_group, POLICY + "delete", 202, until=UNTIL),
    Route("POST", RULES, create_rule, POLICY + "rule:create", body=RuleBody, until=UNTIL),
    Route("DELETE", RULES + "/{id}", delete_rule, POLICY + "rule:delete", 202, until=UNTIL),
)
