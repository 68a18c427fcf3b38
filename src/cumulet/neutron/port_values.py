"""What a port may be told to be: the bodies of POST and PUT, and their checks."""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import sqlalchemy as sa
from msgspec import UNSET, Meta, UnsetType, field

from cumulet.core.db import Transaction
from cumulet.core.errors import BadRequest, Conflict, NotFound
from cumulet.core.http import Request
from cumulet.core.schema import Strict
from cumulet.neutron import checks, sharing, standard
from cumulet.neutron.addresses import Wish
from cumulet.neutron.checks import IdText, NameText, Tag, bad
from cumulet.neutron.projects import default_group
from cumulet.neutron.standard import Json, Named
from cumulet.neutron.tables import security_groups

MOST_PAIRS = 10
_OPTION = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}")
VNIC_TYPES = ("normal", "direct", "macvtap", "baremetal", "direct-physical", "virtio-forwarder", "vdpa")


class FixedIp(Strict):
    subnet_id: IdText | UnsetType = UNSET
    ip_address: str | UnsetType = UNSET


class Pair(Strict):
    ip_address: str | UnsetType = UNSET
    mac_address: str | UnsetType = UNSET


class DhcpOption(Strict):
    opt_name: NameText
    opt_value: NameText | UnsetType | None = UNSET
    ip_version: int = 4


class PortChange(Named):
    admin_state_up: bool | UnsetType = UNSET
    device_id: NameText | UnsetType = UNSET
    device_owner: NameText | UnsetType = UNSET
    mac_address: str | UnsetType | None = UNSET
    fixed_ips: Annotated[list[FixedIp], Meta(max_length=64)] | UnsetType | None = UNSET
    security_groups: Annotated[list[IdText], Meta(max_length=200)] | UnsetType | None = UNSET
    port_security_enabled: bool | UnsetType = UNSET
    allowed_address_pairs: list[Pair] | UnsetType | None = UNSET
    extra_dhcp_opts: Annotated[list[DhcpOption], Meta(max_length=64)] | UnsetType | None = UNSET
    dns_name: NameText | UnsetType = UNSET
    host_id: NameText | UnsetType | None = field(name="binding:host_id", default=UNSET)
    profile: dict[str, Any] | UnsetType | None = field(name="binding:profile", default=UNSET)
    vnic_type: str | UnsetType = field(name="binding:vnic_type", default=UNSET)


class NewPortBody(PortChange, kw_only=True):
    network_id: IdText
    project_id: IdText | UnsetType = UNSET
    tenant_id: IdText | UnsetType = UNSET
    tags: list[Tag] | UnsetType = UNSET


class PortsBody(Strict):
    port: NewPortBody | UnsetType = UNSET
    ports: list[NewPortBody] | UnsetType = UNSET


class PortBody(Strict):
    port: PortChange


DEFAULTS: Mapping[str, Any] = {
    "device_owner": "",
    "mac_address": None,
    "fixed_ips": None,
    "allowed_address_pairs": [],
    "port_security_enabled": True,
    "binding:host_id": "",
    "binding:profile": {},
    "binding:vnic_type": "normal",
}
PLAIN = {
    "admin_state_up": "admin_up",
    "device_id": "device_id",
    "device_owner": "device_owner",
    "port_security_enabled": "port_security",
}


def enforce(request: Request, action: str, body: PortChange, about: Json) -> None:
    """The rules of single attributes, those of addresses included."""
    about = about if body.device_owner is UNSET else {**about, "device_owner": body.device_owner}
    standard.enforce_attributes(request, action, body, about, DEFAULTS if action == "create_port" else None)
    for fixed in body.fixed_ips or ():
        for name in ("ip_address", "subnet_id"):
            if getattr(fixed, name) is not UNSET:
                request.enforce(f"{action}:fixed_ips:{name}", about)
    for pair in body.allowed_address_pairs or ():
        for name in ("ip_address", "mac_address"):
            if getattr(pair, name):
                request.enforce(f"{action}:allowed_address_pairs:{name}", about)


def columns(body: PortChange) -> Json:
    """The columns of ``ports`` that a body sets."""
    found = {column: value for name, column in PLAIN.items() if (value := getattr(body, name)) is not UNSET}
    if body.mac_address:
        found["mac"] = checks.mac(body.mac_address)
    if not isinstance(body.dns_name, UnsetType):
        found["dns_name"] = checks.host_name(body.dns_name)
    if not isinstance(body.profile, UnsetType):
        found["profile"] = body.profile or {}
    if not isinstance(body.vnic_type, UnsetType):
        if body.vnic_type not in VNIC_TYPES:
            raise bad(f"'{checks.shown(body.vnic_type)}' is not in {list(VNIC_TYPES)}")
        found["vnic_type"] = body.vnic_type
    return found


