"""``os-security-groups``, ``addSecurityGroup`` and ``removeSecurityGroup``: the groups of all of a server's ports.

The network enforces them: nothing changes for the server itself, so there is no order for its host.
"""

from collections.abc import Callable

from cumulet.core.context import Context
from cumulet.core.db import Transaction
from cumulet.core.http import Json, Reply, Request, Route
from cumulet.core.schema import Strict
from cumulet.neutron import public as neutron
from cumulet.neutron.model import Inlet, SecurityGroup
from cumulet.nova.server_actions import URL, check_state
from cumulet.nova.servers import get_server

POLICY = "os_compute_api:os-security-groups:"
_ICMP = ("icmp", "icmpv6", "ipv6-icmp", "1", "58")


class Group(Strict):
    name: str


class AddGroup(Strict):
    addSecurityGroup: Group


class RemoveGroup(Strict):
    removeSecurityGroup: Group


def list_groups(request: Request) -> Json:
    with request.db.read() as tx:
        server = get_server(tx, request, POLICY + "list")
        groups = neutron.list_security_groups(tx, server.id)
    return {"security_groups": [group_view(group) for group in groups]}


def group_view(group: SecurityGroup) -> Json:
    """As compute had groups of its own: rules only let in, and from one place."""
    return {
        "id": group.id,
        "name": group.name,
        "description": group.description,
        "tenant_id": group.project_id,
        "rules": [rule_view(group, inlet) for inlet in group.inlets],
    }


def rule_view(group: SecurityGroup, inlet: Inlet) -> Json:
    """Upstream's form: -1 for any ICMP type or code and 1 to 65535 for any port; nothing for any protocol."""
    least, most = (None, None) if inlet.protocol is None else (-1, -1) if inlet.protocol in _ICMP else (1, 65535)
    everywhere = "::/0" if inlet.ethertype == "IPv6" else "0.0.0.0/0"
    name, project = inlet.group or ("", "")
    return {
        "id": inlet.id,
        "parent_group_id": group.id,
        "ip_protocol": inlet.protocol,
        "from_port": least if inlet.port_min is None else inlet.port_min,
        "to_port": most if inlet.port_max is None else inlet.port_max,
        "ip_range": {} if inlet.group else {"cidr": inlet.prefix or everywhere},
        "group": {"name": name, "tenant_id": project} if inlet.group else {},
    }


def add_group(request: Request) -> Reply:
    return _change(request, "add", request.body.addSecurityGroup.name, neutron.add_security_group)


def remove_group(request: Request) -> Reply:
    return _change(request, "remove", request.body.removeSecurityGroup.name, neutron.remove_security_group)


def _change(
    request: Request, verb: str, name: str, change: Callable[[Transaction, Context, str, str], None]
) -> Reply:
    """``name`` may also be a group's id."""
    with request.db.transaction() as tx:
        row = get_server(tx, request, POLICY + verb)
        check_state(row, f"{verb}SecurityGroup", ("active", "stopped", "paused", "suspended"), busy=True)
        change(tx, request.context, row.id, name)
    return Reply()


ROUTES = (
    Route("GET", "/v2.1/servers/{id}/os-security-groups", list_groups, POLICY + "list"),
    Route("POST", URL, add_group, POLICY + "add", 202, body=AddGroup, action="addSecurityGroup"),
    Route("POST", URL, remove_group, POLICY + "remove", 202, body=RemoveGroup, action="removeSecurityGroup"),
)
