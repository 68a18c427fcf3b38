"""``loops``, ``trace``, ``events`` and ``audit`` on a simulated cloud: what they say is what happened."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from cumulet.cli import audit, events, happenings, loops, trace
from cumulet.core import clock, heartbeat, moments
from cumulet.core.errors import BadRequest
from cumulet.core.heartbeat import Heartbeat
from cumulet.core.reconcile import KeyStatus, LoopStatus
from cumulet.sim.world import World
from tests.sim.conftest import make_world

__all__ = ["make_world"]


def lived(make_world: Any) -> tuple[World, str]:
    """A world with a server that was renamed, stopped and deleted."""
    world: World = make_world(hosts=("h1",))
    server = world.create_server()
    world.settle()
    url = f"/v2.1/servers/{server}"
    assert world.nova.call("PUT", url, {"server": {"name": "renamed"}}, {"X-Auth-Token": "alice"})[0] == 200
    assert world.nova.call("POST", f"{url}/action", {"os-stop": None}, {"X-Auth-Token": "alice"})[0] == 202
    world.settle()
    assert world.nova.call("DELETE", url, None, {"X-Auth-Token": "alice"})[0] == 204
    world.settle()
    return world, server


def test_an_audit_tells_who_changed_what_and_what_was(make_world: Any) -> None:
    world, server = lived(make_world)
    with world.db.read() as tx:
        told = list(happenings.about(tx, server))
    types = [event.type for event in told]
    assert types[-1] == "compute.instance.delete.end"
    assert not any(kind.endswith(".start") for kind in types)
    found = list(audit.changes(told))
    assert {change.user_id for change in found} == {"alice"}
    renamed = [change for change in found if change.fields.get("display_name", ("", ""))[1] == "renamed"]
    assert renamed[0].fields["display_name"][0] == "vm"
    assert "display_name: vm -> renamed" in audit.text(renamed[0])
    created = told[types.index("compute.instance.create.end")]
    before = audit.state_at(told, created.time)
    assert before is not None
    assert (before["display_name"], before["state"]) == ("vm", "active")
    assert audit.state_at(told, clock.later(-3600)) is None, "it was not there yet"
    assert audit.state_at(told, clock.now()) is None, "it is gone"


def test_a_thing_is_found_by_its_name(make_world: Any) -> None:
    world, server = lived(make_world)
    with world.db.read() as tx:
        assert {event.thing for event in happenings.about(tx, "renamed")} == {server}
        assert list(happenings.about(tx, "%")) == []


@pytest.mark.parametrize("given", ["", "yesterday", "2026-13-01", "9" * 50])
def test_what_is_no_time_is_refused(given: str) -> None:
    with pytest.raises(BadRequest, match="not a time"):
        audit._moment(given)


@pytest.mark.parametrize(
    ("event_type", "payload", "expected"),
    [
        ("port.update.end", {"port": {"id": "p", "name": "n"}}, ("p", "n", {"id": "p", "name": "n"})),
        ("port.delete.end", {"port_id": "p", "port": {"id": "p"}}, ("p", "", None)),
        ("compute.instance.update", {"instance_id": "s", "display_name": "vm"}, ("s", "vm", ...)),
        ("image.update", {"id": "i", "name": "cirros"}, ("i", "cirros", ...)),
        ("identity.user.deleted", {"resource_info": "u"}, ("u", "", None)),
        ("tag.create.end", {"parent_resource": "networks", "parent_resource_id": "n"}, ("n", "", ...)),
        ("odd", {"odd": 5, "id": 7}, ("", "", ...)),
    ],
)
def test_each_projects_form_is_understood(event_type: str, payload: Any, expected: Any) -> None:
    thing, name, state = happenings.describe(event_type, payload)
    assert (thing, name) == expected[:2]
    assert state == (payload if expected[2] is ... else expected[2])


def test_events_come_in_order_and_each_once(make_world: Any) -> None:
    world, _ = lived(make_world)
    with world.db.read() as tx:
        newest = happenings.newest(tx, 1000)
        assert [event.time for event in newest] == sorted(event.time for event in newest)
        assert happenings.newest(tx, 3) == newest[-3:]
        half = newest[len(newest) // 2]
        known = frozenset(event.id for event in newest if event.time <= half.time)
        later = happenings.after(tx, half.time, known)
    assert [event.id for event in later] == [event.id for event in newest if event.time > half.time]
    assert "compute.instance.create.end" in events.line(newest[0]) or "." in newest[0].type


def test_a_trace_puts_logs_and_rows_of_all_services_in_order(make_world: Any, tmp_path: Path) -> None:
    world, server = lived(make_world)
    with world.db.read() as tx:
        request = next(event.request_id for event in happenings.newest(tx, 1000) if "power_off" in event.type)
        told = list(trace.rows(tx, request))
    texts = [moment.text for moment in told]
    assert f"ordered stop of server {server}" in texts
    assert f"stop of server {server} done" in texts
    log = tmp_path / "nova-compute.log"
    record = {"time": clock.now(), "service": "nova-compute", "level": "INFO", "message": "server: stop"}
    lines = [
        {**record, "request_id": request},
        {**record, "request_id": "req-other"},
        {**record, "request_id": "", "message": f"POST /x 202 [{request}]", "level": "WARNING"},
    ]
    log.write_bytes(b"not json\n" + b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
    found = list(moments.logged(log, "h1", request))
    assert [moment.text for moment in found] == ["server: stop", f"WARNING POST /x 202 [{request}]"]
    assert "nova-compute" in trace.line(found[0])
    assert list(moments.logged(tmp_path / "none.log", "h1", request)) == []


def test_loops_of_other_nodes_are_those_of_their_last_sign(make_world: Any) -> None:
    world: World = make_world(hosts=("h1",))
    failing = {"k\x1b[31m": KeyStatus("the disk is \x1b[2J full", "waiting", 3, clock.now(), 2.0)}
    sign = Heartbeat(clock.now(), {}, [LoopStatus("servers", clock.now(), 7, "", failing)])
    with world.db.transaction() as tx:
        heartbeat.beat(tx, "nova-compute", "elsewhere", sign)
    with world.db.read() as tx:
        lines = [line for line in loops.read(world.config, tx, {}) if line.host == "elsewhere"]
    assert [(line.service, line.loop.keys, line.silent) for line in lines] == [("nova-compute", 7, "")]
    shown = loops.text(lines)
    assert "node elsewhere" in shown
    assert "3 tries since" in shown
    assert "\x1b" not in shown, "what a host tells cannot command a terminal"
