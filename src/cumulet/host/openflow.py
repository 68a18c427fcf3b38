"""OpenFlow tables of a bridge: the wanted set of flows, of which only the difference is applied.

Every flow carries a cookie made from its own text, behind a mark that says that it is ours. Comparing with what
the switch has is then a comparison of numbers; nobody need parse or normalise flow syntax, nobody need remember
anything, and flows lost in a restart of ovs-vswitchd are simply missing. Flows without the mark (those that a
`learn` action made, or another controller) are left alone.

Reading costs no process: it is one OpenFlow 1.3 statistics request on the bridge's management socket. A change,
however large, is one `ovs-ofctl bundle`: atomic, ten thousand flows a second.

What may fail: the bridge or vswitchd is away; two wanted flows have the same table, priority and match, so that
one overwrites the other (OpenFlowError names it).
"""

import hashlib
import os
import socket
import struct
import subprocess
from collections.abc import Collection
from typing import NamedTuple

from cumulet.host.device import check_name

RUN_DIR = "/var/run/openvswitch"
COOKIE_MARK = 0xC5 << 56
COOKIE_MASK = 0xFF << 56

_OFCTL = "ovs-ofctl"
_VERSION = 4  # OpenFlow 1.3
_HELLO, _ERROR, _ECHO_REQUEST, _ECHO_REPLY, _MULTIPART_REQUEST, _MULTIPART_REPLY = 0, 1, 2, 3, 18, 19
_STATISTICS_FLOW = 1
_MORE = 1
_MATCH_OXM, _MATCH_EMPTY = 1, 4
_ALL_TABLES, _ANY = 0xFF, 0xFFFFFFFF
_HEADER = struct.Struct("!BBHI")
_MULTIPART = struct.Struct("!HH4x")
_REQUEST = struct.Struct("!B3xII4xQQHH4x")
_FLOW = struct.Struct("!HB21xQ")  # length, table, ..., cookie
_CHUNK = 1 << 16
_WORDS_MAX = 1000


class OpenFlowError(Exception):
    """A bridge could not be asked, or refused flows; the message names the bridge."""


class FlowChange(NamedTuple):
    """How many flows a change added and removed."""

    added: int
    removed: int


def cookie_of(flow: str) -> int:
    """The cookie under which this flow text is installed: our mark and 56 bits of the text's digest."""
    return COOKIE_MARK | int.from_bytes(hashlib.blake2b(flow.encode(), digest_size=7).digest())


