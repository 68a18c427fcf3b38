"""The body of ``POST /servers``: its types, and what its ``networks`` mean."""

import re
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, UnsetType, field

from cumulet.core.errors import BadRequest
from cumulet.core.microversion import Version
from cumulet.core.schema import Strict
from cumulet.neutron.model import PortWish

UUID = re.compile(r"[0-9a-fA-F]{8}(-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}")
Count = Annotated[int, Meta(ge=1)]


class NetworkWish(Strict):
    uuid: str | None = None
    port: str | None = None
    fixed_ip: str | None = None
    tag: str | UnsetType = UNSET


class GroupWish(Strict):
    name: str


class BlockDevice(Strict):
    boot_index: int | str | None = None
    uuid: str | None = None
    image_id: str | None = None
    volume_id: str | None = None
    snapshot_id: str | None = None
    source_type: str | None = None
    destination_type: str | None = None
    delete_on_termination: bool | str = False
    volume_size: int | str | None = None
    volume_type: str | None = None
    device_name: str | None = None
    device_type: str | None = None
    disk_bus: str | None = None
    guest_format: str | None = None
    no_device: Any = None
    tag: str | UnsetType = UNSET


class NewServer(Strict):
    name: str
    flavorRef: str | int
    imageRef: str | UnsetType = UNSET
    networks: list[NetworkWish] | Literal["auto", "none"] | UnsetType = UNSET
    adminPass: Annotated[str, Meta(max_length=255)] | UnsetType = UNSET
    metadata: dict[str, str] | UnsetType = UNSET
    security_groups: list[GroupWish] | UnsetType = UNSET
    key_name: str | UnsetType = UNSET
    user_data: str | UnsetType = UNSET
    config_drive: bool | str | UnsetType = UNSET
    availability_zone: str | UnsetType = UNSET
    host: str | UnsetType = UNSET
    hypervisor_hostname: str | UnsetType = UNSET
    hostname: str | UnsetType = UNSET
    description: str | UnsetType | None = UNSET
    tags: list[str] | UnsetType = UNSET
    min_count: Count | UnsetType = UNSET
    max_count: Count | UnsetType = UNSET
    return_reservation_id: bool | str | UnsetType = UNSET
    accessIPv4: str | UnsetType = UNSET
    accessIPv6: str | UnsetType = UNSET
    disk_config: str | UnsetType = field(name="OS-DCF:diskConfig", default=UNSET)
    block_device_mapping: list[dict[str, Any]] | UnsetType = UNSET
    block_device_mapping_v2: list[BlockDevice] | UnsetType = UNSET


class CreateServer(Strict):
    server: NewServer
    hints: dict[str, Any] | UnsetType = field(name="os:scheduler_hints", default=UNSET)
    old_hints: dict[str, Any] | UnsetType = field(name="OS-SCH-HNT:scheduler_hints", default=UNSET)


def port_wishes(networks: Sequence[NetworkWish] | str | UnsetType, version: Version) -> list[PortWish] | None:
    """The ports that ``networks`` ask for; None: nothing was said, choose.  From 2.37 on silence is an error."""
    if isinstance(networks, str):
        if version < (2, 37):
            raise BadRequest(
                f"Invalid input for field/attribute networks. Value: {networks}. It is a list until 2.37"
            )
        return None if networks == "auto" else []
    if isinstance(networks, UnsetType):
        if version >= (2, 37):
            raise BadRequest("Invalid input for field/attribute server. 'networks' is a required property")
        return None
    if not networks:
        return None
    wishes = [_port_wish(network) for network in networks]
    ports = [wish.port_id for wish in wishes if wish.port_id]
    for port in ports:
        if ports.count(port) > 1:
            raise BadRequest(f"Port ID '{port}' was specified twice: you cannot attach a port multiple times.")
    return wishes


def _port_wish(network: NetworkWish) -> PortWish:
    if network.port:
        if network.fixed_ip:
            raise BadRequest(
                f"Specified Fixed IP '{network.fixed_ip}' cannot be used with port '{network.port}': "
                "the two cannot be specified together."
            )
        return PortWish(port_id=_uuid(network.port, "port"))
    if not network.uuid:
        raise BadRequest("Bad network format: missing 'uuid'")
    return PortWish(network_id=_uuid(network.uuid, "network uuid"), fixed_ip=_address(network.fixed_ip or ""))


def _uuid(text: str, what: str) -> str:
    if not UUID.fullmatch(text):
        raise BadRequest(f"Bad networks format: {what} is not in proper format ({text[:300]})")
    return text


def _address(text: str) -> str:
    try:
        return str(ip_address(text)) if text else ""
    except ValueError as error:
        raise BadRequest(f"Invalid input for field/attribute fixed_ip. Value: {text[:300]}. {error}") from error
