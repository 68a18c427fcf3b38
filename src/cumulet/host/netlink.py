"""Links, addresses, routes and neighbours by rtnetlink, without spawning `ip`.

A `Netlink` is one socket, bound for its life to the namespace in which it was made:
`with netns.enter(name), Netlink() as netlink: ...`. One thread at a time uses it. An operation costs some
20 microseconds; a spawned `ip` costs 4 milliseconds.

What may fail: a device disappears between a look and a change (ENODEV). The next pass sees it.
"""

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

from cumulet.host import netns
from cumulet.host.device import DeviceError, check_name, checksum_off, create_tap
from cumulet.host.netlink_wire import (
    ACK,
    CREATE,
    EXCL,
    REPLACE,
    NetlinkError,
    NetlinkSocket,
    attribute,
    parse_attributes,
    parse_text,
)

__all__ = ["DeviceError", "Link", "Netlink", "NetlinkError", "Route", "checksum_off", "create_tap"]

_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETLINK = 16, 17, 18
_RTM_NEWADDR, _RTM_DELADDR, _RTM_GETADDR = 20, 21, 22
_RTM_NEWROUTE, _RTM_DELROUTE, _RTM_GETROUTE = 24, 25, 26
_RTM_DELNEIGH, _RTM_GETNEIGH = 29, 30
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_MASTER = 1, 3, 4, 5, 10
_IFLA_LINKINFO, _IFLA_NET_NS_FD, _IFLA_LINK_NETNSID = 18, 28, 37
_INFO_KIND, _INFO_DATA, _VETH_PEER = 1, 2, 1
_IFA_ADDRESS, _IFA_LOCAL, _IFA_CACHEINFO, _IFA_F_NODAD, _IFA_F_DEPRECATED = 1, 2, 6, 0x02, 0x20
_FOREVER = 0xFFFFFFFF
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_TABLE = 1, 4, 5, 6, 15
_NDA_DST = 1
_NUD_PERMANENT_NOARP = 0x80 | 0x40
_TABLE_MAIN, _PROTO_KERNEL, _PROTO_STATIC, _UNICAST, _SCOPE_LINK = 254, 2, 4, 1, 253
_ROUTE_CLONED = 0x200
_IFF_UP = 1
_V6_DEFAULT_METRIC = 1024

_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")
_NEIGHBOUR = struct.Struct("=BxxxiHBB")
_U32 = struct.Struct("=I")
_LIFETIMES = struct.Struct("=IIII")  # preferred, valid, created, updated


@dataclass(frozen=True, slots=True)
class Link:
    """A network device. `peer_index` is a veth's other end, in the namespace `peer_netnsid` (None: this one)."""

    index: int
    name: str
    mac: str
    mtu: int
    up: bool
    kind: str  # veth, tun, bridge, ...; "" for hardware
    master: int | None
    peer_index: int | None
    peer_netnsid: int | None


class Route(NamedTuple):
    """A unicast route of the main table. `destination` is a prefix, `via` None is on-link, metric 0 the default."""

    destination: str
    dev: str
    via: str | None = None
    metric: int = 0


def _mac_bytes(mac: str) -> bytes:
    raw = bytes.fromhex(mac.replace(":", ""))
    if len(raw) != 6:
        raise NetlinkError(errno.EINVAL, f"bad hardware address {mac!r}")
    return raw


def _parse(address: str) -> tuple[int, bytes, int]:
    """(family, packed, prefix length) of `ip` or `ip/length`."""
    text, _, length = address.partition("/")
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    try:
        packed = socket.inet_pton(family, text)
        bits = int(length) if length else len(packed) * 8
    except (OSError, ValueError):
        bits = -1
    if not 0 <= bits <= (128 if family == socket.AF_INET6 else 32):
        raise NetlinkError(errno.EINVAL, f"bad address {address!r}")
    return family, packed, bits


def _format(family: int, packed: bytes, bits: int) -> str:
    return f"{socket.inet_ntop(family, packed)}/{bits}"


def _normal(route: Route) -> Route:
    family, packed, bits = _parse(route.destination)
    via = socket.inet_ntop(family, _parse(route.via)[1]) if route.via else None
    metric = route.metric or (_V6_DEFAULT_METRIC if family == socket.AF_INET6 else 0)
    return Route(_format(family, packed, bits), route.dev, via, metric)


