"""A campaign against a lab: its daemons die, its nodes lose power and network, while users ask for everything.

The users, what they were promised and what is said of it are those of the simulated campaign (``sim.users``); what
is broken is real: kill -9 of any process that a node's parent looks after, libvirtd, the switch, database and
broker among them, a power cut, a cable.  After each round it waits until everything is as it was promised, every
agent is up, and nothing is on any node (``lab_leaks``) that nobody has.  Guests that nothing is done to have to
answer all the time (``lab_traffic``).

What was in the lab before is left alone, what is made here is taken away at the end.  Only a cloud that its own
topology calls a lab is touched.
"""

import http.client
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from cumulet.cli import cloud, lab, lab_leaks
from cumulet.cli.cloud import Refused
from cumulet.cli.lab import Lab
from cumulet.cli.lab_traffic import Traffic
from cumulet.cli.record import State
from cumulet.core import certificates
from cumulet.core import topology as topologies
from cumulet.core.errors import BadRequest, Retry
from cumulet.host import machine, netns
from cumulet.sim.promises import Unanswered, broken, everything, get
from cumulet.sim.report import Report
from cumulet.sim.users import Most, Users

PATIENCE_SECONDS, LOOK_SECONDS, AGAIN_SECONDS = 300.0, 1.0, 0.5
MOST = Most(servers=3, networks=2, addresses=2)
"""Each server is a QEMU of this machine."""
SIZES = ("m1.nano", "m1.tiny")


class LabCloud(cloud.Cloud):
    """The administrator's session, from the controller's own network; for who asks until there is an answer."""

    def __init__(self, where: Lab) -> None:
        self.lab = where
        controller = topologies.get_node(where.topology, where.controller())
        config = topologies.node_config(where.topology, controller)
        outside = msgspec.structs.replace(config, etc_dir=str(where.run))
        certificates.keep_authority(outside, lab.known_secrets(where).authority)
        super().__init__(outside)
        self.faults: list[str] = []  # answers that no cloud should give
        self._since: float | None = None  # nothing is answered
        self.network, self.public = (
            self._named("network", "/v2.0/networks", name) for name in ("private", "public")
        )
        self.images = (self._named("image", "/v2/images", "cirros"),) * 2
        self.sizes: Mapping[str, str] = {name: self._named("compute", "/flavors", name) for name in SIZES}

    def ask(self, service: str, method: str, url: str, body: Any = None, admin: bool = False) -> tuple[int, Any]:
        try:
            answer = self._ask(method, service, url, body)
        except Refused as error:
            if error.status and error.status < 500:
                self._since = None
                return error.status, {}
            if error.status not in (0, 503):
                self.faults.append(f"stuck: {method} {url}: {error.status} {error}")
            self._wait(str(error))
            raise Unanswered from error
        self._since = None
        return 200, answer

    def _send(self, *words: Any) -> tuple[Any, Any]:
        """From the controller's network, which is not this process's own."""
        pid = machine.find(self.lab.machine(self.lab.controller()))
        try:
            with closing(_Descriptor(f"/proc/{pid}/ns/net")) as place, netns.enter_fd(place.number):
                return super()._send(*words)
        except (OSError, http.client.HTTPException) as error:
            raise Refused(0, f"no answer: {error}") from error

    def _wait(self, why: str) -> None:
        now = time.monotonic()
        self._since = self._since or now
        if now - self._since > PATIENCE_SECONDS:
            raise Retry(f"the lab's APIs do not answer for {PATIENCE_SECONDS:.0f} s: {why}")
        time.sleep(AGAIN_SECONDS)

    def _named(self, service: str, path: str, name: str) -> str:
        found = self.find(service, path, name)
        if found is None:
            raise BadRequest(f"the lab has no {name!r}, which its first 'cumulet lab up' makes")
        return str(found["id"])


class _Descriptor:
    def __init__(self, path: str) -> None:
        self.number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        os.close(self.number)


