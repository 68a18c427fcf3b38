"""What a security group rule may say.  Pure.

Only rules that every agent can carry out get through (OSSA-2014-014, -2019-001, -2019-002): a known protocol, a
prefix and a protocol of the rule's IP version, ports where the protocol has ports, types where it has types.
"""

from ipaddress import ip_interface
from typing import Any, Literal

from msgspec import UNSET, UnsetType

from cumulet.core.errors import BadRequest
from cumulet.core.schema import Strict
from cumulet.neutron import checks
from cumulet.neutron.checks import IdText, NameText

PROTOCOLS = {
    "ah": 51,
    "dccp": 33,
    "egp": 8,
    "esp": 50,
    "gre": 47,
    "hopopt": 0,
    "icmp": 1,
    "icmpv6": 58,
    "igmp": 2,
    "ip": 0,
    "ipip": 4,
    "ipv6-encap": 41,
    "ipv6-frag": 44,
    "ipv6-icmp": 58,
    "ipv6-nonxt": 59,
    "ipv6-opts": 60,
    "ipv6-route": 43,
    "ospf": 89,
    "pgm": 113,
    "rsvp": 46,
    "sctp": 132,
    "tcp": 6,
    "udp": 17,
    "udplite": 136,
    "vrrp": 112,
}
WITH_PORTS = frozenset({6, 17, 33, 132, 136})
ICMP, ICMP6 = 1, 58
ONLY_IPV6 = frozenset({41, 43, 44, 58, 59, 60})


class RuleFields(Strict, kw_only=True):
    """What every rule says, those that new groups begin with too."""

    direction: Literal["ingress", "egress"]
    ethertype: str | UnsetType | None = UNSET
    protocol: str | int | UnsetType | None = UNSET
    port_range_min: int | UnsetType | None = UNSET
    port_range_max: int | UnsetType | None = UNSET
    remote_ip_prefix: str | UnsetType | None = UNSET
    remote_group_id: IdText | UnsetType | None = UNSET
    description: NameText | UnsetType | None = UNSET


def rule_values(body: RuleFields) -> dict[str, Any]:
    """The columns of a rule from a body; BadRequest with upstream's reason where it makes no sense."""
    ethertype = {"ipv4": "IPv4", "ipv6": "IPv6"}.get((body.ethertype or "IPv4").lower())
    if ethertype is None:
        raise BadRequest(
            f"Security group rule for ethertype '{checks.shown(str(body.ethertype))}' not supported. "
            "Allowed values are ['IPv4', 'IPv6'].",
            kind="SecurityGroupRuleInvalidEtherType",
        )
    protocol, number = _protocol(body.protocol or None, ethertype)
    first, last = (None if value is UNSET else value for value in (body.port_range_min, body.port_range_max))
    for value in (first, last):
        if value is not None and not 0 <= value <= 65535:
            raise _bad_port(value)
    _check_ports(protocol, number, first, last)
    return {
        "direction": body.direction,
        "ethertype": ethertype,
        "protocol": protocol,
        "protocol_number": number,
        "port_min": first,
        "port_max": last,
        "remote_prefix": _prefix(body.remote_ip_prefix or None, ethertype),
        "remote_group_id": body.remote_group_id or None,
    }


def _protocol(given: str | int | None, ethertype: str) -> tuple[str | None, int | None]:
    """The protocol as it is shown, and its number."""
    if given is None or given == "any":
        return None, None
    name = str(given).lower()
    number = PROTOCOLS.get(name)
    if number is None:
        if not (name.isascii() and name.isdigit() and len(name) <= 3 and int(name) <= 255):
            raise BadRequest(
                f"Security group rule protocol {checks.shown(name)} not supported. Only protocol values "
                f"[{', '.join(PROTOCOLS)}] and integer representations [0 to 255] are supported.",
                kind="SecurityGroupRuleInvalidProtocol",
            )
        number = int(name)
        name = str(number)
    if ethertype == "IPv6" and number == ICMP:
        name, number = "ipv6-icmp", ICMP6
    if ethertype == "IPv4" and number in ONLY_IPV6:
        raise BadRequest(
            f"Invalid ethertype {ethertype} for protocol {name}.", kind="SecurityGroupEthertypeConflictWithProtocol"
        )
    return name, number


def _check_ports(protocol: str | None, number: int | None, first: int | None, last: int | None) -> None:
    if first is None and last is None:
        return
    if number is None:
        raise BadRequest(
            "Must also specify protocol if port range is given.", kind="SecurityGroupProtocolRequiredWithPorts"
        )
    if number in (ICMP, ICMP6):
        _check_icmp(first, last)
    elif number in WITH_PORTS:
        if 0 in (first, last):
            raise _bad_port(0)
        if first is None or last is None or first > last:
            raise BadRequest(
                "For TCP/UDP protocols, port_range_min must be <= port_range_max",
                kind="SecurityGroupInvalidPortRange",
            )
    else:
        raise BadRequest(
            f"Invalid protocol {protocol} for port range, only supported for TCP, UDP, UDPLITE, SCTP and DCCP.",
            kind="SecurityGroupInvalidProtocolForPort",
        )


def _bad_port(value: int) -> BadRequest:
    return BadRequest(f"Invalid value for port {value}", kind="SecurityGroupInvalidPortValue")


def _check_icmp(kind: int | None, code: int | None) -> None:
    for what, value in (("type (port_range_min)", kind), ("code (port_range_max)", code)):
        if value is not None and not 0 <= value <= 255:
            raise BadRequest(
                f"Invalid value for ICMP {what} {value}. It must be 0 to 255.", kind="SecurityGroupInvalidIcmpValue"
            )
    if kind is None:
        raise BadRequest(
            f"ICMP code (port-range-max) {code} is provided but ICMP type (port-range-min) is missing.",
            kind="SecurityGroupMissingIcmpType",
        )


def _prefix(text: str | None, ethertype: str) -> str | None:
    if text is None:
        return None
    try:
        prefix = checks.prefix_with_bits(text)
    except BadRequest as wrong:
        raise BadRequest(
            f"CIDR {checks.shown(text)} not valid for remote_ip_prefix.", kind="InvalidCIDR"
        ) from wrong
    if ip_interface(prefix).version != (4 if ethertype == "IPv4" else 6):
        raise BadRequest(
            f"Conflicting value ethertype {ethertype} for CIDR {prefix}", kind="SecurityGroupRuleParameterConflict"
        )
    return prefix
