"""/os-server-external-events: a code for each event, and a hint to the host that has to look."""

from typing import Any

import pytest

from cumulet.core.context import Context
from tests.nova.api_cloud import PEOPLE, Cloud

URL = "/os-server-external-events"
NOBODY = "00000000-0000-0000-0000-000000000000"


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Cloud:
    neutron = Context(user_id="neutron", project_id="service", roles=frozenset({"service"}))
    monkeypatch.setitem(PEOPLE, "neutron", neutron)
    cloud = Cloud()
    cloud.add_host("h1")
    return cloud


def event(server_id: str, name: str = "network-changed", **more: Any) -> dict[str, Any]:
    return {"name": name, "server_uuid": server_id, **more}


def test_an_event_makes_the_host_look(cloud: Cloud) -> None:
    server = cloud.running()
    cloud.hints.clear()
    plugged = event(server, "network-vif-plugged", tag="port", status="completed")
    status, answer = cloud.call("neutron", "POST", URL, {"events": [plugged]})
    assert (status, answer) == (200, {"events": [{**plugged, "code": 200}]})
    assert cloud.hints == [("nova.hosts.h1", server)]
    unsaid = cloud.good("admin", "POST", URL, {"events": [event(server)]})["events"]
    assert unsaid == [{**event(server), "status": "completed", "code": 200}]


def test_each_event_has_its_code(cloud: Cloud) -> None:
    here, gone = cloud.running(), cloud.running(name="gone")
    cloud.good("alice", "DELETE", f"/servers/{gone}")
    cloud.report(gone, "absent")
    homeless = cloud.create()
    events = [event(here), event(homeless), event(gone), event(NOBODY), event(here, "volume-extended")]
    status, answer = cloud.call("admin", "POST", URL, {"events": events})
    assert status == 207
    assert [(one["code"], one["status"]) for one in answer["events"]] == [
        (200, "completed"), (422, "failed"), (404, "failed"), (404, "failed"), (400, "failed"),
    ]  # fmt: skip


def test_names_of_each_version(cloud: Cloud) -> None:
    server = cloud.running()
    for name, since in (("volume-extended", 51), ("power-update", 76), ("accelerator-request-bound", 82)):
        body = {"events": [event(server, name, tag="x")]}
        assert cloud.refused("admin", "POST", URL, body, f"2.{since - 1}")[0] == 400
        assert cloud.call("admin", "POST", URL, body, f"2.{since}")[0] == 200


def test_what_is_refused(cloud: Cloud) -> None:
    server = cloud.running()
    for who in ("alice", "rita"):
        assert cloud.refused(who, "POST", URL, {"events": [event(server)]})[0] == 403
    for events in (
        None, [], [event("x")], [event(server, "earthquake")], [event(server, status="odd")], [event(server, x=1)],
        [event(server, tag="t" * 256)],
    ):  # fmt: skip
        assert cloud.refused("admin", "POST", URL, {"events": events})[0] == 400
