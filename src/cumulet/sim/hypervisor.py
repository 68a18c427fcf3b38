"""A hypervisor made of dictionaries: enough to run the whole cloud in one process, and to make it fail.

It keeps the promises of ``nova.compute.hypervisor.Hypervisor`` and no more; the same contract tests run against
this and against libvirt.  What lies and runs on the host, and what a test does to it, are ``sim.guests``.
"""

import socket
from collections.abc import Callable, Mapping

from cumulet.core.errors import Retry, Terminal
from cumulet.nova.model import (
    LIVE,
    Diagnostics,
    DiskCounters,
    Domain,
    Inventory,
    NicCounters,
    Progress,
    ServerIntent,
    Verb,
)
from cumulet.sim.guests import SimGuests
from cumulet.sim.machine import EMPTY, SHOWING, Machine
from cumulet.sim.screen import open_screen

GIB = 1 << 30
MEMORY = 256 << 20


class SimHypervisor(SimGuests):
    """What the agent calls, and how far each call comes before the next effect."""

    def look(self) -> Mapping[str, Domain]:
        taps: dict[str, set[str]] = {}
        for port_id, server_id in list(self.taps.items()):
            taps.setdefault(server_id, set()).add(port_id)
        names = set(self.machines) | set(taps)
        looked = {name: self._domain(name, frozenset(taps.get(name, ()))) for name in sorted(names)}
        return {name: domain for name, domain in looked.items() if domain != Domain()}

    def look_at(self, server_id: str) -> Domain:
        taps = frozenset(port for port, owner in list(self.taps.items()) if owner == server_id)
        return self._domain(server_id, taps)

    def make_disk(self, server: ServerIntent, config_drive: Mapping[str, bytes]) -> None:
        """The files first, the disk last: a disk that is seen is complete."""
        self._begin("make_disk", self._latency.make_disk)
        self._check_image(server)
        machine = self._machine(server.id)
        if machine.files is None:
            with self.effect(f"files {server.id}"):
                machine.files = dict(config_drive)
        if machine.disk is None:
            with self.effect(f"disk {server.id}"):
                machine.disk = server.image.id if server.image else EMPTY
                if server.heir_of:
                    heritage = self._others[server.heir_of].machines[server.id]
                    machine.disk, machine.boots, machine.written = heritage.disk, heritage.boots, heritage.written

    def fetch_disk(self, server: ServerIntent, config_drive: Mapping[str, bytes]) -> None:
        """A guest's disk is not to be read while it runs."""
        self._begin("fetch_disk", self._latency.make_disk)
        assert server.fetch, "nothing to fetch"
        origin = self._others[server.fetch.host].machines[server.id]
        assert origin.state not in SHOWING, "fetched from under a guest"
        assert origin.disk is not None, "the other host has lost the disk"
        machine = self._machine(server.id)
        if machine.files is None:
            with self.effect(f"files {server.id}"):
                machine.files = dict(config_drive)
        if machine.disk is None:
            with self.effect(f"fetched disk {server.id}"):
                machine.disk, machine.boots, machine.written = origin.disk, origin.boots, origin.written

    def receive(self, server: ServerIntent, config_drive: Mapping[str, bytes]) -> None:
        self._begin("receive", self._latency.make_disk)
        self._check_image(server)
        machine = self._machine(server.id)
        if machine.files is None:
            with self.effect(f"files {server.id}"):
                machine.files = dict(config_drive)
        if machine.disk is None:
            with self.effect(f"empty disk {server.id}"):
                machine.disk = server.image.id if server.image else EMPTY

    def recall(self, server: ServerIntent) -> bool:
        self._begin("recall", 0.0)
        self.break_off(server.id)
        return True

    def plug(self, server: ServerIntent) -> None:
        self._begin("plug", self._latency.plug)
        for nic in server.nics:
            if nic.port_id not in self.taps:
                with self.effect(f"plug {nic.port_id}"):
                    self.taps[nic.port_id] = server.id
                    self._on_tap(nic.port_id)

    def unplug(self, server: ServerIntent, port_ids: frozenset[str]) -> None:
        self._begin("unplug", self._latency.plug)
        machine = self._machine(server.id)
        for port_id in sorted(port_ids):
            if port_id in machine.nics:
                with self.effect(f"detach {port_id}"):
                    machine.nics -= {port_id}
            if self.taps.get(port_id) == server.id:
                with self.effect(f"unplug {port_id}"):
                    del self.taps[port_id]
                    self._on_tap(port_id)

    def define(self, server: ServerIntent) -> None:
        self._begin("define", self._latency.define)
        machine = self._machine(server.id)
        nics = frozenset(nic.port_id for nic in server.nics)
        assert machine.disk is not None, "defined without a disk"
        assert all(self.taps.get(port_id) == server.id for port_id in nics), "defined without its taps"
        if machine.state in ("on", "paused"):
            self._check_wired(nics - machine.nics)
        if not machine.defined or machine.nics != nics:
            with self.effect(f"define {server.id}"):
                machine.defined, machine.nics = True, nics

    def start(self, server: ServerIntent) -> None:
        self._begin("start", self._latency.start)
        machine = self._machine(server.id)
        assert machine.defined, "started before it was defined"
        if machine.state == "on":
            return
        self._check_wired(machine.nics)
        if machine.state in ("paused", "suspended", "sent"):
            with self.effect(f"resume {server.id}"):
                self._check_alone(server.id)
                machine.state, machine.stop_at, machine.written = "on", None, True
            return
        assert machine.state != "incoming", "started before all of it was there"
        with self.effect(f"start {server.id}"):
            self._boot(machine, server)

    def stop(self, server: ServerIntent) -> bool:
        self._begin("stop", 0.0)
        machine = self._machine(server.id)
        if machine.state in ("off", "crashed"):
            return True
        if machine.state in ("paused", "suspended", "sent"):
            self._end(server.id, "off")
            return True
        if machine.stop_at is None:
            takes = self._stop_seconds if server.id in self.deaf else self._latency.stop
            with self.effect(f"ask {server.id} to shut down"):
                machine.stop_at = self._clock() + takes
        if self._clock() < machine.stop_at:
            return False
        self._end(server.id, "off")
        return True

    def pause(self, server: ServerIntent) -> None:
        self._begin("pause", 0.0)
        machine = self._machine(server.id)
        if machine.state == "on":
            with self.effect(f"pause {server.id}"):
                machine.state, machine.stop_at = "paused", None

    def suspend(self, server: ServerIntent) -> None:
        self._begin("suspend", 0.0)
        machine = self._machine(server.id)
        if machine.state in ("on", "paused"):
            with self.effect(f"suspend {server.id}"):
                machine.state, machine.stop_at = "suspended", None

    def perform(self, server: ServerIntent, verb: Verb) -> bool:
        self._begin("perform", self._latency.start)
        machine = self._machine(server.id)
        if verb.id <= machine.last_verb:
            return True
        if verb.name == LIVE:
            return self._send(machine, server, verb)
        if verb.name in ("resize", "revertResize", "confirmResize"):
            return self._resize(machine, server, verb)
        if verb.name not in ("reboot", "createImage"):
            raise Terminal(f"this host cannot {verb.name} a server")
        if verb.name == "createImage":
            return self._copy(server.id, machine, verb)
        self._check_wired(machine.nics)
        with self.effect(f"{verb.name} {server.id}"):
            self._boot(machine, server)
            machine.last_verb = verb.id
        return True

    def rebuild(self, server: ServerIntent, verb: Verb, config_drive: Mapping[str, bytes]) -> bool:
        """The promise is kept here: a disk that was made for this verb, and that a guest ran on, is not lost."""
        self._begin("rebuild", self._latency.make_disk)
        machine = self._machine(server.id)
        if verb.id <= machine.last_verb:
            return True
        self._check_image(server)
        assert not (machine.disk_for == verb.id and machine.written), "rebuilt twice"
        if machine.state != "off":
            with self.effect(f"switch {server.id} off"):
                machine.state, machine.stop_at = "off", None
        with self.effect(f"no disk {server.id}"):
            machine.disk = None
        with self.effect(f"rebuilt disk {server.id}"):
            machine.files, machine.disk = dict(config_drive), server.image.id if server.image else EMPTY
            machine.disk_for, machine.written = verb.id, False
        nics = frozenset(nic.port_id for nic in server.nics)
        if server.power == "on":
            self._check_wired(nics)
        with self.effect(f"rebuild {server.id}"):
            machine.defined, machine.nics, machine.last_verb = True, nics, verb.id
            if server.power == "on":
                self._boot(machine, server)
        return True

    def clear(self, server: ServerIntent, verbs: frozenset[int]) -> None:
        self._begin("clear", 0.0)
        machine = self._machine(server.id)
        for number in sorted(verbs & machine.copies):
            with self.effect(f"no copy {number} of {server.id}"):
                machine.copies.discard(number)

    def destroy(self, server: ServerIntent) -> None:
        """The domain first, so that nothing runs on files and taps that are gone."""
        self._begin("destroy", self._latency.destroy)
        machine = self.machines.get(server.id)
        if machine and machine.state == "incoming":
            self.break_off(server.id)
        if machine and machine.defined:
            with self.effect(f"undefine {server.id}"):
                machine.state, machine.defined, machine.nics = "off", False, frozenset()
        for port_id in sorted(port for port, owner in list(self.taps.items()) if owner == server.id):
            with self.effect(f"unplug {port_id}"):
                del self.taps[port_id]
                self._on_tap(port_id)
        if machine:
            with self.effect(f"remove {server.id}"):
                self.machines.pop(server.id, None)

    def inventory(self) -> Inventory:
        return self._inventory

    def diagnostics(self, server_id: str) -> Diagnostics | None:
        """A guest that has just woken up and has done nothing."""
        machine = self.machines.get(server_id)
        if machine is None or machine.state != "on":
            return None
        nics = tuple(NicCounters(f"tap{port[:11]}", port, 0, 0, 0, 0, 0, 0, 0, 0) for port in sorted(machine.nics))
        return Diagnostics((0,), machine.memory_mb, 0, nics, (DiskCounters("vda", 0, 0, 0, 0),))

    def console_log(self, server_id: str) -> bytes:
        machine = self.machines.get(server_id)
        return machine.console if machine else b""

    def open_screen(self, server_id: str) -> socket.socket:
        machine = self.machines.get(server_id)
        if machine is None or machine.state not in SHOWING:
            raise Retry(f"server {server_id} is off")
        client, own = open_screen(f"sim {server_id}")
        machine.screens.append(own)
        return client

    def listen(self, wake: Callable[[str], None]) -> None:
        self._wake = wake

    def close(self) -> None:
        self._wake = lambda server_id: None

    def _resize(self, machine: Machine, server: ServerIntent, verb: Verb) -> bool:
        """The disk as it was is kept, taken back or forgotten."""
        if verb.name != "confirmResize" and machine.state != "off":
            with self.effect(f"switch {server.id} off"):
                machine.state, machine.stop_at = "off", None
        if verb.name == "resize" and machine.before is None:
            with self.effect(f"keep disk {server.id}"):
                machine.before = (machine.disk, machine.boots)
        elif verb.name == "revertResize" and machine.before is not None:
            with self.effect(f"old disk {server.id}"):
                machine.disk, machine.boots = machine.before
                machine.before = None
        elif verb.name == "confirmResize" and machine.before is not None:
            with self.effect(f"forget old disk {server.id}"):
                machine.before = None
        with self.effect(f"{verb.name} {server.id}"):
            machine.last_verb = verb.id
            if verb.name != "confirmResize" and server.power == "on":
                self._check_wired(machine.nics)
                self._boot(machine, server)
        return True

    def _send(self, machine: Machine, server: ServerIntent, verb: Verb) -> bool:
        """Three calls: its memory goes, goes on going, and has gone.  As with QEMU the guest stands still before
        the last of it is there, and its machine goes away after that; whoever dies in between leaves either.
        """
        if not machine.defined or machine.state == "sent":
            return True
        if machine.state not in SHOWING or verb.args.get("abort"):
            self.recall(server)
            raise Terminal("The guest does not run." if machine.state not in SHOWING else "Cancelled.")
        host = self._others[verb.args["host"]]
        there = host.machines.get(server.id)
        if there is None or there.files is None or not verb.args["ticket"]:
            raise Retry(f"{server.id} cannot come in")
        if machine.progress is None:
            if there.defined:
                raise Terminal("There is such a machine already.")
            with self.effect(f"send {server.id}"):
                there.defined, there.state = True, "incoming"
                machine.progress = Progress(memory_total=MEMORY, memory_remaining=MEMORY)
            return False
        if machine.progress.memory_remaining and not verb.args.get("force"):
            machine.progress = Progress(memory_total=MEMORY, memory_processed=MEMORY)
            return False
        assert all(host.taps.get(port_id) == server.id for port_id in machine.nics), "sent to where no taps are"
        with self.effect(f"{server.id} stands still"):
            machine.state, machine.progress = "sent", None
        with self.effect(f"all of {server.id} is there"):
            there.take_over(machine)
        with self.effect(f"{server.id} is gone"):
            machine.defined, machine.nics, machine.state = False, frozenset(), "off"
        return True

    def _copy(self, server_id: str, machine: Machine, verb: Verb) -> bool:
        """Two calls: the copy, then its way to glance."""
        if verb.id not in machine.copies:
            with self.effect(f"copy {verb.id} of {server_id}"):
                machine.copies.add(verb.id)
            return False
        self._upload(verb)
        with self.effect(f"{verb.name} {server_id}"):
            machine.last_verb = verb.id
        with self.effect(f"no copy {verb.id} of {server_id}"):
            machine.copies.discard(verb.id)
        return True

    def _check_image(self, server: ServerIntent) -> None:
        image = server.image
        if image and image.id in self.refused_images:
            raise Terminal(self.refused_images[image.id])
        if image and server.root_gb and image.virtual_size > server.root_gb * GIB:
            raise Terminal(f"image {image.id} is larger than the flavor's disk of {server.root_gb} GB")
