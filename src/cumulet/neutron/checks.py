"""What text from a user may be: addresses, prefixes, MACs, host names, options for dnsmasq.

Everything that reaches an agent's configuration passes here first and leaves in one canonical form, so that no
agent ever sees a newline, a zone index or a prefix that its tool would refuse (OSSA-2014-014, -2019-001,
-2021-005).  Each function raises BadRequest with the offending value.
"""

import re
from collections.abc import Iterable, Sequence
from ipaddress import ip_address, ip_interface, ip_network
from typing import Annotated

from msgspec import Meta

from cumulet.core.errors import BadRequest
from cumulet.neutron import ipam

NameText = Annotated[str, Meta(max_length=255)]
IdText = Annotated[str, Meta(max_length=64)]
Tag = Annotated[str, Meta(min_length=1, max_length=255)]
MOST_TAGS = 50
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.IGNORECASE)
_PREFIX = re.compile(r"[0-9a-fA-F.:]{2,39}(/[0-9]{1,3})?")


def bad(message: str, kind: str = "InvalidInput") -> BadRequest:
    return BadRequest(f"Invalid input for operation: {message}.", kind=kind)


def ip(text: str, version: int = 0) -> str:
    """An address in canonical form; without a zone index."""
    try:
        if "%" in text or "/" in text:
            raise ValueError
        address = ip_address(text)
    except ValueError:
        raise bad(f"'{shown(text)}' is not a valid IP address") from None
    if version and address.version != version:
        raise bad(f"'{address}' is not a valid IPv{version} address")
    return str(address)


def prefix(text: str, *, strict: bool = False, mask: bool = False) -> str:
    """A prefix in canonical form.  ``strict``: no bits beyond it; ``mask``: its length must be given."""
    try:
        if not _PREFIX.fullmatch(text) or (mask and "/" not in text):
            raise ValueError
        network = ip_network(text, strict=False)
    except ValueError:
        raise bad(f"'{shown(text)}' is not a valid IP subnet") from None
    if strict and ip_address(text.partition("/")[0]) != network.network_address:
        raise bad(
            f"Invalid data format for subnet: '{shown(text)}' isn't a recognized IP subnet cidr, "
            f"'{network}' is recommended"
        )
    return str(network)


def prefix_with_bits(text: str) -> str:
    """A prefix as it was given, with the bits beyond it; in canonical form otherwise."""
    prefix(text)
    return ip_interface(text).with_prefixlen


def network_of(text: str) -> str:
    """The prefix alone of what ``prefix_with_bits`` gave."""
    return str(ip_network(text, strict=False))


def mac(text: str) -> str:
    """A unicast MAC address in lower case."""
    value = text.lower().replace("-", ":")
    if not _MAC.fullmatch(value) or int(value[:2], 16) & 1 or value == "00:00:00:00:00:00":
        raise bad(f"'{shown(text)}' is not a valid MAC address")
    return value


def host_name(text: str, what: str = "dns_name") -> str:
    """A host name or empty; letters, digits, hyphens and dots only (RFC 1123)."""
    name = text.rstrip(".")
    if text and (len(text) > 253 or not all(_LABEL.fullmatch(label) for label in name.split("."))):
        raise bad(f"'{shown(text)}' is not a valid {what}: it must be a PQDN or FQDN")
    return text.lower()


def domain(text: str) -> str:
    return host_name(text, "dns_domain")


def printable(text: str, what: str) -> str:
    """One line without control characters; for what ends up in another program's configuration."""
    if not text.isprintable():
        raise bad(f"'{shown(text)}' is not a valid {what}: control characters are not allowed")
    return text


def route(destination: str, nexthop: str, version: int = 0) -> dict[str, str]:
    found = {"destination": prefix(destination, mask=True), "nexthop": ip(nexthop)}
    versions = {ip_network(found["destination"]).version, ip_address(found["nexthop"]).version}
    if len(versions) != 1 or (version and versions != {version}):
        raise bad(f"destination '{shown(destination)}' and nexthop '{shown(nexthop)}' are of different IP versions")
    return found


def tags(given: Iterable[str]) -> list[str]:
    """Each once, in order of the alphabet."""
    found = sorted(set(given))
    if len(found) > MOST_TAGS:
        raise bad(f"The number of tags exceed the maximum number of tags allowed: {MOST_TAGS}")
    if any("," in tag or not tag or len(tag) > 255 for tag in found):
        raise bad("A tag has 1 to 255 characters and no comma")
    return found


def shown(text: str) -> str:
    """``text`` as it may stand in a message: bounded, one line."""
    return "".join(c if c.isprintable() else "?" for c in text[:100])


def distinct(values: Sequence[object], what: str) -> None:
    if len({str(value) for value in values}) != len(values):
        raise bad(f"Duplicate items in the list of {what}")


def usable_gateway(cidr: str, gateway: str) -> bool:
    """In the subnet and not its network or broadcast address; IPv6: link-local is good too."""
    address = ip_address(gateway)
    if address.version == 6 and address.is_link_local:
        return True
    return ipam.inside(cidr, gateway)