class LabCampaign:
    """``tell`` hears what is done, as it is done."""

    def __init__(self, where: Lab, seed: int, tell: Callable[[str], None] = lambda text: None) -> None:
        """BadRequest if the cloud does not say of itself that it may be broken."""
        if not where.topology.cloud.lab:
            mark = "'lab = true' in [cloud] of its topology"
            raise BadRequest(f"the cloud {where.name!r} is not marked as a lab ({mark}): it is left alone")
        self.lab, self.random, self.report, self._tell = where, Random(seed), Report(seed), tell
        self.cloud = LabCloud(where)
        self.traffic = Traffic(where, self.cloud)
        self.users = Users(self.cloud, self.random, MOST)
        self.users.promises.others = everything(self.cloud)
        self._just_asked: list[str] = []

    def play(self, rounds: int) -> Report:
        try:
            self.traffic.find()
            self.users.promises.others = everything(self.cloud)
            for _ in range(rounds):
                self._round()
        finally:
            self._mend()
            self.traffic.leave()
        self._just_asked = ["all was deleted"]
        self.users.leave()
        for image in self.users.promises.images:
            self.cloud.delete("image", f"/v2/images/{image}")
        self._recover()
        return self.report

    def _round(self) -> None:
        self.report.rounds += 1
        self._just_asked = []
        self.traffic.begin()
        self._act(0, 2)
        chance = self.random.random()
        if chance < 0.6:
            for _ in range(self.random.randint(1, 3)):
                self._kill()
                self._act(0, 1)
        elif chance < 0.75:
            self._cut()
        elif chance < 0.9:
            self._cut_power()
        self._act(0, 2)
        self._recover()

    def _act(self, least: int, most: int) -> None:
        for _ in range(self.random.randint(least, most)):
            self._did(self.users.act())
            self.report.requests += 1
            time.sleep(self.random.choice((0.0, 0.5, 3.0)))

    def _did(self, what: str) -> None:
        self._just_asked.append(what)
        self._tell(f"{self.report.rounds}: {what}")

    # ── what is broken ───────────────────────────────────────────────────────────────────────────────────────

    def _kill(self) -> None:
        name = self.random.choice(self.lab.nodes)
        node = self.lab.machine(name)
        file = Path(f"/proc/{machine.find(node)}/root/run/cumulet/node.json")
        living = [one for one in msgspec.json.decode(file.read_bytes(), type=State).members if one.pid]
        if living:
            victim = self.random.choice(living)
            self.report.deaths += 1
            self._did(f"kill -9 {victim.name} on {name}")
            self.traffic.hit(name, victim.name)
            lab.try_on(node, ["kill", "-9", str(victim.pid)])

    def _cut(self) -> None:
        """The node's management cable is pulled for some time."""
        name, seconds = self.random.choice(self.lab.nodes), self.random.choice((2.0, 8.0, 20.0))
        self.report.network_cuts += 1
        self._did(f"{name} cut off for {seconds:.0f} s")
        lab.set_management(self.lab, name, "down")
        self._act(0, 2)
        time.sleep(seconds)
        lab.set_management(self.lab, name, "up")

    def _cut_power(self) -> None:
        """Sometimes for so long that an administrator says that it is dead, and wants its servers elsewhere."""
        name = self.random.choice(self.lab.nodes)
        self.report.power_cuts += 1
        self.users.promises.power_cut = 2
        self._did(f"power cut of {name}")
        self.traffic.hit(name)
        machine.stop(self.lab.machine(name))
        if name != self.lab.controller():
            self._act(0, 2)
            if self._is_compute(name) and self.random.random() < 0.5:
                self._wait_down(name)
                for what in self.users.evacuate(name):
                    self._did(what)
        self._boot(name)
        self._did(f"{name} is back")

    def _boot(self, name: str) -> None:
        lab.start_node(self.lab, name)
        lab.bring_up(self.lab, [name], self._tell)

    def _is_compute(self, name: str) -> bool:
        return topologies.runs(topologies.get_node(self.lab.topology, name), "nova-compute")

    def _wait_down(self, name: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while f"nova-compute of {name}" not in "".join(self._down()) and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)

    def _mend(self) -> None:
        """No node stays off, no cable stays cut, whatever ended the campaign."""
        for name in self.lab.nodes:
            if machine.find(self.lab.machine(name)):
                lab.set_management(self.lab, name, "up")
            else:
                self._boot(name)

    # ── looking ──────────────────────────────────────────────────────────────────────────────────────────────

    def _recover(self) -> None:
        since, found = time.monotonic(), ["stuck: nobody looked"]
        while found and time.monotonic() - since < PATIENCE_SECONDS:
            try:
                found = self.problems()
            except Unanswered:
                found = ["stuck: the APIs do not answer"]
            if found:
                time.sleep(LOOK_SECONDS)
        if not found:
            self.users.rest()
        found += self.cloud.faults + self.traffic.end(self.report)
        self.cloud.faults = []
        took = time.monotonic() - since
        self.report.add(took, found, self._just_asked)
        self._tell(f"{self.report.rounds}: {'; '.join(found) or 'well'} after {took:.0f} s")

    def problems(self) -> list[str]:
        promises = self.users.promises
        found = [*broken(self.cloud, promises), *self._unstored(), *self._down()]
        return found or [*lab_leaks.leaks(self.lab, self.cloud, promises), *self.traffic.dumb()]

    def _unstored(self) -> Iterator[str]:
        for image, server in self.users.promises.images.items():
            if server in self.users.promises.servers:
                status, shown = self.cloud.ask("image", "GET", f"/v2/images/{image}")
                if status != 200:
                    yield f"lost: image {image} of server {server}"
                elif shown["status"] != "active":
                    yield f"stuck: image {image} of server {server} is {shown['status']}"

    def _down(self) -> Iterator[str]:
        """Agents that are not heard of."""
        for one in get(self.cloud, "compute", "/os-services")["services"]:
            if one["state"] != "up":
                yield f"stuck: {one['binary']} of {one['host']} is down"
        for one in get(self.cloud, "network", "/v2.0/agents")["agents"]:
            if not one["alive"]:
                yield f"stuck: {one['binary']} of {one['host']} is down"
