"""Giving back leases of ports that are gone: dnsmasq keeps an address for its last holder, for a day.

A new port may get the address of one that was deleted; dnsmasq would refuse to serve it while the old lease
lasts.  So the lease is released in the old holder's name, by the message of RFC 2131 that a leaving client sends.
"""

import ipaddress
import secrets
import socket
import struct
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from cumulet.host import netns

_BOOTREQUEST, _ETHERNET, _COOKIE = 1, 1, bytes.fromhex("63825363")
_MESSAGE_TYPE, _SERVER_ID, _CLIENT_ID, _END = 53, 54, 61, 255
_RELEASE = 7
SERVER_PORT, CLIENT_PORT = 67, 68


class Held(NamedTuple):
    """One line of dnsmasq's lease file."""

    mac: str
    ip: str
    client_id: bytes  # empty: the client gave none


def stale(leases: Path, hosts: str) -> list[Held]:
    """The IPv4 leases that no line of ``hosts`` (dnsmasq's hosts file) grants to their holder any more."""
    granted = {(fields[0].lower(), fields[-1]) for fields in (line.split(",") for line in hosts.splitlines())}
    return [held for held in _read(leases) if (held.mac.lower(), held.ip) not in granted]


def release(namespace: str, device: str, own: Collection[str], held: Collection[Held]) -> None:
    """Tell the dnsmasq of ``namespace``, at our own addresses there, that these leases are given back."""
    servers = [ipaddress.ip_interface(address) for address in own]
    with netns.enter(namespace), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode() + b"\0")
        for one in held:
            address = ipaddress.ip_address(one.ip)
            server = next((str(found.ip) for found in servers if address in found.network), None)
            if server:
                sender.sendto(message(one, server), (server, SERVER_PORT))


def message(held: Held, server: str) -> bytes:
    """A DHCPRELEASE."""
    mac = bytes.fromhex(held.mac.replace(":", ""))
    head = struct.pack("!BBBBIHH", _BOOTREQUEST, _ETHERNET, len(mac), 0, secrets.randbits(32), 0, 0)
    addresses = socket.inet_aton(held.ip) + bytes(12)
    options = _option(_MESSAGE_TYPE, bytes((_RELEASE,))) + _option(_SERVER_ID, socket.inet_aton(server))
    if held.client_id:
        options += _option(_CLIENT_ID, held.client_id)
    return head + addresses + mac.ljust(16, b"\0") + bytes(64 + 128) + _COOKIE + options + bytes((_END,))


def _option(code: int, value: bytes) -> bytes:
    return bytes((code, len(value))) + value


def _read(leases: Path) -> Iterator[Held]:
    """The lease file: expiry, MAC, address, name, client id; IPv6 leases follow a line ``duid …``."""
    try:
        lines = leases.read_text().splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        fields = line.split()
        if fields[:1] == ["duid"]:
            return
        if len(fields) >= 5 and fields[1].count(":") == 5:
            client_id = b"" if fields[4] == "*" else bytes.fromhex(fields[4].replace(":", ""))
            yield Held(fields[1], fields[2], client_id)
