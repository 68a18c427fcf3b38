"""``/os-networks`` and ``/os-tenant-networks``, until 2.35: networks that the caller may use, with their labels."""

from typing import Any

from cumulet.core.http import Json, Request, Route
from cumulet.nova.network_proxy import ask

_UNKNOWN = (
    "bridge", "bridge_interface", "broadcast", "cidr", "cidr_v6", "created_at", "deleted", "deleted_at",
    "dhcp_server", "dhcp_start", "dns1", "dns2", "enable_dhcp", "gateway", "gateway_v6", "host", "injected",
    "mtu", "multi_host", "netmask", "netmask_v6", "priority", "project_id", "rxtx_base", "share_address",
    "updated_at", "vlan", "vpn_private_address", "vpn_public_address", "vpn_public_port",
)  # fmt: skip
"""What networks had before there was neutron; nothing is said of it any more, as upstream."""


def list_networks(request: Request) -> Json:
    return {"networks": [_view(one) for one in _all(request)]}


def show_network(request: Request) -> Json:
    return {"network": _view(_one(request))}


def list_tenant_networks(request: Request) -> Json:
    return {"networks": [_brief(one) for one in _all(request)]}


def show_tenant_network(request: Request) -> Json:
    return {"network": _brief(_one(request))}


def _all(request: Request) -> list[Any]:
    found: list[Any] = ask(request, "GET", "networks")["networks"]
    return found


def _one(request: Request) -> Any:
    return ask(request, "GET", f"networks/{request.params['id']}")["network"]


def _brief(network: Any) -> Json:
    return {"id": network["id"], "label": network["name"], "cidr": "None"}


def _view(network: Any) -> Json:
    return {**dict.fromkeys(_UNKNOWN), "id": network["id"], "label": network["name"]}


UNTIL = (2, 35)
NETWORKS, TENANT = "/v2.1/os-networks", "/v2.1/os-tenant-networks"
ROUTES = (
    Route("GET", NETWORKS, list_networks, "os_compute_api:os-networks:list", until=UNTIL),
    Route("GET", NETWORKS + "/{id}", show_network, "os_compute_api:os-networks:show", until=UNTIL),
    Route("GET", TENANT, list_tenant_networks, "os_compute_api:os-tenant-networks:list", until=UNTIL),
    Route("GET", TENANT + "/{id}", show_tenant_network, "os_compute_api:os-tenant-networks:show", until=UNTIL),
)
