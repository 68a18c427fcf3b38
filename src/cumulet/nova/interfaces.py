"""What a server is connected to: ``os-interface``, ``ips``; and its (no) volumes.

Attaching and detaching change the ports and the wish's generation in one transaction; the host plugs.
"""

from ipaddress import ip_address
from typing import Any

from msgspec import UNSET, UnsetType, field
from sqlalchemy.engine import Row

from cumulet.core.db import Transaction
from cumulet.core.errors import BadRequest, Conflict, Forbidden, NotFound
from cumulet.core.http import Json, Reply, Request, Route
from cumulet.core.schema import Strict
from cumulet.neutron import public as neutron
from cumulet.neutron.model import Port, PortWish
from cumulet.nova import device_tags, versions
from cumulet.nova.server_actions import check_state
from cumulet.nova.server_views import addresses
from cumulet.nova.servers import Order, check_unlocked, get_server, order

ATTACH = "os_compute_api:os-attach-interfaces:"


class FixedIp(Strict):
    ip_address: str
    subnet_id: str | UnsetType = UNSET


class NewInterface(Strict):
    net_id: str | None = None
    port_id: str | None = None
    fixed_ips: list[FixedIp] = []
    tag: str | UnsetType = UNSET


class AttachInterface(Strict):
    interfaceAttachment: NewInterface = field(default_factory=NewInterface)


# ── os-interface ─────────────────────────────────────────────────────────────────────────────────────────────


def list_interfaces(request: Request) -> Json:
    _, ports, tags = _read_tagged(request, ATTACH + "list")
    return {"interfaceAttachments": [_view(request, port, tags) for port in ports]}


def show_interface(request: Request) -> Json:
    server, ports, tags = _read_tagged(request, ATTACH + "show")
    port_id = request.params["port_id"]
    for port in ports:
        if port.id == port_id:
            return {"interfaceAttachment": _view(request, port, tags)}
    raise NotFound(f"Instance {server.id} does not have a port with id {port_id}")


def attach_interface(request: Request) -> Json:
    new: NewInterface = request.body.interfaceAttachment
    wish, tag = _wish(new), device_tags.check_tag(new.tag, known=request.version >= (2, 49))
    with request.db.transaction() as tx:
        row = _changeable(tx, request, "create", "attach_interface")
        port = _attach(tx, request, row, wish)
        tags = _tags_left(tx, row.id)
        if tag:
            tags = device_tags.add(tags, port.id, tag)
        order(tx, request, row, Order("attach_interface", {"device_tags": tags}))
    return {"interfaceAttachment": _view(request, port, tags)}


def _wish(new: NewInterface) -> PortWish:
    """At most one of network, port; an address with a network only."""
    if new.net_id and new.port_id:
        raise BadRequest("Must not input both network_id and port_id")
    if len(new.fixed_ips) > 1:
        raise BadRequest("Invalid input for field/attribute fixed_ips. It has one address at most")
    address = new.fixed_ips[0].ip_address if new.fixed_ips else ""
    if address and not new.net_id:
        raise BadRequest("Must input network_id when request IP address")
    try:
        return PortWish(new.net_id or "", new.port_id or "", str(ip_address(address)) if address else "")
    except ValueError as error:
        raise BadRequest(f"Invalid input for field/attribute ip_address. {error}") from error


def _attach(tx: Transaction, request: Request, row: Row[Any], wish: PortWish) -> Port:
    if not (wish.network_id or wish.port_id):
        networks = neutron.default_networks(tx, request.context)
        if len(networks) != 1:
            text = (
                "More than one possible network found. Specify network ID(s) to select which one(s) to connect to."
            )
            raise BadRequest(text if networks else "No network was found to attach the interface to.")
        wish = PortWish(network_id=networks[0])
    try:
        return neutron.attach_port(tx, request.context, row.id, row.hostname, row.host or "", wish, ())
    except Conflict as error:
        if error.kind == "OverQuota":
            raise Forbidden("Maximum number of ports exceeded", kind="PortLimitExceeded") from error
        raise BadRequest(error.message, kind=error.kind) from error


