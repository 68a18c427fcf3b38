"""What was part of compute's API and is no more, upstream too: 410, so that clients know it is not their mistake.

``injectNetworkInfo`` is still there and does nothing, as with upstream's libvirt: guests learn their network by
DHCP and from the config drive, nothing is written into their disks.
"""

from typing import Any

from msgspec import field

from cumulet.core.errors import Gone
from cumulet.core.http import Reply, Request, Route
from cumulet.core.policy import AUTHENTICATED
from cumulet.core.schema import Strict
from cumulet.nova.server_actions import URL
from cumulet.nova.servers import check_unlocked, get_server

INJECT = "os_compute_api:os-admin-actions:inject_network_info"
XEN = "This API only works with the Xen virt driver, which was removed in the 23.0.0 (Wallaby) release."
NETWORK = "This API only works with nova-network, which was removed in the 18.0.0 (Rocky) release."
CONSOLES, INTERFACES = "/v2.1/servers/{id}/consoles", "/v2.1/servers/{id}/os-virtual-interfaces"


class InjectNetworkInfo(Strict):
    inject: Any = field(name="injectNetworkInfo")


def inject_network_info(request: Request) -> Reply:
    with request.db.read() as tx:
        check_unlocked(request, get_server(tx, request, INJECT))
    return Reply()


def is_gone(request: Request) -> None:
    """Gone with Xen."""
    raise Gone(XEN)


def is_gone_with_networks(request: Request) -> None:
    """Gone with nova-network."""
    raise Gone(NETWORK)


ROUTES = (
    Route("POST", URL, inject_network_info, INJECT, 202, body=InjectNetworkInfo, action="injectNetworkInfo"),
    Route("POST", URL, is_gone, AUTHENTICATED, 410, action="resetNetwork"),
    Route("GET", CONSOLES, is_gone, AUTHENTICATED, 410),
    Route("POST", CONSOLES, is_gone, AUTHENTICATED, 410),
    Route("GET", CONSOLES + "/{console_id}", is_gone, AUTHENTICATED, 410),
    Route("DELETE", CONSOLES + "/{console_id}", is_gone, AUTHENTICATED, 410),
    Route("GET", INTERFACES, is_gone_with_networks, AUTHENTICATED, 410),
)
