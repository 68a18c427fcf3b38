"""What nova-compute may rely on, whatever the hypervisor: the simulated host is held to what libvirt does."""

from collections.abc import Callable
from functools import partial
from socket import socket

import pytest
from msgspec.structs import replace

from cumulet.core.errors import Retry, Terminal
from cumulet.nova.compute.hypervisor import Hypervisor
from cumulet.nova.model import Domain, ServerIntent, Verb
from tests.host.hypervisor_rig import LibvirtRig, Rig, SimRig, make_nic, until


@pytest.fixture(params=["sim", pytest.param("libvirt", marks=pytest.mark.host)])
def rig(request: pytest.FixtureRequest) -> Rig:
    if request.param == "sim":
        return SimRig()
    found: LibvirtRig = request.getfixturevalue("libvirt_rig")
    return found


def running(rig: Rig, server: ServerIntent) -> None:
    """As the agent brings a server up."""
    rig.hypervisor.make_disk(server, {})
    rig.hypervisor.plug(server)
    rig.hypervisor.define(server)
    rig.hypervisor.start(server)
    until(lambda: rig.boots(server.id) >= 1, "the guest's first words")


def state(rig: Rig, server: ServerIntent) -> str:
    return rig.hypervisor.look_at(server.id).state


def stopped(rig: Rig, server: ServerIntent) -> None:
    until(lambda: rig.hypervisor.stop(server), "the guest to be off")


def performed(rig: Rig, server: ServerIntent, verb: Verb) -> None:
    until(lambda: rig.hypervisor.perform(server, verb), f"verb {verb.id} to be done")


def test_every_step_is_seen_and_may_be_repeated(rig: Rig) -> None:
    nics = (make_nic(), make_nic())
    ports = frozenset(nic.port_id for nic in nics)
    server = rig.make_server(*nics)
    hypervisor = rig.hypervisor
    drive = {"openstack/latest/meta_data.json": b"{}"}
    assert server.image is not None
    whole = Domain(files=True, disk=True, image=server.image.id)
    steps: list[tuple[Callable[[], object], Domain]] = [
        (lambda: hypervisor.make_disk(server, drive), whole),
        (lambda: hypervisor.plug(server), plugged := replace(whole, taps=ports)),
        (lambda: hypervisor.define(server), defined := replace(plugged, defined=True, nics=ports)),
        (lambda: hypervisor.start(server), replace(defined, state="on")),
    ]
    assert hypervisor.look_at(server.id) == Domain()
    assert server.id not in hypervisor.look()
    for step, expected in steps:
        for _ in range(2):
            step()
            assert hypervisor.look_at(server.id) == expected
            assert hypervisor.look()[server.id] == expected
    until(lambda: rig.boots(server.id) == 1, "the guest's first words")
    for step, _ in steps:  # all over again changes nothing
        step()
    assert hypervisor.look_at(server.id) == expected
    assert rig.boots(server.id) == 1


def test_every_step_may_be_another_agents(rig: Rig) -> None:
    server = rig.make_server(make_nic())
    methods: list[Callable[[Hypervisor], object]] = [
        lambda hypervisor: hypervisor.make_disk(server, {}),
        lambda hypervisor: hypervisor.plug(server),
        lambda hypervisor: hypervisor.define(server),
        lambda hypervisor: hypervisor.start(server),
        lambda hypervisor: until(lambda: hypervisor.stop(server), "off"),
        lambda hypervisor: hypervisor.start(server),
        lambda hypervisor: until(lambda: hypervisor.perform(server, Verb(3, "reboot")), "reboot"),
        lambda hypervisor: hypervisor.destroy(server),
    ]
    for method in methods:
        rig.restart_agent()
        method(rig.hypervisor)
    assert rig.hypervisor.look_at(server.id) == Domain()


def test_a_guest_that_hears_goes_off_by_itself(rig: Rig) -> None:
    server = rig.make_server()
    running(rig, server)
    stopped(rig, server)
    assert state(rig, server) == "off"
    assert rig.hypervisor.stop(server)
    rig.hypervisor.start(server)
    until(lambda: rig.boots(server.id) == 2, "the second boot")
    assert state(rig, server) == "on"


def test_a_guest_that_does_not_hear_is_switched_off(rig: Rig) -> None:
    server = rig.make_server(polite=False)
    running(rig, server)
    assert not rig.hypervisor.stop(server)
    rig.restart_agent()
    assert not rig.hypervisor.stop(server)
    assert state(rig, server) == "on"
    stopped(rig, server)
    assert state(rig, server) == "off"