class Netlink(NetlinkSocket):
    """An rtnetlink socket of the namespace in which it was made; a context manager."""

    # -- links

    def links(self) -> dict[str, Link]:
        """Every device of the namespace by name."""
        found = (_read_link(body) for body in self.dump(_RTM_GETLINK, _LINK.pack(0, 0, 0, 0, 0)))
        return {link.name: link for link in found}

    def find_link(self, dev: str) -> Link | None:
        body = _LINK.pack(0, 0, 0, 0, 0) + attribute(_IFLA_IFNAME, check_name(dev).encode() + b"\0")
        try:
            return _read_link(self.ask(_RTM_GETLINK, 0, body, f"look at {dev}")[0])
        except NetlinkError as error:
            if error.errno == errno.ENODEV:
                return None
            raise

    def ensure_veth(
        self,
        name: str,
        peer: str,
        peer_netns: str | None = None,
        mtu: int | None = None,
        mac: str | None = None,
        peer_mac: str | None = None,
    ) -> bool:
        """A veth pair, `peer` being in the namespace `peer_netns` (None: this one); True when it was made.

        A pair that is there gets its MTU and hardware addresses set. When `name` is another kind of device or
        leads elsewhere this raises EEXIST: recreating it under a live switch port would deafen the port, so the
        caller first deletes the port, then the link.
        """
        link = self.find_link(name)
        if link is None:
            self._create_veth(name, peer, peer_netns, mtu, mac, peer_mac)
            return True
        self._match(link, mtu, mac)
        with contextlib.ExitStack() as stack:
            there: Netlink = self
            if peer_netns is not None:
                stack.enter_context(netns.enter(peer_netns))
                there = stack.enter_context(Netlink())
            other = there.find_link(peer)
            if (
                link.kind != "veth"
                or other is None
                or other.index != link.peer_index
                or other.peer_index != link.index
            ):
                place = f" in {peer_netns}" if peer_netns else ""
                raise NetlinkError(errno.EEXIST, f"device {name} is there but does not lead to {peer}{place}")
            there._match(other, mtu, peer_mac)
        return False

    def delete_link(self, dev: str) -> bool:
        """Delete the device (and a veth's other end); False when there is none."""
        body = _LINK.pack(0, 0, 0, 0, 0) + attribute(_IFLA_IFNAME, check_name(dev).encode() + b"\0")
        try:
            self.ask(_RTM_DELLINK, ACK, body, f"delete {dev}")
        except NetlinkError as error:
            if error.errno == errno.ENODEV:
                return False
            raise
        return True

    def set_up(self, dev: str) -> None:
        self._set_link(dev, f"bring {dev} up", flags=_IFF_UP, change=_IFF_UP)

    def set_down(self, dev: str) -> None:
        self._set_link(dev, f"bring {dev} down", flags=0, change=_IFF_UP)

    def set_mtu(self, dev: str, mtu: int) -> None:
        self._set_link(dev, f"set MTU {mtu} of {dev}", attribute(_IFLA_MTU, _U32.pack(mtu)))

    def set_mac(self, dev: str, mac: str) -> None:
        self._set_link(dev, f"set hardware address {mac} of {dev}", attribute(_IFLA_ADDRESS, _mac_bytes(mac)))

    def _match(self, link: Link, mtu: int | None, mac: str | None) -> None:
        if mtu is not None and link.mtu != mtu:
            self.set_mtu(link.name, mtu)
        if mac is not None and link.mac != mac.lower():
            self.set_mac(link.name, mac)

    def _create_veth(
        self,
        name: str,
        peer: str,
        peer_netns: str | None,
        mtu: int | None,
        mac: str | None,
        peer_mac: str | None,
    ) -> None:
        size = attribute(_IFLA_MTU, _U32.pack(mtu)) if mtu else b""
        near = attribute(_IFLA_IFNAME, check_name(name).encode() + b"\0") + size
        far = attribute(_IFLA_IFNAME, check_name(peer).encode() + b"\0") + size
        if mac:
            near += attribute(_IFLA_ADDRESS, _mac_bytes(mac))
        if peer_mac:
            far += attribute(_IFLA_ADDRESS, _mac_bytes(peer_mac))
        with contextlib.ExitStack() as stack:
            if peer_netns is not None:
                with netns.enter(peer_netns):
                    fd = netns.open_current()
                stack.callback(os.close, fd)
                far += attribute(_IFLA_NET_NS_FD, _U32.pack(fd))
            data = attribute(_VETH_PEER, _LINK.pack(0, 0, 0, 0, 0) + far)
            info = attribute(_INFO_KIND, b"veth") + attribute(_INFO_DATA, data)
            body = _LINK.pack(0, 0, 0, 0, 0) + near + attribute(_IFLA_LINKINFO, info)
            self.ask(_RTM_NEWLINK, ACK | CREATE | EXCL, body, f"make veth {name} to {peer}")

    def _set_link(self, dev: str, what: str, attributes: bytes = b"", flags: int = 0, change: int = 0) -> None:
        body = _LINK.pack(0, 0, 0, flags, change) + attribute(_IFLA_IFNAME, check_name(dev).encode() + b"\0")
        self.ask(_RTM_NEWLINK, ACK, body + attributes, what)

    def _index(self, dev: str) -> int:
        link = self.find_link(dev)
        if link is None:
            raise NetlinkError(errno.ENODEV, f"no device {dev}")
        return link.index

    # -- addresses

    def addresses(self, dev: str) -> set[str]:
        """The device's addresses, IPv4 and IPv6, as `address/length`; link-local ones too."""
        return set(self._addresses(dev))

    def _addresses(self, dev: str) -> dict[str, int]:
        """The device's addresses with their flags."""
        index, found = self._index(dev), {}
        for body in self.dump(_RTM_GETADDR, _ADDRESS.pack(0, 0, 0, 0, 0)):
            family, bits, flags, _, at = _ADDRESS.unpack_from(body)
            if at == index and family in (socket.AF_INET, socket.AF_INET6):
                attributes = parse_attributes(body[_ADDRESS.size :])
                found[_format(family, attributes.get(_IFA_LOCAL) or attributes[_IFA_ADDRESS], bits)] = flags
        return found

    def ensure_addresses(
        self,
        dev: str,
        wanted: Collection[str],
        exact: bool = True,
        passive: Collection[str] = (),
        link_local: bool = True,
    ) -> bool:
        """Give the device these addresses (IPv6 without duplicate detection); True when something changed.

        `exact` takes all others away, IPv6 link-local ones only if not `link_local`. From `passive` ones (IPv6)
        the kernel sends nothing by its own choice. It drops routes with an address: ensure routes afterwards.
        """
        want = {_format(*_parse(address)) for address in wanted}
        index, have = self._index(dev), self._addresses(dev)
        kept = "fe80:" if link_local else "-"
        surplus = {address for address in have.keys() - want if not address.startswith(kept)} if exact else set()
        for address in surplus:
            try:
                self._change_address(_RTM_DELADDR, 0, index, address, f"delete {address} from {dev}")
            except NetlinkError as error:
                if error.errno != errno.EADDRNOTAVAIL:  # it went with the primary address of its subnet
                    raise
        if surplus:
            have = self._addresses(dev)
        quiet = {_format(*_parse(address)) for address in passive}
        lacking = want - have.keys()
        lacking |= {one for one in want & quiet if one in have and not have[one] & _IFA_F_DEPRECATED}
        for address in sorted(lacking):
            what = f"add {address} to {dev}"
            self._change_address(_RTM_NEWADDR, CREATE | REPLACE, index, address, what, passive=address in quiet)
        return bool(surplus or lacking)

    def _change_address(
        self, kind: int, flags: int, index: int, address: str, what: str, passive: bool = False
    ) -> None:
        family, packed, bits = _parse(address)
        nodad = _IFA_F_NODAD if family == socket.AF_INET6 else 0
        body = _ADDRESS.pack(family, bits, nodad, 0, index)
        body += attribute(_IFA_LOCAL, packed) + attribute(_IFA_ADDRESS, packed)
        if passive:
            body += attribute(_IFA_CACHEINFO, _LIFETIMES.pack(0, _FOREVER, 0, 0))
        self.ask(kind, ACK | flags, body, what)

    # -- routes

    def routes(self, kernel: bool = False) -> set[Route]:
        """The unicast routes of the main table, v4 and v6; the kernel's own (connected) ones only if asked for."""
        names = {link.index: link.name for link in self.links().values()}
        found = set()
        for body in self.dump(_RTM_GETROUTE, _ROUTE.pack(0, 0, 0, 0, 0, 0, 0, 0, 0)):
            family, bits, _, _, table, proto, _, kind, flags = _ROUTE.unpack_from(body)
            attributes = parse_attributes(body[_ROUTE.size :])
            table = _U32.unpack(attributes[_RTA_TABLE])[0] if _RTA_TABLE in attributes else table
            if table != _TABLE_MAIN or kind != _UNICAST or flags & _ROUTE_CLONED or _RTA_OIF not in attributes:
                continue
            if family not in (socket.AF_INET, socket.AF_INET6) or (proto == _PROTO_KERNEL and not kernel):
                continue
            size = 16 if family == socket.AF_INET6 else 4
            gateway = attributes.get(_RTA_GATEWAY)
            found.add(
                Route(
                    _format(family, attributes.get(_RTA_DST, bytes(size)), bits),
                    names.get(_U32.unpack(attributes[_RTA_OIF])[0], ""),
                    socket.inet_ntop(family, gateway) if gateway else None,
                    _U32.unpack(attributes.get(_RTA_PRIORITY, bytes(4)))[0],
                )
            )
        return found

    def ensure_route(self, route: Route) -> bool:
        """Have this route, in place of one with the same destination and metric; True when something changed."""
        route = _normal(route)
        if route in self.routes():
            return False
        self._change_route(_RTM_NEWROUTE, CREATE | REPLACE, route, f"add {route}")
        return True

    def delete_route(self, route: Route) -> bool:
        """Delete the route; False when there is none."""
        route = _normal(route)
        try:
            self._change_route(_RTM_DELROUTE, 0, route, f"delete {route}")
        except NetlinkError as error:
            if error.errno == errno.ESRCH:
                return False
            raise
        return True

    def _change_route(self, kind: int, flags: int, route: Route, what: str) -> None:
        family, packed, bits = _parse(route.destination)
        scope = _SCOPE_LINK if route.via is None and family == socket.AF_INET else 0
        body = _ROUTE.pack(family, bits, 0, 0, _TABLE_MAIN, _PROTO_STATIC, scope, _UNICAST, 0)
        body += attribute(_RTA_DST, packed) if bits else b""
        body += attribute(_RTA_OIF, _U32.pack(self._index(route.dev)))
        body += attribute(_RTA_GATEWAY, _parse(route.via)[1]) if route.via else b""
        body += attribute(_RTA_PRIORITY, _U32.pack(route.metric)) if route.metric else b""
        self.ask(kind, ACK | flags, body, what)

    # -- neighbours

    def flush_neighbours(self, dev: str) -> int:
        """Forget every learned neighbour of the device; how many there were."""
        index, count = self._index(dev), 0
        for body in self.dump(_RTM_GETNEIGH, _NEIGHBOUR.pack(0, 0, 0, 0, 0)):
            family, at, state, _, _ = _NEIGHBOUR.unpack_from(body)
            address = parse_attributes(body[_NEIGHBOUR.size :]).get(_NDA_DST)
            if at != index or address is None or state & _NUD_PERMANENT_NOARP:
                continue
            request = _NEIGHBOUR.pack(family, index, 0, 0, 0) + attribute(_NDA_DST, address)
            try:
                self.ask(_RTM_DELNEIGH, ACK, request, f"forget a neighbour of {dev}")
            except NetlinkError as error:
                if error.errno != errno.ENOENT:  # it aged meanwhile
                    raise
            count += 1
        return count


def _read_link(body: bytes) -> Link:
    _, _, index, flags, _ = _LINK.unpack_from(body)
    attributes = parse_attributes(body[_LINK.size :])
    info = parse_attributes(attributes.get(_IFLA_LINKINFO, b""))

    def number(kind: int) -> int | None:
        return _U32.unpack(attributes[kind])[0] if kind in attributes else None

    return Link(
        index=index,
        name=parse_text(attributes[_IFLA_IFNAME]),
        mac=attributes.get(_IFLA_ADDRESS, b"").hex(":"),
        mtu=number(_IFLA_MTU) or 0,
        up=bool(flags & _IFF_UP),
        kind=parse_text(info.get(_INFO_KIND, b"")),
        master=number(_IFLA_MASTER),
        peer_index=number(_IFLA_LINK),
        peer_netnsid=number(_IFLA_LINK_NETNSID),
    )
