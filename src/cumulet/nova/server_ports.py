"""The ports of a new server: which, and what nova says where neutron refuses them."""

from collections.abc import Mapping, Sequence
from typing import Any

from cumulet.core.db import Transaction
from cumulet.core.errors import ApiError, BadRequest, Conflict, Forbidden, NotFound
from cumulet.core.http import Request
from cumulet.neutron import public as neutron
from cumulet.neutron.model import PortWish


def choose_ports(
    tx: Transaction, request: Request, wishes: Sequence[PortWish] | None, must_have_network: bool
) -> Sequence[PortWish]:
    """What was asked for; without a word, the project's only network, or none if there is none."""
    if wishes is not None:
        return wishes
    networks = neutron.default_networks(tx, request.context)
    if len(networks) > 1:
        raise Conflict(
            "More than one possible network found. Specify network ID(s) to select which one(s) to connect to.",
            kind="NetworkAmbiguous",
        )
    if not networks and must_have_network:
        project = request.context.project_id
        raise BadRequest(f"Unable to automatically allocate a network for project {project}")
    return [PortWish(network_id=network) for network in networks]


def create_ports(
    tx: Transaction, request: Request, row: Mapping[str, Any], ports: Sequence[PortWish], groups: Sequence[str]
) -> list[str]:
    """Their ids, in order.  neutron's refusals as nova words them: what the body names and is not there is a bad
    request.
    """
    try:
        found = neutron.create_server_ports(tx, request.context, row["id"], row["hostname"], ports, groups)
    except NotFound as error:
        raise BadRequest(error.message, kind=error.kind) from error
    except Conflict as error:
        raise _port_conflict(error) from error
    return [port.id for port in found]


def _port_conflict(error: Conflict) -> ApiError:
    if error.kind == "OverQuota":
        return Forbidden("Maximum number of ports exceeded", kind="PortLimitExceeded")
    if error.kind in ("IpAddressInUse", "IpAddressAlreadyAllocated", "IpAddressGenerationFailure"):
        return BadRequest(error.message, kind=error.kind)
    return error