def test_a_guests_own_end_is_seen(rig: Rig) -> None:
    ends, dies = rig.make_server(), rig.make_server()
    running(rig, ends)
    running(rig, dies)
    rig.woken.clear()
    rig.end_guest(ends.id)
    rig.crash_guest(dies.id)
    until(lambda: {ends.id, dies.id} <= set(rig.woken), "hints for both")
    until(lambda: (state(rig, ends), state(rig, dies)) == ("off", "crashed"), "both states")
    rig.hypervisor.start(dies)
    assert state(rig, dies) == "on"


@pytest.mark.parametrize("kind", ["SOFT", "HARD"])
@pytest.mark.parametrize("polite", [True, False])
def test_reboot(rig: Rig, kind: str, polite: bool) -> None:
    server = rig.make_server(make_nic(), polite=polite)
    running(rig, server)
    verb = Verb(7, "reboot", {"type": kind})
    performed(rig, server, verb)
    assert rig.hypervisor.look_at(server.id).last_verb == 7
    assert state(rig, server) == "on"
    until(lambda: rig.boots(server.id) == 2, "the second boot")
    rig.restart_agent()
    assert rig.hypervisor.perform(server, verb)
    rig.hypervisor.define(server)
    assert rig.hypervisor.look_at(server.id).last_verb == 7
    stopped(rig, server)
    assert rig.hypervisor.look_at(server.id).last_verb == 7
    performed(rig, server, Verb(8, "reboot", {"type": kind}))  # starts what is off
    until(lambda: rig.boots(server.id) == 3, "the third boot")
    assert rig.hypervisor.look_at(server.id).last_verb == 8


def test_it_stands_still_and_goes_on(rig: Rig) -> None:
    server = rig.make_server(make_nic())
    running(rig, server)
    for _ in range(2):
        rig.hypervisor.pause(server)
        assert state(rig, server) == rig.hypervisor.look()[server.id].state == "paused"
    rig.restart_agent()
    for _ in range(2):
        rig.hypervisor.start(server)
        assert state(rig, server) == "on"
    assert rig.boots(server.id) == 1
    rig.hypervisor.pause(server)
    assert rig.hypervisor.stop(server)  # who stands still hears nothing
    assert state(rig, server) == "off"
    rig.hypervisor.pause(server)
    assert state(rig, server) == "off"


@pytest.mark.parametrize("still", [False, True])
def test_it_sleeps_and_wakes_up(rig: Rig, still: bool) -> None:
    server = rig.make_server(make_nic())
    running(rig, server)
    if still:
        rig.hypervisor.pause(server)
    before = rig.hypervisor.look_at(server.id)
    for _ in range(2):
        rig.hypervisor.suspend(server)
        assert rig.hypervisor.look_at(server.id) == replace(before, state="suspended")
        assert rig.hypervisor.look()[server.id].state == "suspended"
    rig.restart_agent()
    rig.hypervisor.pause(server)
    assert state(rig, server) == "suspended"
    for _ in range(2):
        rig.hypervisor.start(server)
        assert rig.hypervisor.look_at(server.id) == replace(before, state="on")
    assert rig.boots(server.id) == 1
    stopped(rig, server)


def test_what_ends_a_sleep(rig: Rig) -> None:
    server = rig.make_server()
    running(rig, server)
    rig.hypervisor.suspend(server)
    performed(rig, server, Verb(4, "reboot", {"type": "HARD"}))
    assert state(rig, server) == "on"
    until(lambda: rig.boots(server.id) == 2, "the second boot")
    rig.hypervisor.suspend(server)
    assert rig.hypervisor.stop(server)
    assert state(rig, server) == "off"
    rig.hypervisor.start(server)
    until(lambda: rig.boots(server.id) == 3, "a boot, for its memory is lost")
    rig.hypervisor.suspend(server)
    rig.hypervisor.destroy(server)
    assert rig.hypervisor.look_at(server.id) == Domain()


