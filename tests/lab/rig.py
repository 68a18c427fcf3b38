"""A lab for tests: the four nodes of the reference topology, under a name of its own."""

import json
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from cumulet.cli.lab import DISKS, RUN, environment
from cumulet.cli.node_map import MISSING, UP
from cumulet.host import machine
from cumulet.host.machine import Machine
from tests.machine import wait_for

CUMULET = [sys.executable, "-m", "cumulet.cli.main"]
Servers = dict[str, dict[str, str]]
"""By name: host, private and floating address."""
UNDISTURBED = 5.0
"""Seconds: shorter than each outage that these stories would see, longer than a busy machine takes to answer."""
SWITCH = "--db=unix:/run/cumulet/openvswitch/db.sock"


class LabRig:
    def __init__(self, *options: str) -> None:
        self.name = f"test-{uuid.uuid4().hex[:6]}"
        self._options = options

    def lab(self, verb: str, *words: str, check: bool = True, seconds: float = 300) -> str:
        """What ``cumulet lab VERB`` printed; AssertionError with that if it failed."""
        done = subprocess.run(
            [*CUMULET, "lab", verb, "--name", self.name, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert not check or done.returncode == 0, f"lab {verb} {' '.join(words)}: {done.returncode}\n{done.stdout}"
        return done.stdout

    def up(self) -> str:
        return self.lab("up", *self._options)

    def run(self, node: str, *words: str, check: bool = True, seconds: float = 300) -> str:
        """As ``lab exec``, without a Python on the way."""
        one = self.start(node, *words)
        try:
            said = one.communicate(timeout=seconds)[0]
        finally:
            one.kill()
        assert not check or one.returncode == 0, f"{node}: {' '.join(words)}: {one.returncode}\n{said}"
        return said

    def start(self, node: str, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            machine.command(Machine(node, self.run_directory, self.disks / node), words),
            env=environment(),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def openstack(self, *words: str) -> str:
        """The unmodified client, on the controller."""
        return self.run("controller", "openstack", *words)

    def ask(self, *words: str) -> Any:
        """The client's answer as data."""
        return json.loads(self.openstack(*words, "-f", "json"))

    def launch(self, *names: str) -> None:
        """Servers that answer ssh on floating IPs, booted side by side; the first one makes key and group."""
        running = []
        for name in names:
            running.append(self.start("controller", "cumulet", "launch", name, "--flavor", "m1.nano"))
            pipe = running[-1].stdout
            assert pipe
            assert pipe.readline().startswith(f"  server {name}: ")
        said = [one.communicate(timeout=300)[0] for one in running]
        assert [one.returncode for one in running] == [0] * len(names), said

    def servers(self) -> Servers:
        found = {}
        for line in self.ask("server", "list", "--long"):
            private, floating = line["Networks"]["private"]
            found[line["Name"]] = {"host": line["Host"], "private": private, "floating": floating}
        return found

    def ssh(self, server: str, *words: str, check: bool = True) -> str:
        return self.run("controller", "cumulet", "ssh", server, "--", *words, check=check)

    def answers(self, node: str, address: str) -> bool:
        """Whether a ping from the node comes back."""
        return "1 received" in self.run(node, "ping", "-c1", "-W1", address, check=False)

    @contextmanager
    def lost(self, node: str, address: str, *space: str) -> Iterator[list[int]]:
        """Ten pings a second from a node (or a namespace of it); afterwards it holds how many were not answered."""
        found: list[int] = []
        ping = self.start(node, *space, "ping", "-n", "-i", "0.1", address)
        try:
            yield found
        finally:
            self.run(node, "pkill", "-INT", "-f", f"ping -n -i 0.1 {address}")
            said = ping.communicate(timeout=20)[0]
        match = re.search(r"(\d+) packets transmitted, (\d+) received", said)
        assert match, said
        found.append(int(match[1]) - int(match[2]))

    @contextmanager
    def pings(self, address: str) -> Iterator[list[float]]:
        """Five a second from outside; afterwards it holds the longest time without an answer, in seconds."""
        found: list[float] = []
        ping = self.start("outside", "ping", "-D", "-n", "-i", "0.2", address)
        try:
            yield found
        finally:
            self.run("outside", "pkill", "-INT", "-x", "ping")
            said = ping.communicate(timeout=20)[0]
        times = [float(match) for match in re.findall(r"^\[([0-9.]+)\] \d+ bytes from", said, re.M)]
        assert times, said
        found.append(max(later - earlier for earlier, later in pairwise(times)))

    def pid(self, node: str, name: str) -> int:
        """Of a service, as its parent knows it."""
        state = json.loads(self.run(node, "cat", "/run/cumulet/node.json"))
        return next(int(one["pid"]) for one in state["members"] if one["name"] == name)

    def kill(self, node: str, name: str) -> None:
        """kill -9, and wait until its parent has started it again."""
        former = self.pid(node, name)
        self.run(node, "kill", "-9", str(former))
        wait_for(lambda: self.pid(node, name) not in (0, former), 60, f"{name} on {node} again")

    def guests(self, node: str) -> list[str]:
        """The QEMUs of a compute node."""
        return self.run(node, "pgrep", "-f", "qemu-system.*guest=", check=False).split()

    def left(self, node: str) -> list[str]:
        """Domains, disks and taps of servers on a compute node."""
        found = self.run(node, "pgrep", "-fa", "qemu-system.*guest=", check=False).splitlines()
        found += self.run(node, "ls", "/var/lib/cumulet/servers", check=False).splitlines()
        return found + [line for line in self.run(node, "ls", "/sys/class/net").split() if line.startswith("tap")]

    def tunnels(self, node: str) -> set[str]:
        """The other ends of a node's tunnels."""
        found = self.run(
            node, "ovs-vsctl", SWITCH, "--bare", "--columns=options", "find", "interface", "type=vxlan"
        )
        return {word.removeprefix("remote_ip=") for word in found.split() if word.startswith("remote_ip=")}

    def states(self, node: str) -> dict[str, str]:
        """What the controller's map says of a node's services: up, MISSING, SICK."""
        found = json.loads(self.run("controller", "cumulet", "where", "--json", check=False))
        return {line["name"]: line["state"] for one in found if one["name"] == node for line in one["services"]}

    def wait_agents(self, node: str, alive: bool, seconds: float = 90) -> None:
        state = UP if alive else MISSING
        wait_for(lambda: set(self.states(node).values()) == {state}, seconds, f"{node} all {state}")

    def traces(self) -> list[str]:
        """Whatever of this machine still has to do with the lab."""
        found = [str(place) for place in (self.run_directory, self.disks) if place.exists()]
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    words = (entry / "cmdline").read_bytes().decode(errors="replace")
                    mounts = (entry / "mountinfo").read_text(errors="replace")
                except OSError:
                    continue
                if f"cumulet-lab/{self.name}" in words + mounts:
                    found.append(f"process {entry.name}: {words.replace(chr(0), ' ')[:80]}")
        return found

    @property
    def run_directory(self) -> Path:
        return RUN / self.name

    @property
    def disks(self) -> Path:
        return DISKS / self.name
