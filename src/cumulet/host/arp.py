"""Announcements of an address: gratuitous ARP (RFC 5227) and unsolicited neighbour advertisement (RFC 4861).

Without them the neighbours keep sending to the hardware address that had the address before, until their
caches age. Both are sent in the calling thread's namespace and are harmless when repeated; and worth repeating,
for a device that was just brought up may hear no IPv6 multicast for up to a second.
"""

import socket
import struct
from collections.abc import Iterable
from typing import NamedTuple

from cumulet.host.device import check_name

_ETH_ARP = 0x0806
_ETH_IPV6 = 0x86DD
_BROADCAST = b"\xff" * 6
_ALL_NODES_MAC = bytes.fromhex("333300000001")
_ALL_NODES = socket.inet_pton(socket.AF_INET6, "ff02::1")
_ARP_REQUEST = 1
_NA_TYPE = 136
_NA_OVERRIDE = 0x20000000
_NA_ROUTER = 0x80000000
_OPTION_TARGET_MAC = 2
_HOP_LIMIT = 255


class AnnounceError(OSError):
    """An announcement could not be sent."""


class News(NamedTuple):
    """On the link behind `dev`, `address` (IPv4 or IPv6, no prefix) is now at `mac`."""

    dev: str
    address: str
    mac: str


def announce(dev: str, address: str, mac: str, *, router: bool = False, count: int = 1) -> None:
    """Tell the link behind `dev` that `address` is now at `mac`."""
    announce_all([News(dev, address, mac)] * count, router=router)


def announce_all(news: Iterable[News], *, router: bool = False) -> None:
    """Announce all of it through one socket: closing such a socket takes the kernel some 10 ms."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:  # protocol 0: never receives
        for one in news:
            try:
                raw = bytes.fromhex(one.mac.replace(":", ""))
                if len(raw) != 6:
                    raise ValueError("not six octets")
                v6 = ":" in one.address
                frame = (
                    neighbour_advertisement(one.address, raw, router) if v6 else gratuitous_arp(one.address, raw)
                )
                sender.sendto(frame, (check_name(one.dev), _ETH_IPV6 if v6 else _ETH_ARP))
            except ValueError as error:
                raise AnnounceError(f"announce {one.address} at {one.mac}: {error}") from error
            except OSError as error:
                words = f"announce {one.address} on {one.dev}: {error.strerror or error}"
                raise AnnounceError(error.errno, words) from error


def gratuitous_arp(address: str, mac: bytes) -> bytes:
    """The Ethernet frame of an ARP announcement: a request in which sender and target address are the same."""
    ip = socket.inet_pton(socket.AF_INET, address)
    header = _BROADCAST + mac + struct.pack("!HHHBBH", _ETH_ARP, 1, 0x0800, 6, 4, _ARP_REQUEST)
    return header + mac + ip + _BROADCAST + ip


def neighbour_advertisement(address: str, mac: bytes, router: bool) -> bytes:
    """The Ethernet frame of an unsolicited neighbour advertisement to all nodes, with the override flag."""
    ip = socket.inet_pton(socket.AF_INET6, address)
    flags = _NA_OVERRIDE | (_NA_ROUTER if router else 0)
    rest = struct.pack("!I", flags) + ip + bytes((_OPTION_TARGET_MAC, 1)) + mac
    length = 4 + len(rest)
    pseudo = ip + _ALL_NODES + struct.pack("!II", length, socket.IPPROTO_ICMPV6)
    total = _sum16(pseudo + bytes((_NA_TYPE, 0, 0, 0)) + rest)
    icmp = struct.pack("!BBH", _NA_TYPE, 0, ~total & 0xFFFF) + rest
    header = struct.pack("!IHBB", 6 << 28, length, socket.IPPROTO_ICMPV6, _HOP_LIMIT) + ip + _ALL_NODES
    return _ALL_NODES_MAC + mac + struct.pack("!H", _ETH_IPV6) + header + icmp


def _sum16(data: bytes) -> int:
    """The one's complement sum of 16-bit words (RFC 1071); `data` has even length."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total
