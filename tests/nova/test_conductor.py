"""nova-conductor: what a host may read and report, what a report finishes and releases, and what is forgotten."""

from collections.abc import Mapping
from typing import Any

import pytest
import sqlalchemy as sa
from msgspec.structs import replace

from cumulet.core import clock
from cumulet.core.client import Controller
from cumulet.core.errors import Retry
from cumulet.core.heartbeat import Heartbeat
from cumulet.core.http import App
from cumulet.core.reconcile import Loop
from cumulet.core.schema import encode
from cumulet.core.tables import agents
from cumulet.glance.public import image_ticket
from cumulet.neutron.tables import port_bindings, ports
from cumulet.nova.compute.agent import ComputeAgent, HttpConductor
from cumulet.nova.conductor import Historian, Releaser, build, build_app
from cumulet.nova.model import Inventory, Seen, Verb
from cumulet.nova.tables import server_actions, server_hosts, servers
from cumulet.placement import public as placement
from cumulet.placement.model import Resources
from cumulet.placement.tables import allocations
from cumulet.sim.guests import INVENTORY
from cumulet.sim.hypervisor import SimHypervisor
from tests.nova.engine_cloud import SECRETS, Cloud

WEEK_AGO = clock.later(-8 * 86400)


class InProcess(Controller):
    """A controller that is an App in this process: the wire's JSON without the wire."""

    def __init__(self, app: App, host: str, token: str) -> None:
        super().__init__("nova-conductor", "http://127.0.0.1:1", host, token)
        self.app, self.requests = app, 0

    def _request(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> tuple[int, dict[str, str], bytes]:
        self.requests += 1
        status, answer, given = self.app.call(method, path, body, {**self._headers(), **headers})
        data = b"" if answer is None else answer if isinstance(answer, bytes) else encode(answer)
        if status >= 400:
            self._refused(status, data, path)
        return status, {key.lower(): value for key, value in given.items()}, data


class Conducted(Cloud):
    """A cloud with one host and its nova-conductor."""

    def __init__(self) -> None:
        super().__init__()
        self.app = build_app(self.env)
        self.add_host("h1")
        self.add_host("h2")

    def placed(self, *names: str, **changes: Any) -> None:
        for name in names:
            self.add_server(name, availability_zone="nova:h1", **changes)
        self.place()

    def call(self, method: str, path: str, body: Any = None, host: str = "h1") -> tuple[int, Any]:
        status, answer, _ = self.app.call(method, path, body, self.host_headers(host))
        return status, answer

    def intents(self, host: str = "h1") -> dict[str, Any]:
        status, answer = self.call("GET", f"/hosts/{host}/servers", host=host)
        assert status == 200
        assert isinstance(answer, dict)
        return answer

    def report(self, reports: Mapping[str, Seen], host: str = "h1") -> None:
        status, _ = self.call("POST", f"/hosts/{host}/servers", reports, host)
        assert status == 204

    def connect(self, host: str = "h1") -> InProcess:
        return InProcess(self.app, host, self.host_headers(host)["X-Cumulet-Host-Token"])


@pytest.fixture
def cloud() -> Conducted:
    return Conducted()


ON = Seen(1, "on", boot_id="b", reached=True)


def absent(generation: int) -> Seen:
    return Seen(generation, "absent", boot_id="b")


# ── the intent ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_host_reads_its_servers_and_no_others(cloud: Conducted) -> None:
    cloud.placed("s1")
    cloud.add_server("s2", availability_zone="nova:h2")
    cloud.place()
    (intent,) = cloud.intents().values()
    assert intent["id"] == "s1"
    assert intent["power"] == "on"
    assert intent["generation"] == intent["start_generation"] == 1
    assert intent["seen"] is None
    assert intent["image"]["ticket"] == image_ticket(SECRETS.host_secret, "image", "h1")
    (nic,) = intent["nics"]
    assert (nic["network_id"], nic["mtu"], nic["wired"]) == ("net", 1450, False)
    cloud.wire()
    assert cloud.intents()["s1"]["nics"][0]["wired"] is True


def test_a_host_speaks_for_itself_only(cloud: Conducted) -> None:
    cloud.placed("s1")
    for path in ("/hosts/h1/servers", "/hosts/h1/inventory", "/hosts/h1/servers/s1/config-drive"):
        assert cloud.call("GET", path, host="h2")[0] == 403
        assert cloud.app.call("GET", path)[0] == 401
    assert cloud.call("POST", "/hosts/h1/servers", {"s1": ON}, host="h2")[0] == 403
    cloud.report({"s1": ON}, "h2")
    assert cloud.hosts("s1")[0].seen_power is None


def test_an_unchanged_intent_is_not_sent_again(cloud: Conducted) -> None:
    cloud.placed("s1")
    headers = cloud.host_headers("h1")
    status, _, given = cloud.app.call("GET", "/hosts/h1/servers", headers=headers)
    again = {**headers, "If-None-Match": given["ETag"]}
    assert (status, cloud.app.call("GET", "/hosts/h1/servers", headers=again)[0]) == (200, 304)
    cloud.wire()
    assert cloud.app.call("GET", "/hosts/h1/servers", headers=again)[0] == 200


def test_the_number_of_queries_does_not_depend_on_the_number_of_servers(cloud: Conducted) -> None:
    cloud.placed("s1")
    cloud.statements.clear()
    cloud.intents()
    few = len(cloud.selects())
    cloud.placed(*(f"t{number}" for number in range(7)))
    cloud.statements.clear()
    assert len(cloud.intents()) == 8
    assert len(cloud.selects()) == few


def test_a_deleted_server_is_an_order_to_destroy_and_nothing_else(cloud: Conducted) -> None:
    cloud.placed("s1")
    cloud.order("s1", "reboot", verb=True)
    cloud.delete("s1")
    intent = cloud.intents()["s1"]
    assert (intent["absent"], intent["nics"], intent["verbs"], intent["image"]) == (True, [], [], None)


def test_verbs_and_orders_to_start_are_in_the_intent_until_they_are_done(cloud: Conducted) -> None:
    cloud.placed("s1")
    cloud.report({"s1": ON})
    assert cloud.intents()["s1"]["start_generation"] == 0
    assert cloud.intents()["s1"]["launched"] is True
    cloud.order("s1", "reboot", verb=True)
    intent = cloud.intents()["s1"]
    (verb,) = intent["verbs"]
    assert (verb["name"], intent["start_generation"]) == ("reboot", 2)
    cloud.report({"s1": replace(ON, generation=2, verbs_done=(verb["id"],))})
    intent = cloud.intents()["s1"]
    assert (intent["verbs"], intent["start_generation"], intent["seen"]["generation"]) == ([], 0, 2)


# ── what was seen ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_boot_is_reported_step_by_step(cloud: Conducted) -> None:
    cloud.placed("s1")
    cloud.report({"s1": Seen(1, "off", waiting="ports to be wired", boot_id="b")})
    (row,) = cloud.hosts("s1")
    assert (row.seen_power, row.seen_waiting, row.launched_at) == ("off", "ports to be wired", None)
    assert cloud.actions("s1")[0].finished_at is None
    cloud.report({"s1": ON})
    (row,) = cloud.hosts("s1")
    assert (row.seen_power, row.seen_waiting, row.seen_reached) == ("on", None, True)
    assert row.launched_at == row.seen_at
    (action,) = cloud.actions("s1")
    assert (action.finished_at, action.fault, action.host) == (row.seen_at, None, "h1")
    assert cloud.events() == ["compute.instance.create.end"]


def test_the_same_report_again_writes_nothing(cloud: Conducted) -> None:
    cloud.placed("s1")
    cloud.report({"s1": ON})
    cloud.statements.clear()
    cloud.report({"s1": ON})
    assert [text for text in cloud.statements if text.startswith(("UPDATE", "INSERT", "DELETE"))] == []


def test_a_report_of_many_servers_is_a_constant_number_of_queries(cloud: Conducted) -> None:
    names = [f"s{number}" for number in range(8)]
    cloud.placed(*names)
    cloud.statements.clear()
    cloud.report(dict.fromkeys(names, ON))
    assert len(cloud.selects()) == 2
    assert all(row.seen_power == "on" for row in cloud.hosts())


def test_a_fault_ends_the_actions_it_belongs_to_and_goes_with_the_next_success(cloud: Conducted) -> None:
    cloud.placed("s1")
    cloud.report({"s1": Seen(1, "off", fault="the image is refused", boot_id="b")})
    (row,) = cloud.hosts("s1")
    assert (row.seen_fault, row.seen_fault_at) == ("the image is refused", row.seen_at)
    assert cloud.actions("s1")[0].fault == "the image is refused"
    assert cloud.events() == ["compute.instance.create.error"]
    cloud.report({"s1": Seen(1, "off", fault="the image is refused", waiting="x", boot_id="b")})
    assert cloud.hosts("s1")[0].seen_fault_at == row.seen_fault_at
    cloud.report({"s1": ON})
    (row,) = cloud.hosts("s1")
    assert (row.seen_fault, row.seen_fault_at) == (None, None)


def test_stop_and_start_are_done_when_the_power_is_as_wanted(cloud: Conducted) -> None:
    cloud.placed("s1")
    cloud.report({"s1": ON})
    cloud.order("s1", "stop", power="off")
    cloud.report({"s1": replace(ON, generation=2, reached=False)})
    assert cloud.actions("s1")[1].finished_at is None, "it is still shutting down"
    cloud.report({"s1": Seen(2, "off", boot_id="b")})
    assert cloud.actions("s1")[1].finished_at
    cloud.order("s1", "start", power="on")
    cloud.report({"s1": ON})
    assert cloud.actions("s1")[2].finished_at is None, "that was said of an older wish"
    assert cloud.hosts("s1")[0].seen_generation == 2
    cloud.report({"s1": replace(ON, generation=3)})
    assert cloud.actions("s1")[2].finished_at
    assert cloud.events() == [
        "compute.instance.create.end",
        "compute.instance.power_off.end",
        "compute.instance.power_on.end",
    ]


def test_a_verb_that_failed_keeps_its_reason(cloud: Conducted) -> None:
    cloud.placed("s1")
    cloud.report({"s1": ON})
    cloud.order("s1", "reboot", verb=True)
    verb = cloud.intents()["s1"]["verbs"][0]["id"]
    cloud.report({"s1": replace(ON, generation=2)})
    assert cloud.actions("s1")[1].finished_at is None
    cloud.report({"s1": replace(ON, generation=2, verbs_done=(verb,), verb_faults={str(verb): "no such verb"})})
    assert cloud.actions("s1")[1].fault == "no such verb"
    assert cloud.events()[-1] == "compute.instance.reboot.error"


def test_a_report_of_the_future_is_a_lie(cloud: Conducted) -> None:
    cloud.placed("s1")
    cloud.report({"s1": replace(ON, generation=7)})
    assert cloud.hosts("s1")[0].seen_power is None


def test_nonsense_is_refused(cloud: Conducted) -> None:
    assert cloud.call("POST", "/hosts/h1/servers", {"s1": {"power": "on"}})[0] == 400
    assert cloud.call("POST", "/hosts/h1/servers", b"{")[0] == 400
    status, body = cloud.call("GET", "/hosts/h1/servers/s1/config-drive")
    assert (status, body["error"]["message"]) == (404, "there is no server s1 on h1")


# ── releases ─────────────────────────────────────────────────────────────────────────────────────────────────


def left_over(cloud: Cloud) -> list[Any]:
    tables = (server_hosts, allocations, ports, port_bindings)
    return [row for table in tables for row in cloud.all(sa.select(table))]


def test_absent_of_a_deleted_server_releases_all_it_held(cloud: Conducted) -> None:
    cloud.placed("s1", "s2")
    cloud.report({"s1": ON, "s2": ON})
    generation = cloud.delete("s1")
    cloud.report({"s1": absent(generation)})
    assert cloud.server("s1").gone_at
    assert [row.server_id for row in cloud.hosts()] == ["s2"]
    assert {row.consumer_id for row in cloud.all(sa.select(allocations))} == {"s2"}
    assert [row.server_id for row in cloud.all(sa.select(ports))] == ["s2"]
    assert cloud.actions("s1")[-1].finished_at
    assert cloud.events()[-1] == "compute.instance.delete.end"
    cloud.report({"s1": absent(generation)})
    assert "s1" not in cloud.intents()
    cloud.report({"s2": absent(cloud.delete("s2"))})
    assert left_over(cloud) == []


def test_a_stale_absent_releases_nothing(cloud: Conducted) -> None:
    """The host said so of an older wish, and may be busy making the machine."""
    cloud.placed("s1")
    cloud.report({"s1": absent(1)})
    assert cloud.hosts("s1")[0].seen_power == "absent"
    generation = cloud.delete("s1")
    cloud.report({"s1": absent(1)})
    assert cloud.server("s1").gone_at is None
    assert len(cloud.hosts("s1")) == 1
    cloud.report({"s1": absent(generation)})
    assert cloud.server("s1").gone_at


def test_absent_of_a_wanted_server_releases_nothing(cloud: Conducted) -> None:
    cloud.placed("s1")
    cloud.report({"s1": absent(1)})
    assert cloud.server("s1").gone_at is None
    assert left_over(cloud)


def test_a_tombstone_takes_one_host_of_two_away(cloud: Conducted) -> None:
    cloud.placed("s1")
    with cloud.db.transaction() as tx:
        tx.write(sa.update(server_hosts).values(wanted="absent"))
        tx.write(server_hosts.insert(), {"server_id": "s1", "host": "h2", "wanted": "run"})
        second = placement.find_capacity(tx, "h2")
        assert second
        placement.claim(tx, "s1", second, Resources(1, 512, 1))
    assert cloud.intents("h1")["s1"]["absent"] is True
    assert cloud.intents("h2")["s1"]["absent"] is False
    cloud.report({"s1": absent(1)}, "h1")
    (row,) = cloud.hosts("s1")
    assert (row.host, cloud.server("s1").gone_at) == ("h2", None)
    assert {row.provider_id for row in cloud.all(sa.select(allocations))} == {placement.provider_id("h2")}
    generation = cloud.delete("s1")
    cloud.report({"s1": absent(generation)}, "h2")
    assert left_over(cloud) == []


def test_deleted_before_it_was_placed(cloud: Conducted) -> None:
    cloud.add_server("s1")
    loop = Loop(Releaser(cloud.db, cloud.config).reconciler())
    loop.run_once()
    assert cloud.server("s1").gone_at is None
    cloud.delete("s1")
    loop.resync()
    loop.run_once()
    assert cloud.server("s1").gone_at
    assert left_over(cloud) == []
    assert all(action.finished_at for action in cloud.actions("s1"))


def test_a_server_that_was_placed_meanwhile_is_its_hosts_to_release(cloud: Conducted) -> None:
    cloud.add_server("s1")
    cloud.delete("s1")
    releaser = Releaser(cloud.db, cloud.config)
    (row,) = releaser.read().values()
    with cloud.db.transaction() as tx:
        tx.write(server_hosts.insert(), {"server_id": "s1", "host": "h1", "wanted": "run"})
    releaser.release(row)
    assert cloud.server("s1").gone_at is None


def test_a_server_that_changes_while_it_is_released_is_looked_at_again(cloud: Conducted) -> None:
    cloud.add_server("s1")
    cloud.delete("s1")
    releaser = Releaser(cloud.db, cloud.config)
    (row,) = releaser.read().values()
    with cloud.db.transaction() as tx:
        tx.write(sa.update(servers).values(generation=9))
    with pytest.raises(Retry):
        releaser.release(row)
    assert left_over(cloud)


# ── the inventory and signs of life ──────────────────────────────────────────────────────────────────────────


def test_the_inventory_goes_to_placement_and_to_the_agents_details(cloud: Conducted) -> None:
    cloud.config.compute.reserved_memory_mb = 1024
    assert HttpConductor(cloud.connect(), "h1").find_inventory() is None
    assert cloud.call("POST", "/hosts/h1/inventory", INVENTORY)[0] == 204
    with cloud.db.read() as tx:
        capacity = placement.find_capacity(tx, "h1")
    assert capacity
    assert capacity.free == Resources(64, 7168, 100)
    (row,) = cloud.all(sa.select(agents.c.details).where(agents.c.host == "h1"))
    assert row.details["inventory"]["cpu_model"] == "sim"
    assert cloud.call("GET", "/hosts/h1/inventory")[1]["memory_mb"] == 8192
    cloud.config.compute.memory_ratio = 1.5
    known = HttpConductor(cloud.connect(), "h1").find_inventory()
    assert known is None, "what placement has is not what the options say"
    assert cloud.call("POST", "/hosts/h1/inventory", {"vcpus": 1})[0] == 400


def test_a_heartbeat_is_written_down(cloud: Conducted) -> None:
    cloud.change_agent("h1", seen_at=WEEK_AGO)
    beat = Heartbeat(clock.now(), {"unknown": []})
    assert cloud.call("POST", "/hosts/h1/heartbeat/nova-compute", beat)[0] == 204
    (row,) = cloud.all(sa.select(agents).where(agents.c.host == "h1"))
    assert row.seen_at > WEEK_AGO


# ── what is forgotten ────────────────────────────────────────────────────────────────────────────────────────


def test_gone_servers_are_forgotten_after_a_week(cloud: Conducted) -> None:
    cloud.placed("old", "new", "alive")
    for name in ("old", "new"):
        cloud.report({name: absent(cloud.delete(name))})
    with cloud.db.transaction() as tx:
        tx.write(sa.update(servers).where(servers.c.id == "old").values(gone_at=WEEK_AGO))
    loop = Loop(Historian(cloud.db).reconciler())
    loop.run_once()
    assert sorted(row.id for row in cloud.all(sa.select(servers))) == ["alive", "new"]
    assert {row.server_id for row in cloud.all(sa.select(server_actions))} == {"alive", "new"}
    cloud.statements.clear()
    loop.resync()
    loop.run_once()
    assert len(cloud.selects()) == 1
    assert [text for text in cloud.statements if text.startswith("DELETE")] == []


def test_a_long_history_is_forgotten_bit_by_bit(cloud: Conducted) -> None:
    cloud.placed("old")
    with cloud.db.transaction() as tx:
        row = tx.find(sa.select(servers))
        assert row is not None
        tx.write(sa.update(servers).values(gone_at=WEEK_AGO))
        more = [{**row._mapping, "id": f"n{number}", "gone_at": WEEK_AGO} for number in range(449)]
        tx.write(servers.insert(), more)
    now = 0.0
    loop = Loop(Historian(cloud.db).reconciler(), clock=lambda: now)
    left = []
    for _ in range(4):
        loop.run_once()
        left.append(len(cloud.all(sa.select(servers.c.id))))
        now += 1.5
    assert left == [250, 50, 0, 0]


# ── nova-compute on the other end ────────────────────────────────────────────────────────────────────────────


class Host:
    """A real nova-compute on a simulated host, that talks to the real nova-conductor."""

    def __init__(self, cloud: Conducted) -> None:
        self.cloud, self.now = cloud, 0.0
        self.controller = cloud.connect()
        self.hypervisor = SimHypervisor(clock=lambda: self.now)
        agent = ComputeAgent(
            HttpConductor(self.controller, "h1"),
            self.hypervisor,
            cloud.config,
            boot_id=self.hypervisor.boot_id,
            topic="nova.hosts.h1",
            workers=1,
        )
        self.loops: list[Loop[Any]] = [Loop(one, clock=lambda: self.now) for one in agent.reconcilers()]
        self.loops += [Loop(one, clock=lambda: self.now) for one in build(cloud.env).loops]
        for loop in self.loops:
            loop.listen(cloud.bus)

    def settle(self) -> None:
        for _ in range(4):
            for loop in self.loops:
                loop.run_once()
            self.cloud.wire()
            self.now += 31


def test_a_life_from_the_intent_to_the_machine_and_back(cloud: Conducted) -> None:
    host = Host(cloud)
    host.settle()
    cloud.placed("s1")
    host.settle()
    assert host.hypervisor.running == ["s1"]
    assert cloud.hosts("s1")[0].seen_power == "on"
    cloud.order("s1", "reboot", verb=True, power="on")
    host.settle()
    assert host.hypervisor.machines["s1"].last_verb == cloud.actions("s1")[1].id
    cloud.order("s1", "stop", power="off")
    host.settle()
    assert (host.hypervisor.running, cloud.hosts("s1")[0].seen_power) == ([], "off")
    cloud.order("s1", "start", power="on")
    host.settle()
    host.hypervisor.end_guest("s1")
    host.settle()
    assert (cloud.hosts("s1")[0].seen_power, cloud.hosts("s1")[0].seen_reached) == ("off", True)
    cloud.order("s1", "start", power="on")
    host.settle()
    assert host.hypervisor.running == ["s1"]
    assert all(action.finished_at and not action.fault for action in cloud.actions("s1"))
    cloud.delete("s1")
    host.settle()
    assert cloud.server("s1").gone_at
    assert (host.hypervisor.machines, host.hypervisor.taps, left_over(cloud)) == ({}, {}, [])


def test_an_idle_host_asks_and_gets_nothing(cloud: Conducted) -> None:
    host = Host(cloud)
    cloud.placed("s1", "s2", "s3")
    host.settle()
    known: Mapping[str, Any] = HttpConductor(host.controller, "h1").read()
    host.controller.requests = 0
    cloud.statements.clear()
    for loop in host.loops[:2]:
        loop.resync()
        loop.run_once()
    assert host.controller.requests == 2  # the intent (304) and the inventory
    assert [text for text in cloud.statements if text.startswith(("UPDATE", "INSERT", "DELETE"))] == []
    assert HttpConductor(host.controller, "h1").read() is known


def test_what_the_host_has_is_known_to_the_controller(cloud: Conducted) -> None:
    host = Host(cloud)
    host.settle()
    inventory = HttpConductor(host.controller, "h1").find_inventory()
    assert inventory == INVENTORY
    assert isinstance(inventory, Inventory)


def test_the_config_drive_is_for_the_servers_host(cloud: Conducted) -> None:
    cloud.placed("s1", config_drive=True)
    files = HttpConductor(cloud.connect(), "h1").config_drive("s1")
    assert b'"uuid":"s1"' in files["openstack/latest/meta_data.json"].replace(b'": "', b'":"')
    assert cloud.call("GET", "/hosts/h2/servers/s1/config-drive", host="h2")[0] == 404


def test_the_verb_on_the_wire(cloud: Conducted) -> None:
    cloud.placed("s1")
    cloud.order("s1", "reboot", verb=True)
    intent = HttpConductor(cloud.connect(), "h1").read()["s1"]
    assert intent.verbs == (Verb(cloud.actions("s1")[1].id, "reboot", {}, "req-1"),)