class OpenFlow:
    """The bridges of the Open vSwitch whose run directory is `run_dir`. Safe for threads, holds nothing."""

    def __init__(self, run_dir: str = RUN_DIR, timeout_seconds: float = 20.0) -> None:
        self.run_dir = run_dir
        self._timeout = timeout_seconds

    def sync_flows(self, bridge: str, wanted: Collection[str]) -> FlowChange:
        """Make the bridge's marked flows exactly these; nothing is sent when nothing differs.

        A flow is a line in ovs-ofctl's syntax without a cookie, such as `table=0,priority=1,actions=drop`. Ports
        are given by number: a name would be resolved once, and not again when the number changes.
        """
        flows = {cookie_of(flow): _check(bridge, flow) for flow in wanted}
        have = self.list_cookies(bridge)
        missing = [cookie for cookie in flows if cookie not in have]
        surplus = have - flows.keys()
        if not missing and not surplus:
            return FlowChange(0, 0)
        lines = [f"flow delete cookie={cookie:#x}/-1" for cookie in sorted(surplus)]
        lines += [f"flow add cookie={cookie:#x},{flows[cookie]}" for cookie in missing]
        self._bundle(bridge, "\n".join(lines) + "\n")
        lost = flows.keys() - self.list_cookies(bridge)
        if lost:
            raise OpenFlowError(
                f"bridge {bridge}: {len(lost)} flows are not there after they were added; another wanted flow "
                f"has the same table, priority and match as: {flows[min(lost)]}"
            )
        return FlowChange(len(missing), len(surplus))

    def list_cookies(self, bridge: str) -> set[int]:
        """The cookies of the bridge's marked flows."""
        path = self._socket_path(bridge)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as connection:
                connection.settimeout(self._timeout)
                connection.connect(path)
                return _read_cookies(connection)
        except (OSError, EOFError, struct.error) as error:
            raise OpenFlowError(f"bridge {bridge} cannot be asked for its flows at {path}: {error}") from error

    def dump(self, bridge: str) -> list[str]:
        """All flows as `ovs-ofctl dump-flows` prints them, for people and tests; spawns a process."""
        return self._ofctl(bridge, ["--no-stats", "--no-names", "dump-flows"], []).splitlines()

    def _bundle(self, bridge: str, text: str) -> None:
        self._ofctl(bridge, ["--no-names", "bundle"], ["-"], text)

    def _ofctl(self, bridge: str, before: list[str], after: list[str], text: str = "") -> str:
        argv = [_OFCTL, "-O", "OpenFlow14", *before, f"unix:{self._socket_path(bridge)}", *after]
        env = {**os.environ, "OVS_RUNDIR": self.run_dir}
        try:
            done = subprocess.run(
                argv, env=env, input=text, capture_output=True, text=True, timeout=self._timeout, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise OpenFlowError(f"bridge {bridge} does not answer {_OFCTL}") from error
        except OSError as error:
            raise OpenFlowError(f"bridge {bridge}: {_OFCTL}: {error.strerror}") from error
        if done.returncode:
            raise OpenFlowError(f"bridge {bridge}: {done.stderr.strip()[:_WORDS_MAX]}")
        return done.stdout

    def _socket_path(self, bridge: str) -> str:
        return os.path.join(self.run_dir, f"{check_name(bridge)}.mgmt")


def _check(bridge: str, flow: str) -> str:
    match, actions, _ = flow.partition("actions=")
    if not actions or "\n" in flow or "cookie=" in match or not flow.isprintable() or flow != flow.strip():
        raise OpenFlowError(f"bridge {bridge}: not one flow in ovs-ofctl syntax without a cookie: {flow!r}")
    return flow


def _read_cookies(connection: socket.socket) -> set[int]:
    """One OFPMP_FLOW request for all flows with our mark (OpenFlow 1.3.5, 7.3.5.2)."""
    request = _REQUEST.pack(_ALL_TABLES, _ANY, _ANY, COOKIE_MARK, COOKIE_MASK, _MATCH_OXM, _MATCH_EMPTY)
    body = _MULTIPART.pack(_STATISTICS_FLOW, 0) + request
    hello = _HEADER.pack(_VERSION, _HELLO, _HEADER.size, 1)
    connection.sendall(hello + _HEADER.pack(_VERSION, _MULTIPART_REQUEST, _HEADER.size + len(body), 2) + body)
    cookies: set[int] = set()
    buffer = bytearray()
    while True:
        kind, transaction, data = _receive(connection, buffer)
        if kind == _ECHO_REQUEST:
            connection.sendall(_HEADER.pack(_VERSION, _ECHO_REPLY, _HEADER.size + len(data), transaction) + data)
        elif kind == _ERROR:
            raise OSError(f"OpenFlow error {data[:4].hex()}")
        elif kind == _MULTIPART_REPLY:
            _, flags = _MULTIPART.unpack_from(data)
            at = _MULTIPART.size
            while at < len(data):
                length, _, cookie = _FLOW.unpack_from(data, at)
                cookies.add(cookie)
                at += length
            if not flags & _MORE:
                return cookies


def _receive(connection: socket.socket, buffer: bytearray) -> tuple[int, int, bytes]:
    """The next OpenFlow message: (type, transaction, body)."""
    while True:
        if len(buffer) >= _HEADER.size:
            _, kind, length, transaction = _HEADER.unpack_from(buffer)
            if len(buffer) >= length:
                body = bytes(buffer[_HEADER.size : length])
                del buffer[:length]
                return kind, transaction, body
        data = connection.recv(_CHUNK)
        if not data:
            raise EOFError("the connection was closed")
        buffer += data
