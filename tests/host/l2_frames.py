"""Frames made by hand, true ones and false."""

import socket
import struct

ARP, IPV4, IPV6 = 0x0806, 0x0800, 0x86DD
BROADCAST = "ff:ff:ff:ff:ff:ff"
EVERYBODY6, EVERYBODY6_MAC = "ff02::1", "33:33:00:00:00:01"
MARK = b"a-mark-that-nobody-else-sends"


def octets(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def packed(ip: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in ip else socket.AF_INET, ip)


def frame(to: str, source: str, kind: int, body: bytes, tag: int | None = None) -> bytes:
    vlan = b"" if tag is None else struct.pack("!HH", 0x8100, tag)
    return octets(to) + octets(source) + vlan + struct.pack("!H", kind) + body


def arp(op: int, sha: str, spa: str, tha: str, tpa: str) -> bytes:
    return struct.pack("!HHBBH", 1, 0x0800, 6, 4, op) + octets(sha) + packed(spa) + octets(tha) + packed(tpa)


def checksum(data: bytes) -> int:
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ipv4(source: str, to: str, protocol: int, body: bytes, fragment: int = 0, ident: int = 7) -> bytes:
    """``fragment``: the flags and offset word."""
    words = (0x45, 0, 20 + len(body), ident, fragment, 64, protocol)
    head = struct.pack("!BBHHHBBH", *words, 0) + packed(source) + packed(to)
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + body


def ipv6(source: str, to: str, protocol: int, body: bytes, hops: int = 255) -> bytes:
    return struct.pack("!IHBB", 6 << 28, len(body), protocol, hops) + packed(source) + packed(to) + body


def udp(source: str, to: str, sport: int, dport: int, data: bytes) -> bytes:
    head = struct.pack("!HHHH", sport, dport, 8 + len(data), 0)
    pseudo = packed(source) + packed(to) + struct.pack("!IHBB", 8 + len(data), 0, 0, 17)
    if ":" not in source:
        pseudo = packed(source) + packed(to) + struct.pack("!BBH", 0, 17, 8 + len(data))
    return head[:6] + struct.pack("!H", checksum(pseudo + head + data) or 0xFFFF) + data


def icmp6(source: str, to: str, kind: int, body: bytes) -> bytes:
    pseudo = packed(source) + packed(to) + struct.pack("!II", 4 + len(body), 58)
    data = struct.pack("!BBH", kind, 0, 0) + body
    return data[:2] + struct.pack("!H", checksum(pseudo + data)) + data[4:]