def test_rebuild(rig: Rig) -> None:
    server = rig.make_server(make_nic())
    running(rig, server)
    other = rig.make_image()
    rebuilt = replace(server, image=other, generation=2)
    verb = Verb(9, "rebuild")
    for _ in range(2):
        until(lambda: rig.hypervisor.rebuild(rebuilt, verb, {"openstack/latest/meta_data.json": b"{}"}), "rebuild")
        seen = rig.hypervisor.look_at(server.id)
        assert (seen.state, seen.last_verb, seen.image) == ("on", 9, other.id)
    until(lambda: rig.boots(server.id) == 2, "the second boot")
    stopped(rig, server)
    off = replace(rebuilt, power="off", generation=3)
    assert rig.hypervisor.rebuild(off, Verb(10, "rebuild"), {})
    seen = rig.hypervisor.look_at(server.id)
    assert (seen.state, seen.last_verb, seen.disk) == ("off", 10, True)
    rig.hypervisor.start(off)
    until(lambda: rig.boots(server.id) == 3, "the third boot")


def test_a_rebuild_that_is_refused_loses_nothing(rig: Rig) -> None:
    server = rig.make_server()
    running(rig, server)
    assert server.image is not None
    before = rig.hypervisor.look_at(server.id)
    large = replace(server, image=replace(rig.make_image(), virtual_size=2 << 30), root_gb=1)
    with pytest.raises(Terminal):
        rig.hypervisor.rebuild(large, Verb(9, "rebuild"), {})
    assert rig.hypervisor.look_at(server.id) == before


def _has_booted(rig: Rig, server: ServerIntent, times: int) -> bool:
    return rig.boots(server.id) == times


@pytest.mark.parametrize("power", ["on", "off"])
def test_resize_and_back(rig: Rig, power: str) -> None:
    server = rig.make_server(make_nic())
    running(rig, server)
    if power == "off":
        stopped(rig, server)
    larger = replace(server, memory_mb=64, root_gb=2, power=power, generation=2)
    boots = 1
    for number, (verb, wanted) in enumerate(
        [
            ("resize", larger),
            ("revertResize", replace(server, power=power)),
            ("resize", larger),
            ("confirmResize", larger),
        ]
    ):
        boots += power == "on" and verb != "confirmResize"
        performed(rig, wanted, Verb(10 + number, verb))
        rig.restart_agent()
        assert rig.hypervisor.perform(wanted, Verb(10 + number, verb))
        seen = rig.hypervisor.look_at(server.id)
        assert (seen.state, seen.last_verb, seen.disk) == (power, 10 + number, True)
        until(partial(_has_booted, rig, server, boots), f"boot {boots}")
        used = rig.hypervisor.diagnostics(server.id)
        assert used is None or used.memory_mb == wanted.memory_mb


@pytest.mark.parametrize("power", ["on", "off", "paused", "suspended"])
def test_a_copy_of_the_disk_goes_to_glance(rig: Rig, power: str) -> None:
    server = rig.make_server()
    running(rig, server)
    if power == "off":
        stopped(rig, server)
    if power in ("paused", "suspended"):
        (rig.hypervisor.pause if power == "paused" else rig.hypervisor.suspend)(server)
    verb = Verb(11, "createImage", {"image_id": "snapshot"})
    until(lambda: rig.hypervisor.perform(server, verb) or rig.hypervisor.look_at(server.id).copies, "the copy")
    rig.restart_agent()
    performed(rig, server, verb)
    seen = rig.hypervisor.look_at(server.id)
    assert (seen.state, seen.last_verb, seen.copies) == (power, 11, frozenset())
    assert rig.stored == ["snapshot"]
    assert rig.hypervisor.perform(server, verb)
    assert rig.stored == ["snapshot"]
    rig.hypervisor.start(server)
    assert rig.hypervisor.look_at(server.id).last_verb == 11


def test_a_copy_that_nobody_wants_is_cleared(rig: Rig) -> None:
    server = rig.make_server()
    running(rig, server)
    assert not rig.hypervisor.perform(server, Verb(11, "createImage", {"image_id": "snapshot"}))
    until(lambda: rig.hypervisor.look_at(server.id).copies == {11}, "the copy to be seen")
    for _ in range(2):
        rig.hypervisor.clear(server, frozenset({11}))
        assert rig.hypervisor.look_at(server.id).copies == frozenset()
    performed(rig, server, Verb(12, "createImage", {"image_id": "second"}))
    assert rig.stored == ["second"]


def test_an_unknown_verb_is_the_servers_fault(rig: Rig) -> None:
    server = rig.make_server()
    running(rig, server)
    with pytest.raises(Terminal):
        rig.hypervisor.perform(server, Verb(1, "levitate"))