def detach_interface(request: Request) -> Reply:
    with request.db.transaction() as tx:
        row = _changeable(tx, request, "delete", "detach_interface")
        neutron.detach_port(tx, row.id, request.params["port_id"])
        order(tx, request, row, Order("detach_interface", {"device_tags": _tags_left(tx, row.id)}))
    return Reply()


def _tags_left(tx: Transaction, server_id: str) -> device_tags.Tags:
    """The tags of the devices that the server has now."""
    ports = neutron.list_server_ports(tx, [server_id]).get(server_id, ())
    return device_tags.only(device_tags.find(tx, server_id), {port.id for port in ports})


def _changeable(tx: Transaction, request: Request, verb: str, action: str) -> Row[Any]:
    row = get_server(tx, request, ATTACH + verb)
    check_unlocked(request, row)
    check_state(row, action, ("active", "stopped", "paused"))
    return row


def _read_tagged(request: Request, rule: str) -> tuple[Row[Any], list[Port], device_tags.Tags]:
    with request.db.read() as tx:
        server = get_server(tx, request, rule)
        ports = neutron.list_server_ports(tx, [server.id]).get(server.id, [])
        return server, ports, device_tags.find(tx, server.id)


def _read(request: Request, rule: str) -> tuple[Row[Any], list[Port]]:
    with request.db.read() as tx:
        server = get_server(tx, request, rule)
        return server, neutron.list_server_ports(tx, [server.id]).get(server.id, [])


def _view(request: Request, port: Port, tags: device_tags.Tags) -> Json:
    document = {
        "net_id": port.network_id,
        "port_id": port.id,
        "mac_addr": port.mac,
        "port_state": port.status,
        "fixed_ips": [{"subnet_id": address.subnet_id, "ip_address": address.ip} for address in port.addresses],
        "tag": tags[port.id]["tag"] if port.id in tags else None,
    }
    return versions.render("interface", document, request.version)


# ── ips ──────────────────────────────────────────────────────────────────────────────────────────────────────


def list_addresses(request: Request) -> Json:
    _, ports = _read(request, "os_compute_api:ips:index")
    return {"addresses": _plain(addresses(ports))}


def show_addresses(request: Request) -> Json:
    _, ports = _read(request, "os_compute_api:ips:show")
    found = addresses(ports, request.params["network"])
    if not found:
        raise NotFound("Instance is not a member of specified network")
    return _plain(found)


def _plain(networks: Json) -> Json:
    """Addresses as these two URLs give them: without the extensions' fields."""
    return {
        name: [{"version": address["version"], "addr": address["addr"]} for address in found]
        for name, found in networks.items()
    }


# ── volumes ──────────────────────────────────────────────────────────────────────────────────────────────────


def list_volumes(request: Request) -> Json:
    """None: a server's disks are its own, there are no volumes to attach."""
    with request.db.read() as tx:
        get_server(tx, request, "os_compute_api:os-volumes-attachments:index")
    return {"volumeAttachments": []}


def show_volume(request: Request) -> Json:
    with request.db.read() as tx:
        server = get_server(tx, request, "os_compute_api:os-volumes-attachments:show")
    raise NotFound(f"Instance {server.id} is not attached to volume {request.params['volume_id']}")


SERVER = "/v2.1/servers/{id}"
ROUTES = (
    Route("GET", SERVER + "/os-interface", list_interfaces, ATTACH + "list"),
    Route("POST", SERVER + "/os-interface", attach_interface, ATTACH + "create", body=AttachInterface),
    Route("GET", SERVER + "/os-interface/{port_id}", show_interface, ATTACH + "show"),
    Route("DELETE", SERVER + "/os-interface/{port_id}", detach_interface, ATTACH + "delete", 202),
    Route("GET", SERVER + "/ips", list_addresses, "os_compute_api:ips:index"),
    Route("GET", SERVER + "/ips/{network}", show_addresses, "os_compute_api:ips:show"),
    Route("GET", SERVER + "/os-volume_attachments", list_volumes, "os_compute_api:os-volumes-attachments:index"),
    Route(
        "GET",
        SERVER + "/os-volume_attachments/{volume_id}",
        show_volume,
        "os_compute_api:os-volumes-attachments:show",
    ),
)
