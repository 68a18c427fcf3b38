"""What is heard of a lab's guests while a campaign breaks things: pings of floating IPs, from outside of the cloud.

Watched is every server that answers when a campaign begins; if there is none, it makes one, the witness.  They are
none of the campaign's users' business, so that whatever is not broken under them must leave them alone: a server
that is silent for longer than a busy machine takes to answer is found ``silent``.  Excused is who is told of so: a
server whose own node, or a node with routers, has lost its power or its switch.  When all else is well again it
has to answer.
"""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

from cumulet.cli import lab
from cumulet.cli.lab import Lab
from cumulet.cli.lab_wiring import OUTSIDE
from cumulet.core import topology as topologies
from cumulet.core.errors import Retry
from cumulet.host import machine
from cumulet.sim.promises import Cloud, get, list_servers
from cumulet.sim.report import Report

WITNESS = "chaos-witness"
UNDISTURBED_SECONDS = 5.0
"""Longer than a busy machine takes to answer, shorter than what would make a user ask."""
WITNESS_SECONDS, LOOK_SECONDS = 300.0, 1.0
SWITCH, ROUTING = frozenset({"ovs-vswitchd", "ovsdb-server"}), "neutron-l3-agent"
SENT = re.compile(r"(\d+) packets transmitted, (\d+) received.*, time (\d+)ms")
ANSWERED = re.compile(r"^\[([0-9.]+)\] \d+ bytes from", re.M)


@dataclass(frozen=True)
class Watched:
    server: str
    host: str
    address: str


@dataclass
class Traffic:
    """``begin`` and ``end`` surround each round; ``leave`` takes away what ``find`` made."""

    lab: Lab
    cloud: Cloud
    watched: list[Watched] = field(default_factory=list)
    _made: list[tuple[str, str]] = field(default_factory=list)  # service and path, the latest first
    _excused: set[str] = field(default_factory=set)  # nodes that lost power or switch in this round
    _pings: list[tuple[Watched, "subprocess.Popen[bytes]", int]] = field(default_factory=list)

    def find(self) -> None:
        """Whom to watch.  Retry if a witness was made, and does not answer."""
        self.watched = [one for one in self._addressed() if self._answers(one)]
        if not self.watched:
            server = self._make()
            self.watched = [one for one in self._addressed() if one.server == server]
            _wait("the witness does not answer", lambda: not list(self.dumb()))

    def dumb(self) -> Iterator[str]:
        """Who does not answer, now that all is well."""
        for one in self.watched:
            if not self._answers(one):
                yield f"silent: server {one.server} on {one.host} does not answer"

    def hit(self, node: str, part: str = "") -> None:
        """A node has lost its power, or this one of its processes."""
        if not part or part in SWITCH:
            self._excused.add(node)

    def begin(self) -> None:
        self._excused.clear()
        for one in self.watched:
            words = ["ping", "-D", "-n", "-i", "0.2", one.address]
            command = machine.network_command(self.lab.machine(OUTSIDE), words)
            said = os.memfd_create("ping")
            ping = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT)
            self._pings.append((one, ping, said))

    def end(self, report: Report) -> list[str]:
        """What was lost is counted; a line for each server that was silent and is not excused."""
        found = []
        routers = {node.name for node in self.lab.topology.nodes if topologies.runs(node, ROUTING)}
        for one, said in self._stop():
            if self._excused & {one.host, *routers}:
                continue
            sent, received, silence = summary(said)
            report.pings += sent
            report.pings_lost += sent - received
            report.longest_silence_s = max(report.longest_silence_s, round(silence, 1))
            if silence > UNDISTURBED_SECONDS:
                found.append(f"silent: server {one.server} on {one.host} did not answer for {silence:.0f} s")
        return found

    def leave(self) -> None:
        self._stop()
        for service, path in self._made:
            _wait(f"{path} cannot be deleted", partial(self._delete, service, path))
        self._made.clear()
        self.watched.clear()

    def _stop(self) -> list[tuple[Watched, str]]:
        """What each ping has said."""
        found = []
        for one, ping, said in self._pings:
            ping.send_signal(signal.SIGINT)
            ping.wait()
            found.append((one, os.pread(said, os.fstat(said).st_size, 0).decode(errors="replace")))
            os.close(said)
        self._pings.clear()
        return found

    def _answers(self, one: Watched) -> bool:
        return "1 received" in lab.try_on(self.lab.machine(OUTSIDE), ["ping", "-c1", "-W1", "-n", one.address])

    def _addressed(self) -> list[Watched]:
        """Servers with their floating IPs."""
        hosts = {one["id"]: one["OS-EXT-SRV-ATTR:host"] for one in list_servers(self.cloud)}
        found = get(self.cloud, "network", "/v2.0/floatingips")["floatingips"]
        owners = [(str((one["port_details"] or {}).get("device_id")), one["floating_ip_address"]) for one in found]
        return [Watched(server, hosts[server], address) for server, address in owners if hosts.get(server)]

    # ── the witness ──────────────────────────────────────────────────────────────────────────────────────────

    def _make(self) -> str:
        group = self._new("network", "/v2.0/security-groups", "security_group", {"name": WITNESS})
        rule = {"security_group_id": group, "direction": "ingress", "protocol": "icmp", "ethertype": "IPv4"}
        self._new("network", "/v2.0/security-group-rules", "security_group_rule", rule)
        wish = {
            "name": WITNESS,
            "imageRef": self.cloud.images[0],
            "flavorRef": next(iter(self.cloud.sizes.values())),
            "networks": [{"uuid": self.cloud.network}],
            "security_groups": [{"name": WITNESS}],
        }
        server = self._new("compute", "/servers", "server", wish)
        _wait("the witness is not placed", lambda: any(self._home(server)))
        (port,) = get(self.cloud, "network", f"/v2.0/ports?device_id={server}")["ports"]
        address = {"floating_network_id": self.cloud.public, "port_id": port["id"]}
        self._new("network", "/v2.0/floatingips", "floatingip", address)
        return server

    def _home(self, server: str) -> list[str]:
        return [one["OS-EXT-SRV-ATTR:host"] for one in list_servers(self.cloud) if one["id"] == server]

    def _new(self, service: str, path: str, kind: str, wish: dict[str, Any]) -> str:
        status, answer = self.cloud.ask(service, "POST", path, {kind: wish})
        if status >= 300:
            raise Retry(f"no {kind} is made for the witness: {status}")
        made = str(answer[kind]["id"])
        self._made.insert(0, (service, f"{path}/{made}"))
        return made

    def _delete(self, service: str, path: str) -> bool:
        """Whether it is gone."""
        self.cloud.ask(service, "DELETE", path)
        return self.cloud.ask(service, "GET", path)[0] == 404


def summary(said: str) -> tuple[int, int, float]:
    """What a ``ping -D`` has sent, what came back, and the longest time in seconds without an answer."""
    match = SENT.search(said)
    if match is None:
        return 0, 0, 0.0
    times = [float(one) for one in ANSWERED.findall(said)]
    whole = int(match[3]) / 1000
    outside = whole - (times[-1] - times[0]) if times else whole  # before the first answer, and after the last
    return int(match[1]), int(match[2]), max(outside, *(later - earlier for earlier, later in pairwise(times)), 0.0)


def _wait(what: str, done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITNESS_SECONDS
    while not done():
        if time.monotonic() > deadline:
            raise Retry(f"{what} after {WITNESS_SECONDS:.0f} s")
        time.sleep(LOOK_SECONDS)