def test_destroy_from_every_stage(rig: Rig) -> None:
    other = rig.make_server(make_nic())
    running(rig, other)
    before = rig.hypervisor.look_at(other.id)
    methods = ("make_disk", "plug", "define", "start")
    for stage in range(len(methods) + 1):
        server = rig.make_server(make_nic(), make_nic())
        for name in methods[:stage]:
            getattr(rig.hypervisor, name)(server, *([{}] if name == "make_disk" else []))
        for _ in range(2):
            rig.hypervisor.destroy(replace(server, nics=(), absent=True))  # its ports are gone already
            assert rig.hypervisor.look_at(server.id) == Domain()
            assert server.id not in rig.hypervisor.look()
        assert rig.hypervisor.console_log(server.id) == b""
    assert rig.hypervisor.look_at(other.id) == before


def test_ports_come_and_go(rig: Rig) -> None:
    first, second, third = make_nic(), make_nic(), make_nic()
    server = rig.make_server(first, second)
    running(rig, server)
    server = replace(server, nics=(first, third), generation=2)
    rig.hypervisor.unplug(server, frozenset({second.port_id}))
    rig.hypervisor.plug(server)
    wanted = frozenset({first.port_id, third.port_id})
    assert rig.hypervisor.look_at(server.id).taps == wanted
    rig.hypervisor.define(server)
    assert third.port_id in rig.hypervisor.look_at(server.id).nics
    stopped(rig, server)
    assert rig.hypervisor.look_at(server.id).nics == wanted
    server = replace(server, nics=(first,), generation=3)
    for _ in range(2):
        rig.hypervisor.unplug(server, frozenset({third.port_id}))
        assert rig.hypervisor.look_at(server.id).nics == frozenset({first.port_id})
        assert rig.hypervisor.look_at(server.id).taps == frozenset({first.port_id})
    rig.hypervisor.start(server)
    assert state(rig, server) == "on"


def test_an_image_that_is_too_large_is_refused(rig: Rig) -> None:
    server = rig.make_server()
    assert server.image is not None
    large = replace(server, image=replace(server.image, virtual_size=2 << 30), root_gb=1)
    with pytest.raises(Terminal):
        rig.hypervisor.make_disk(large, {})
    assert not rig.hypervisor.look_at(server.id).disk


def test_inventory_does_not_change_by_itself(rig: Rig) -> None:
    inventory = rig.hypervisor.inventory()
    assert inventory.vcpus > 0
    assert inventory.memory_mb > 0
    assert inventory.disk_gb > 0
    assert inventory.virt_type == "qemu"
    assert inventory == rig.hypervisor.inventory()


def test_console_log_of_nobody_is_empty(rig: Rig) -> None:
    assert rig.hypervisor.console_log(rig.make_server().id) == b""


def test_what_a_running_server_uses(rig: Rig) -> None:
    nic = make_nic()
    server = rig.make_server(nic)
    assert rig.hypervisor.diagnostics(server.id) is None
    running(rig, server)
    used = rig.hypervisor.diagnostics(server.id)
    assert used is not None
    assert len(used.cpu_nanoseconds) == server.vcpus
    assert used.memory_mb > 0
    assert [(one.port_id, one.device) for one in used.nics] == [(nic.port_id, nic.tap)]
    assert used.disks[0].device == "vda"
    rig.hypervisor.pause(server)
    assert rig.hypervisor.diagnostics(server.id) is None
    stopped(rig, server)
    assert rig.hypervisor.diagnostics(server.id) is None


# ── the screen ───────────────────────────────────────────────────────────────────────────────────────────────


def said(screen: socket) -> bytes:
    """The screen's first words."""
    screen.settimeout(20)
    return screen.recv(12)


def test_a_screen_speaks_vnc_and_ends_with_its_guest(rig: Rig) -> None:
    server = rig.make_server()
    running(rig, server)
    with rig.hypervisor.open_screen(server.id) as screen, rig.hypervisor.open_screen(server.id) as second:
        assert said(screen) == said(second) == b"RFB 003.008\n"
        rig.hypervisor.pause(server)
        with rig.hypervisor.open_screen(server.id) as third:
            assert said(third) == b"RFB 003.008\n"
        stopped(rig, server)
        assert screen.recv(1) == second.recv(1) == b""
    with pytest.raises(Retry):
        rig.hypervisor.open_screen(server.id)


def test_nobody_has_no_screen(rig: Rig) -> None:
    with pytest.raises(Retry):
        rig.hypervisor.open_screen(rig.make_server().id)
