"""How a network's frames travel: the type of its segment, chosen or as an administrator says.

Projects get VXLAN networks with a random VNI, so that one that has just been given back is hardly ever given out
again while a host may still carry its old flows.
"""

import secrets
from dataclasses import dataclass
from typing import Any

from cumulet.core.errors import BadRequest, Conflict
from cumulet.neutron import checks

VXLAN_BYTES = 50
SMALLEST_MTU = {4: 68, 6: 1280}
LAST_VNI, LAST_VLAN = (1 << 24) - 1, 4094


@dataclass(frozen=True)
class SegmentType:
    kind: str
    physical_network: str
    segmentation_id: int

    @property
    def chosen(self) -> bool:
        """Whether the cloud chose the number: then a collision is no fault of the caller's."""
        return self.kind == "vxlan" and not self.segmentation_id


def segment_type(kind: str | None, physical_network: str | None, segmentation_id: int | None) -> SegmentType:
    """What the provider attributes ask for; 400 where they do not fit together."""
    if kind is None and (physical_network is not None or segmentation_id is not None):
        raise checks.bad("network_type required")
    kind = kind or "vxlan"
    if kind == "flat":
        if segmentation_id is not None:
            raise checks.bad("segmentation_id prohibited for flat provider network")
        return SegmentType("flat", _physical(kind, physical_network), 0)
    if kind == "vlan":
        if segmentation_id is None:
            raise checks.bad("segmentation_id required for VLAN provider network")
        if not 1 <= segmentation_id <= LAST_VLAN:
            raise checks.bad(f"segmentation_id out of range (1 through {LAST_VLAN})")
        return SegmentType("vlan", _physical(kind, physical_network), segmentation_id)
    if kind == "vxlan":
        if physical_network is not None:
            raise checks.bad("provider:physical_network specified for vxlan network")
        if segmentation_id is not None and not 1 <= segmentation_id <= LAST_VNI:
            raise checks.bad(f"provider:segmentation_id out of range (1 through {LAST_VNI})")
        return SegmentType("vxlan", "", segmentation_id or 0)
    raise checks.bad(f"network_type value '{checks.shown(kind)}' not supported")


def _physical(kind: str, name: str | None) -> str:
    if not name:
        raise checks.bad(f"physical_network required for {kind} provider network")
    if len(name) > 64 or not name.replace("-", "").replace("_", "").isalnum() or not name.isascii():
        raise checks.bad(f"unknown physical_network '{checks.shown(name)}'")
    return name


def segment_values(segment: SegmentType) -> dict[str, Any]:
    """The columns of a network with this segment."""
    return {
        "kind": segment.kind,
        "physical_network": segment.physical_network,
        "segmentation_id": 1 + secrets.randbelow(LAST_VNI) if segment.chosen else segment.segmentation_id,
    }


def network_mtu(kind: str, physical_mtu: int, wanted: int) -> int:
    """A network's MTU: what fits the physical one, or less if less is wanted (0: as much as fits)."""
    largest = physical_mtu - VXLAN_BYTES if kind == "vxlan" else physical_mtu
    if wanted > largest:
        raise checks.bad(f"Requested MTU is too big, maximum is {largest}")
    if 0 < wanted < SMALLEST_MTU[4]:
        raise checks.bad(f"Requested MTU is too small, minimum is {SMALLEST_MTU[4]}")
    return wanted or largest


def in_use(segment: SegmentType) -> Conflict:
    """The answer to who asks for a segment that another network has."""
    if segment.kind == "flat":
        return Conflict(
            f"Unable to create the flat network. Physical network {segment.physical_network} is in use.",
            kind="FlatNetworkInUse",
        )
    if segment.kind == "vlan":
        return Conflict(
            f"Unable to create the network. The VLAN {segment.segmentation_id} on physical network "
            f"{segment.physical_network} is in use.",
            kind="VlanIdInUse",
        )
    return Conflict(
        f"Unable to create the network. The tunnel ID {segment.segmentation_id} is in use.", kind="TunnelIdInUse"
    )


def not_changeable() -> BadRequest:
    return checks.bad("Plugin does not support updating provider attributes")
