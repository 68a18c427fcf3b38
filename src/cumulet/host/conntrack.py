"""The kernel's table of connections in one namespace: look at it, and end single ones (ctnetlink).

A connection that was translated once goes on being translated after the rule is gone, because packets of a known
connection never meet the rules again. Whoever takes a translation away has to end its connections.
"""

import errno
import socket
import struct
from dataclasses import dataclass

from cumulet.host.netlink_wire import ACK, NetlinkError, NetlinkSocket, attribute, parse_attributes

_NETLINK_NETFILTER = 12
_CT_GET, _CT_DELETE = 0x101, 0x102  # subsystem 1, messages 1 and 2
_TUPLE_ORIG, _TUPLE_REPLY, _ID, _ZONE = 1, 2, 12, 18
_TUPLE_IP, _V4_SOURCE, _V4_DESTINATION = 1, 1, 2
_NESTED = 0x8000
_GENERIC = struct.pack("!BBH", socket.AF_INET, 0, 0)


@dataclass(frozen=True, slots=True)
class Connection:
    """An IPv4 connection: addresses of its first packet and of the replies; the rest is for `Conntrack.end`."""

    source: str
    destination: str
    reply_source: str
    reply_destination: str
    name: bytes  # the attributes by which the kernel finds it


class Conntrack(NetlinkSocket):
    """A ctnetlink socket of the namespace in which it was made; a context manager."""

    def __init__(self) -> None:
        super().__init__(_NETLINK_NETFILTER)

    def connections(self) -> list[Connection]:
        """Every IPv4 connection of the namespace."""
        return [_read(body) for body in self.dump(_CT_GET, _GENERIC)]

    def end(self, connection: Connection) -> bool:
        """Forget the connection, so that its next packet meets the rules; False when it ended by itself."""
        try:
            self.ask(_CT_DELETE, ACK, _GENERIC + connection.name, f"end a connection of {connection.source}")
        except NetlinkError as error:
            if error.errno == errno.ENOENT:
                return False
            raise
        return True


def _read(body: bytes) -> Connection:
    attributes = parse_attributes(body[len(_GENERIC) :])
    name = attribute(_TUPLE_ORIG | _NESTED, attributes[_TUPLE_ORIG])
    for kind in (_ID, _ZONE):
        if kind in attributes:
            name += attribute(kind, attributes[kind])
    return Connection(*_pair(attributes[_TUPLE_ORIG]), *_pair(attributes[_TUPLE_REPLY]), name)


def _pair(tuple_: bytes) -> tuple[str, str]:
    ip = parse_attributes(parse_attributes(tuple_)[_TUPLE_IP])
    return socket.inet_ntoa(ip[_V4_SOURCE]), socket.inet_ntoa(ip[_V4_DESTINATION])