def wishes(body: PortChange) -> list[Wish] | None:
    """The addresses that a body asks for; None if it leaves them to the network."""
    if isinstance(body.fixed_ips, UnsetType) or body.fixed_ips is None:
        return None
    found = [
        Wish(fixed.subnet_id or "", checks.ip(fixed.ip_address) if fixed.ip_address else "")
        for fixed in body.fixed_ips
    ]
    checks.distinct([wish.ip for wish in found if wish.ip], "fixed_ips")
    return found


def pairs(body: PortChange) -> list[tuple[str, str]] | None:
    """(MAC or empty, prefix) for each allowed address pair; None if the body has none to set."""
    if isinstance(body.allowed_address_pairs, UnsetType):
        return None
    given = body.allowed_address_pairs or []
    if len(given) > MOST_PAIRS:
        raise BadRequest(
            f"The number of allowed address pair exceeds the maximum {MOST_PAIRS}.",
            kind="AllowedAddressPairExhausted",
        )
    found = []
    for pair in given:
        if not pair.ip_address:
            raise BadRequest("AllowedAddressPair must contain ip_address", kind="AddressPairMissingIP")
        found.append((checks.mac(pair.mac_address) if pair.mac_address else "", checks.prefix(pair.ip_address)))
    if len(set(found)) != len(found):
        raise BadRequest("Request contains duplicate address pair", kind="DuplicateAddressPairInRequest")
    return found


def dhcp_options(body: PortChange, before: Sequence[Json]) -> list[Json] | None:
    """The port's DHCP options after the body's changes: each is set, or taken away by a null value.

    Names and values end up in dnsmasq's files: no control characters, no separators in names.
    """
    if isinstance(body.extra_dhcp_opts, UnsetType):
        return None
    found = {(option["opt_name"], option["ip_version"]): option for option in before}
    for option in body.extra_dhcp_opts or []:
        if not _OPTION.fullmatch(option.opt_name):
            raise bad(f"'{checks.shown(option.opt_name)}' is not a valid DHCP option name")
        if option.ip_version not in (4, 6):
            raise bad(f"'{option.ip_version}' is not in [4, 6]: ip_version of extra_dhcp_opts")
        key = (option.opt_name, option.ip_version)
        if option.opt_value is None or option.opt_value is UNSET:
            found.pop(key, None)
        elif not option.opt_value.strip():
            raise bad(f"'{option.opt_name}' has a blank value")
        else:
            value = checks.printable(option.opt_value, "DHCP option value")
            found[key] = {"opt_name": option.opt_name, "opt_value": value, "ip_version": option.ip_version}
    return list(found.values())


def groups(tx: Transaction, request: Request, body: PortChange, project_id: str) -> list[str] | None:
    """The security groups that a body names, which the port's project may use; None if it names none."""
    if isinstance(body.security_groups, UnsetType):
        return None
    wanted = list(dict.fromkeys(body.security_groups or []))
    if not wanted:
        return []
    if "default" in wanted:
        default_group(tx, project_id)
    rows = tx.all(
        sa.select(security_groups.c.id).where(
            security_groups.c.id.in_(wanted),
            sa.true() if request.context.admin else sharing.usable_by(security_groups, project_id),
        )
    )
    missing = set(wanted) - {row.id for row in rows}
    if missing:
        raise NotFound(f"Security group {checks.shown(min(missing))} does not exist", kind="SecurityGroupNotFound")
    return wanted


def check_security(security: bool, has_groups: bool, has_pairs: bool, *, switched_off: bool = False) -> None:
    """Groups and pairs mean nothing to a port that is not filtered."""
    if security:
        return
    if has_groups and switched_off:
        raise Conflict(
            "Port has security group associated. Cannot disable port security or IP address until security group "
            "is removed.",
            kind="PortSecurityPortHasSecurityGroup",
        )
    if has_groups:
        raise BadRequest(
            "Port security must be enabled and port must have an IP address in order to use security groups.",
            kind="PortSecurityAndIPRequiredForSecurityGroups",
        )
    if has_pairs:
        raise Conflict(
            "Port Security must be enabled in order to have allowed address pairs on a port.",
            kind="AddressPairAndPortSecurityRequired",
        )
