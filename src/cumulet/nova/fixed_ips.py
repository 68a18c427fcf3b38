"""``addFixedIp`` and ``removeFixedIp``, until 2.43: one address more or less for a server's port.

The network gives and takes it; there is nothing for the server's host to do, and the guest hears of it by DHCP.
"""

from ipaddress import ip_address

from cumulet.core.errors import BadRequest, Conflict
from cumulet.core.http import Reply, Request, Route
from cumulet.core.schema import Strict
from cumulet.neutron import public as neutron
from cumulet.nova.server_actions import URL, check_state, movable

POLICY = "os_compute_api:os-multinic:"
LAST = (2, 43)
_STATES = ("active", "stopped", "paused", "suspended")


class Network(Strict):
    networkId: str


class Address(Strict):
    address: str


class AddFixedIp(Strict):
    addFixedIp: Network


class RemoveFixedIp(Strict):
    removeFixedIp: Address


def add_fixed_ip(request: Request) -> Reply:
    with request.db.transaction() as tx:
        row = movable(tx, request, ADD)
        check_state(row, "addFixedIp", _STATES)
        try:
            neutron.add_fixed_ip(tx, request.context, row.id, request.body.addFixedIp.networkId)
        except Conflict as error:
            raise BadRequest(error.message, kind=error.kind) from error
    return Reply()


def remove_fixed_ip(request: Request) -> Reply:
    ip = _address(request.body.removeFixedIp.address)
    with request.db.transaction() as tx:
        row = movable(tx, request, REMOVE)
        check_state(row, "removeFixedIp", _STATES)
        neutron.remove_fixed_ip(tx, request.context, row.id, ip)
    return Reply()


def _address(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError as error:
        raise BadRequest(f"Invalid input for field/attribute address. Value: {text[:300]}. {error}") from error


ADD, REMOVE = POLICY + "add", POLICY + "remove"
ROUTES = (
    Route("POST", URL, add_fixed_ip, ADD, 202, body=AddFixedIp, action="addFixedIp", until=LAST),
    Route("POST", URL, remove_fixed_ip, REMOVE, 202, body=RemoveFixedIp, action="removeFixedIp", until=LAST),
)
