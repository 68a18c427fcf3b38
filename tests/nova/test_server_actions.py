"""Start, stop, reboot, locks, history, interfaces, the console's log."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from cumulet.core.secrets import host_token
from tests.nova.api_cloud import SECRETS, Cloud


@pytest.fixture
def cloud() -> Cloud:
    cloud = Cloud()
    cloud.add_host()
    return cloud


def state(cloud: Cloud, server: str) -> tuple[str, str | None]:
    shown = cloud.show("alice", server)
    return shown["status"], shown["OS-EXT-STS:task_state"]


def refused(cloud: Cloud, server: str, **action: Any) -> str:
    body = {name.replace("os_", "os-"): value for name, value in action.items()}
    status, message = cloud.refused("alice", "POST", f"/servers/{server}/action", body)
    assert status == 409, message
    return message


def test_stop_and_start(cloud: Cloud) -> None:
    server = cloud.create()
    assert refused(cloud, server, os_stop=None) == f"Instance {server} is not ready"
    cloud.place()
    assert (
        refused(cloud, server, os_stop=None) == f"Cannot 'stop' instance {server} while it is in vm_state building"
    )
    cloud.report(server, "on")
    assert (
        refused(cloud, server, os_start=None) == f"Cannot 'start' instance {server} while it is in vm_state active"
    )
    cloud.hints.clear()
    assert cloud.call("alice", "POST", f"/servers/{server}/action", {"os-stop": None}) == (202, b"")
    assert {("nova.hosts.h1", server), ("nova.servers", server)} <= set(cloud.hints)
    assert state(cloud, server) == ("ACTIVE", "powering-off")
    message = refused(cloud, server, os_stop=None)
    assert message == f"Cannot 'stop' instance {server} while it is in task_state powering-off"
    cloud.report(server, "off", reached=False)
    assert state(cloud, server) == ("SHUTOFF", None)
    assert (
        refused(cloud, server, os_stop=None) == f"Cannot 'stop' instance {server} while it is in vm_state stopped"
    )
    cloud.act("alice", server, os_start={})
    assert state(cloud, server) == ("SHUTOFF", "powering-on")
    cloud.report(server, "on")
    assert state(cloud, server) == ("ACTIVE", None)
    for event in ("power_off.start", "power_off.end", "power_on.start", "power_on.end"):
        assert len(cloud.notified(f"compute.instance.{event}")) == 1


def test_a_server_that_ended_itself_is_started_again(cloud: Cloud) -> None:
    server = cloud.running()
    cloud.report(server, "crashed", reached=True)
    assert state(cloud, server) == ("SHUTOFF", None)
    assert cloud.show("alice", server)["OS-EXT-STS:power_state"] == 6
    cloud.act("alice", server, os_start=None)
    assert state(cloud, server) == ("SHUTOFF", "powering-on")
    cloud.report(server, "on")
    assert state(cloud, server) == ("ACTIVE", None)


def test_reboot(cloud: Cloud) -> None:
    server = cloud.running()
    cloud.act("alice", server, reboot={"type": "soft"})
    assert state(cloud, server) == ("REBOOT", "rebooting")
    assert cloud.get("alice", "/servers?status=REBOOT")["servers"][0]["id"] == server
    message = refused(cloud, server, reboot={"type": "SOFT"})
    assert message == f"Cannot 'reboot' instance {server} while it is in task_state rebooting"
    cloud.act("alice", server, reboot={"type": "Hard"})
    assert state(cloud, server) == ("HARD_REBOOT", "rebooting_hard")
    verbs = cloud.verbs(server)
    assert len(verbs) == 2
    cloud.report(server, "on", verbs_done=verbs)
    assert state(cloud, server) == ("ACTIVE", None)
    cloud.act("alice", server, os_stop=None)
    cloud.report(server, "off", reached=False)
    assert "vm_state stopped" in refused(cloud, server, reboot={"type": "SOFT"})
    cloud.act("alice", server, reboot={"type": "HARD"})
    assert state(cloud, server)[0] == "HARD_REBOOT"
    url = f"/servers/{server}/action"
    bad: Any
    for bad in ({"reboot": {"type": "LUKEWARM"}}, {"reboot": {}}, {"reboot": None}, {"fly": None}, {}, []):
        assert cloud.refused("alice", "POST", url, bad)[0] == 400
    assert cloud.refused("alice", "POST", url, {"os-stop": None, "os-start": None})[0] == 400


def test_locks(cloud: Cloud) -> None:
    server = cloud.running()
    assert cloud.show("alice", server)["locked"] is False
    cloud.act("alice", server, lock={"locked_reason": "do not touch"})
    shown = cloud.show("alice", server)
    assert (shown["locked"], shown["locked_reason"]) == (True, "do not touch")
    assert refused(cloud, server, os_stop=None) == f"Instance {server} is locked"
    assert cloud.refused("alice", "DELETE", f"/servers/{server}") == (409, f"Instance {server} is locked")
    assert len(cloud.get("alice", "/servers?locked=True")["servers"]) == 1
    cloud.act("alice", server, unlock=None)
    cloud.act("admin", server, lock=None)
    assert cloud.refused("alice", "POST", f"/servers/{server}/action", {"unlock": None})[0] == 403
    cloud.act("admin", server, os_stop=None)
    cloud.act("admin", server, unlock=None)
    url, lock = f"/servers/{server}/action", {"lock": {"locked_reason": "x"}}
    assert cloud.refused("alice", "POST", url, lock, "2.72")[0] == 400


def test_history(cloud: Cloud) -> None:
    server = cloud.running()
    cloud.act("alice", server, os_stop=None)
    url = f"/servers/{server}/os-instance-actions"
    stop, create = cloud.get("alice", url)["instanceActions"]
    assert (stop["action"], create["action"]) == ("stop", "create")
    assert (create["user_id"], create["project_id"], create["instance_uuid"]) == ("alice", "red", server)
    assert create["request_id"].startswith("req-")
    assert "events" not in stop
    (event,) = cloud.get("alice", f"{url}/{create['request_id']}")["instanceAction"]["events"]
    assert (event["event"], event["result"]) == ("compute__do_build_and_run_instance", "Success")
    assert "traceback" not in event
    assert "host" not in event
    (event,) = cloud.get("admin", f"{url}/{stop['request_id']}")["instanceAction"]["events"]
    assert (event["event"], event["result"], event["host"]) == ("compute_stop_instance", None, "h1")
    assert {"traceback", "details", "hostId", "finish_time"} <= set(event)
    assert "events" not in cloud.get("alice", f"{url}/{stop['request_id']}", "2.50")["instanceAction"]
    assert "updated_at" not in cloud.get("alice", url, "2.57")["instanceActions"][0]
    assert cloud.refused("alice", "GET", f"{url}/req-1") == (404, "Action req-1 not found")
    page = cloud.get("alice", f"{url}?limit=1")
    assert [action["action"] for action in page["instanceActions"]] == ["stop"]
    follow = page["links"][0]["href"].removeprefix("http://127.0.0.1:8774/v2.1")
    assert [action["action"] for action in cloud.get("alice", follow)["instanceActions"]] == ["create"]
    assert cloud.get("alice", f"{url}?changes-since=2100-01-01")["instanceActions"] == []
    assert cloud.refused("alice", "GET", f"{url}?changes-since=soon")[0] == 400
    cloud.good("alice", "DELETE", f"/servers/{server}")
    cloud.report(server, "absent")
    assert len(cloud.get("alice", url)["instanceActions"]) == 3
    assert cloud.refused("alice", "GET", url, version="2.20")[0] == 404


def test_a_failure_is_in_the_history_and_in_the_server(cloud: Cloud) -> None:
    server = cloud.create()
    cloud.place()
    cloud.report(server, "off", fault="the image is not what it says", reached=False)
    shown = cloud.show("alice", server)
    assert (shown["status"], shown["fault"]["message"]) == ("ERROR", "the image is not what it says")
    assert "details" not in shown["fault"]
    assert cloud.show("admin", server)["fault"]["details"] == "the image is not what it says"
    (create,) = cloud.get("alice", f"/servers/{server}/os-instance-actions")["instanceActions"]
    assert create["message"] == "Error"
    assert "fault" in cloud.get("alice", "/servers/detail?status=ERROR")["servers"][0]


def test_interfaces(cloud: Cloud) -> None:
    network, second = cloud.network(), cloud.network(name="second", cidr="10.1.0.0/24")
    server = cloud.running(networks=[{"uuid": network}])
    url = f"/servers/{server}/os-interface"
    (first,) = cloud.get("alice", url)["interfaceAttachments"]
    assert (first["net_id"], first["port_state"], first["tag"]) == (network, "BUILD", None)
    assert first["fixed_ips"][0]["ip_address"] == "10.0.0.2"
    assert cloud.get("alice", f"{url}/{first['port_id']}", "2.69")["interfaceAttachment"] == {
        name: value for name, value in first.items() if name != "tag"
    }
    wish = {"interfaceAttachment": {"net_id": second, "fixed_ips": [{"ip_address": "10.1.0.9"}]}}
    cloud.hints.clear()
    added = cloud.good("alice", "POST", url, wish)["interfaceAttachment"]
    assert added["fixed_ips"][0]["ip_address"] == "10.1.0.9"
    assert ("nova.hosts.h1", server) in cloud.hints
    assert set(cloud.show("alice", server)["addresses"]) == {"private", "second"}
    assert cloud.call("alice", "DELETE", f"{url}/{added['port_id']}")[0] == 202
    assert len(cloud.get("alice", url)["interfaceAttachments"]) == 1
    assert cloud.refused("alice", "DELETE", f"{url}/{added['port_id']}")[0] == 404
    for bad in (
        {"net_id": network, "port_id": "x"},
        {"fixed_ips": [{"ip_address": "10.1.0.9"}]},
        {"net_id": network, "fixed_ips": [{"ip_address": "x"}]},
        {"net_id": network, "tag": "a,b"},
        {},
    ):
        assert cloud.refused("alice", "POST", url, {"interfaceAttachment": bad})[0] == 400
    assert cloud.refused("rita", "POST", url, wish)[0] == 403
    assert cloud.get("alice", f"/servers/{server}/os-volume_attachments") == {"volumeAttachments": []}
    assert cloud.refused("alice", "GET", f"/servers/{server}/os-volume_attachments/v")[0] == 404


def test_addresses_come_and_go(cloud: Cloud) -> None:
    network = cloud.network()
    server = cloud.running(networks=[{"uuid": network}])
    url = f"/servers/{server}/action"

    def ips() -> list[str]:
        return [found["addr"] for found in cloud.get("alice", f"/servers/{server}/ips/private")["private"]]

    (first,) = ips()
    cloud.hints.clear()
    assert cloud.call("alice", "POST", url, {"addFixedIp": {"networkId": network}}, "2.43") == (202, b"")
    second = (set(ips()) - {first}).pop()
    assert "neutron.ports.h1" in {topic for topic, _ in cloud.hints}
    cloud.good("alice", "POST", url, {"removeFixedIp": {"address": first}}, "2.43")
    assert ips() == [second]
    for body, status in (
        ({"removeFixedIp": {"address": first}}, 404),
        ({"removeFixedIp": {"address": "x"}}, 400),
        ({"addFixedIp": {"networkId": "none"}}, 404),
        ({"addFixedIp": {}}, 400),
    ):
        assert cloud.refused("alice", "POST", url, body, "2.43")[0] == status
    for body in ({"addFixedIp": {"networkId": network}}, {"removeFixedIp": {"address": second}}):
        assert cloud.refused("alice", "POST", url, body, "2.44")[0] == 400
        assert cloud.refused("rita", "POST", url, body, "2.43")[0] == 403


# ── the console's log ────────────────────────────────────────────────────────────────────────────────────────


class Console(BaseHTTPRequestHandler):
    """What nova-compute serves."""

    log = b"boot\r\n\x1b[1mlogin:\x1b[0m \xff\nlast\n"
    asked: list[str] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        good = self.headers["X-Cumulet-Host-Token"] == host_token(
            SECRETS.host_secret, self.headers["X-Cumulet-Host"]
        )
        self.send_response(200 if good else 401)
        self.end_headers()
        self.wfile.write(self.log if good else b"")

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def console() -> Iterator[int]:
    server = HTTPServer(("127.0.0.1", 0), Console)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


def test_console_output(console: int) -> None:
    cloud = Cloud(console_port=console)
    cloud.add_host(address="127.0.0.1")
    server = cloud.create()
    url = f"/servers/{server}/action"
    assert cloud.refused("alice", "POST", url, {"os-getConsoleOutput": {}}) == (
        409,
        f"Instance {server} is not ready",
    )
    cloud.place()
    Console.asked.clear()
    answer = cloud.good("alice", "POST", url, {"os-getConsoleOutput": {}})
    assert answer == {"output": "boot\n[1mlogin:[0m �\nlast\n"}
    cloud.good("alice", "POST", url, {"os-getConsoleOutput": {"length": "5"}})
    cloud.good("alice", "POST", url, {"os-getConsoleOutput": {"length": -1}})
    path = f"/servers/{server}/console"
    assert Console.asked == [path, f"{path}?length=5", path]
    for bad in ({"length": -2}, {"length": "x"}, {"lines": 1}, None):
        assert cloud.refused("alice", "POST", url, {"os-getConsoleOutput": bad})[0] == 400


def test_console_of_a_silent_host(cloud: Cloud) -> None:
    cloud.add_host("h1", address="127.0.0.1")
    server = cloud.running()
    status, message = cloud.refused("alice", "POST", f"/servers/{server}/action", {"os-getConsoleOutput": {}})
    assert status == 503
    assert "does not answer" in message


# ── pause, suspend ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("down", "up", "power", "doing", "undoing", "status", "number"),
    [
        ("pause", "unpause", "paused", "pausing", "unpausing", "PAUSED", 3),
        ("suspend", "resume", "suspended", "suspending", "resuming", "SUSPENDED", 4),
    ],
)
def test_pause_and_suspend(
    cloud: Cloud, down: str, up: str, power: str, doing: str, undoing: str, status: str, number: int
) -> None:
    server = cloud.running()
    assert refused(cloud, server, **{up: None}) == (
        f"Cannot '{up}' instance {server} while it is in vm_state active"
    )
    cloud.act("alice", server, **{down: None})
    assert state(cloud, server) == ("ACTIVE", doing)
    assert refused(cloud, server, **{down: None}) == (
        f"Cannot '{down}' instance {server} while it is in task_state {doing}"
    )
    cloud.report(server, power)
    shown = cloud.show("alice", server)
    assert (shown["status"], shown["OS-EXT-STS:vm_state"]) == (status, power)
    assert (shown["OS-EXT-STS:task_state"], shown["OS-EXT-STS:power_state"]) == (None, number)
    assert cloud.get("alice", f"/servers?status={status}")["servers"][0]["id"] == server
    for action in ({"os_stop": None}, {"os_start": None}, {"reboot": {"type": "SOFT"}}, {down: None}):
        assert f"while it is in vm_state {power}" in refused(cloud, server, **action)
    cloud.act("alice", server, **{up: None})
    assert state(cloud, server) == (status, undoing)
    cloud.report(server, "on")
    assert state(cloud, server) == ("ACTIVE", None)
    for event in (f"{down}.start", f"{down}.end", f"{up}.start", f"{up}.end"):
        assert len(cloud.notified(f"compute.instance.{event}")) == 1
    actions = cloud.get("alice", f"/servers/{server}/os-instance-actions")["instanceActions"]
    assert [action["action"] for action in actions] == [up, down, "create"]
    cloud.act("alice", server, **{down: None})
    cloud.report(server, power)
    cloud.act("alice", server, reboot={"type": "HARD"})
    assert state(cloud, server) == ("HARD_REBOOT", "rebooting_hard")
    cloud.report(server, "on", verbs_done=cloud.verbs(server))
    assert state(cloud, server) == ("ACTIVE", None)
    assert cloud.refused("rita", "POST", f"/servers/{server}/action", {down: None})[0] == 403
    assert cloud.refused("bob", "POST", f"/servers/{server}/action", {down: None})[0] == 404
    cloud.act("alice", server, lock=None)
    assert refused(cloud, server, **{down: None}) == f"Instance {server} is locked"


def test_who_stands_still_because_its_disk_is_full_is_unpaused_by_its_owner(cloud: Cloud) -> None:
    server = cloud.running()
    cloud.report(server, "paused", reached=True)
    assert state(cloud, server) == ("PAUSED", None)
    cloud.act("alice", server, unpause=None)
    assert state(cloud, server) == ("PAUSED", "unpausing")
    cloud.report(server, "on")
    assert state(cloud, server) == ("ACTIVE", None)


# ── what ends at once ────────────────────────────────────────────────────────────────────────────────────────


def test_a_password_is_not_changed_where_there_is_no_agent(cloud: Cloud) -> None:
    server = cloud.running()
    assert refused(cloud, server, changePassword={"adminPass": "x"}) == "QEMU guest agent is not enabled"
    url, bad = f"/servers/{server}/action", {"changePassword": {"password": "x"}}
    assert cloud.refused("alice", "POST", url, bad)[0] == 400
    assert cloud.refused("rita", "POST", url, {"changePassword": {"adminPass": "x"}})[0] == 403
    cloud.act("alice", server, os_stop=None)
    assert "task_state powering-off" in refused(cloud, server, changePassword={"adminPass": "x"})


def test_locks_are_history_at_once(cloud: Cloud) -> None:
    server = cloud.running()
    cloud.act("alice", server, lock=None)
    cloud.act("alice", server, unlock=None)
    url = f"/servers/{server}/os-instance-actions"
    actions = cloud.get("alice", url)["instanceActions"]
    assert [action["action"] for action in actions] == ["unlock", "lock", "create"]
    for action in actions:
        (event,) = cloud.get("alice", f"{url}/{action['request_id']}")["instanceAction"]["events"]
        assert (event["result"], event["finish_time"] is None) == ("Success", False)


def test_the_request_that_began_an_action_is_told_in_its_answer(cloud: Cloud) -> None:
    server = cloud.running()
    status, _, headers = cloud.answer("alice", "POST", f"/servers/{server}/action", {"pause": None})
    assert (status, headers["X-Compute-Request-Id"]) == (202, headers["X-Openstack-Request-Id"])
    url = f"/servers/{server}/os-instance-actions/{headers['X-Compute-Request-Id']}"
    assert cloud.get("alice", url)["instanceAction"]["action"] == "pause"


def test_deletion_is_not_deferred(cloud: Cloud) -> None:
    server = cloud.running()
    assert refused(cloud, server, restore=None) == (
        f"Cannot 'restore' instance {server} while it is in vm_state active"
    )
    url = f"/servers/{server}/action"
    assert cloud.refused("rita", "POST", url, {"forceDelete": None})[0] == 403
    assert cloud.call("alice", "POST", url, {"forceDelete": None}) == (202, b"")
    assert state(cloud, server) == ("ACTIVE", "deleting")
    cloud.report(server, "absent")
    for action in ("forceDelete", "restore"):
        assert cloud.refused("alice", "POST", url, {action: None})[0] == 404
