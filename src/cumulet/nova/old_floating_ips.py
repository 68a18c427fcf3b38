"""neutron's floating IPs in compute's own old form; a pool is an external network.

The collections until 2.35, the actions ``addFloatingIp`` and ``removeFloatingIp`` until 2.43.
"""

from typing import Any

from msgspec import UNSET, UnsetType

from cumulet.core.errors import BadRequest, Conflict, Forbidden, NotFound
from cumulet.core.http import Json, Reply, Request, Route
from cumulet.core.schema import Strict
from cumulet.neutron import public as neutron
from cumulet.nova.network_proxy import ask, mine
from cumulet.nova.server_actions import URL as ACTION
from cumulet.nova.server_actions import check_placed
from cumulet.nova.servers import get_server


class Pool(Strict):
    pool: str | None = None


class AddAddress(Strict):
    address: str
    fixed_address: str | UnsetType = UNSET


class AddFloatingIp(Strict):
    addFloatingIp: AddAddress


class RemoveAddress(Strict):
    address: str


class RemoveFloatingIp(Strict):
    removeFloatingIp: RemoveAddress


def list_pools(request: Request) -> Json:
    """Everybody may ask; who may not see networks sees none."""
    try:
        pools = _pools(request)
    except Forbidden:
        pools = []
    return {"floating_ip_pools": [{"name": one["name"] or one["id"]} for one in pools]}


def list_addresses(request: Request) -> Json:
    found = ask(request, "GET", "floatingips", **mine(request))["floatingips"]
    pools = {one["id"]: one["name"] or one["id"] for one in _pools(request)}
    return {"floating_ips": [_view(request, one, pools) for one in found]}


def show_address(request: Request) -> Json:
    return _shown(request, ask(request, "GET", f"floatingips/{request.params['id']}")["floatingip"])


def create_address(request: Request) -> Json:
    """From the pool of this name or id, or from the first one."""
    wanted = request.body.pool if request.body is not None else None
    pools = _pools(request)
    chosen = next((one for one in pools if wanted in (None, "", one["name"], one["id"])), None)
    if chosen is None:
        raise NotFound("Floating IP pool not found.", kind="FloatingIpPoolNotFound")
    wish = {"floatingip": {"floating_network_id": chosen["id"]}}
    return _shown(request, ask(request, "POST", "floatingips", wish)["floatingip"])


def delete_address(request: Request) -> Reply:
    ask(request, "DELETE", f"floatingips/{request.params['id']}")
    return Reply()


def add_address(request: Request) -> Reply:
    """To the fixed address that is named, else to the server's first IPv4 address."""
    wish: AddAddress = request.body.addFloatingIp
    with request.db.read() as tx:
        row = get_server(tx, request, POLICY + "add")
        check_placed(row)
        ports = neutron.list_server_ports(tx, [row.id]).get(row.id, [])
    mine4 = [(port.id, address.ip) for port in ports for address in port.addresses if address.ip_version == 4]
    if not mine4:
        raise BadRequest(f"No fixed IPs associated to instance {row.id}")
    fixed = mine4[0][1] if wish.fixed_address is UNSET else wish.fixed_address
    port_id = next((port for port, ip in mine4 if ip == fixed), None)
    if port_id is None:
        raise BadRequest("Specified fixed address not assigned to instance")
    found = _find(request, wish.address)
    try:
        change = {"floatingip": {"port_id": port_id, "fixed_ip_address": fixed}}
        ask(request, "PUT", f"floatingips/{found['id']}", change)
    except (Conflict, NotFound) as error:
        raise BadRequest(error.message, kind=error.kind) from error
    return Reply()


def remove_address(request: Request) -> Reply:
    with request.db.read() as tx:
        row = get_server(tx, request, POLICY + "remove")
        ports = {port.id for port in neutron.list_server_ports(tx, [row.id]).get(row.id, [])}
    found = _find(request, request.body.removeFloatingIp.address)
    if found["port_id"] not in ports:
        raise Conflict(f"Floating IP {found['floating_ip_address']} is not associated with instance {row.id}.")
    ask(request, "PUT", f"floatingips/{found['id']}", {"floatingip": {"port_id": None}})
    return Reply()


def _find(request: Request, address: str) -> Any:
    found = ask(request, "GET", "floatingips", floating_ip_address=address, **mine(request))["floatingips"]
    if not found:
        raise NotFound(f"Floating IP not found for address {address[:300]}.", kind="FloatingIpNotFoundForAddress")
    return found[0]


def _pools(request: Request) -> list[Any]:
    found: list[Any] = ask(request, "GET", "networks", **{"router:external": "True"})["networks"]
    return found


def _shown(request: Request, found: Any) -> Json:
    pools = {one["id"]: one["name"] or one["id"] for one in _pools(request)}
    return {"floating_ip": _view(request, found, pools)}


def _view(request: Request, found: Any, pools: dict[str, str]) -> Json:
    server = ask(request, "GET", f"ports/{found['port_id']}")["port"]["device_id"] if found["port_id"] else None
    return {
        "id": found["id"],
        "ip": found["floating_ip_address"],
        "pool": pools.get(found["floating_network_id"]),
        "fixed_ip": found["fixed_ip_address"],
        "instance_id": server or None,
    }


POLICY = "os_compute_api:os-floating-ips:"
URL, UNTIL = "/v2.1/os-floating-ips", (2, 35)
ROUTES = (
    Route("GET", "/v2.1/os-floating-ip-pools", list_pools, "os_compute_api:os-floating-ip-pools", until=UNTIL),
    Route("GET", URL, list_addresses, POLICY + "list", until=UNTIL),
    Route("POST", URL, create_address, POLICY + "create", body=Pool, until=UNTIL),
    Route("GET", URL + "/{id}", show_address, POLICY + "show", until=UNTIL),
    Route("DELETE", URL + "/{id}", delete_address, POLICY + "delete", 202, until=UNTIL),
    Route(
        "POST", ACTION, add_address, POLICY + "add", 202, body=AddFloatingIp, action="addFloatingIp", until=(2, 43)
    ),
    Route(
        "POST", ACTION, remove_address, POLICY + "remove", 202, body=RemoveFloatingIp, action="removeFloatingIp",
        until=(2, 43),
    ),
)  # fmt: skip
