"""/os-simple-tenant-usage: what projects' servers took."""

import pytest

from cumulet.core import clock
from tests.nova.api_cloud import Cloud

URL = "/os-simple-tenant-usage"


@pytest.fixture
def cloud() -> Cloud:
    cloud = Cloud()
    cloud.add_host("h1")
    return cloud


def test_usage_of_a_project(cloud: Cloud) -> None:
    assert cloud.get("alice", f"{URL}/red")["tenant_usage"] == {}
    running, deleted = cloud.running(), cloud.running(name="old")
    cloud.create(name="without a place")
    cloud.good("alice", "DELETE", f"/servers/{deleted}")
    cloud.report(deleted, "absent")
    period = f"start={clock.later(-3600)[:-1]}&end={clock.later(3600)[:-1]}"
    usage = cloud.get("alice", f"{URL}/red?{period}")["tenant_usage"]
    found = {one["instance_id"]: one for one in usage["server_usages"]}
    assert set(found) == {running, deleted}
    assert (found[running]["state"], found[running]["ended_at"]) == ("active", None)
    assert found[deleted]["state"] == "terminated"
    assert found[deleted]["ended_at"]
    assert found[running]["flavor"] == "m1.tiny"
    assert (found[running]["vcpus"], found[running]["memory_mb"], found[running]["local_gb"]) == (1, 512, 1)
    assert 0 <= found[running]["hours"] < 0.1, "not into the future"
    assert usage["total_hours"] == sum(one["hours"] for one in found.values())
    assert usage["total_memory_mb_usage"] == pytest.approx(512 * usage["total_hours"])
    before = f"start={clock.later(-7200)[:-1]}&end={clock.later(-3600)[:-1]}"
    assert cloud.get("alice", f"{URL}/red?{before}")["tenant_usage"] == {}


def test_usage_of_all(cloud: Cloud) -> None:
    cloud.running()
    cloud.running("bob")
    usages = cloud.get("admin", URL)["tenant_usages"]
    assert {one["tenant_id"] for one in usages} == {"red", "blue"}
    assert "server_usages" not in usages[0]
    assert len(cloud.get("admin", f"{URL}?detailed=1")["tenant_usages"][0]["server_usages"]) == 1
    first = cloud.get("admin", f"{URL}?limit=1&detailed=1")
    assert len(first["tenant_usages"]) == 1
    (link,) = first["tenant_usages_links"]
    second = cloud.get("admin", link["href"].split("/v2.1")[1])
    assert second["tenant_usages"][0]["tenant_id"] != first["tenant_usages"][0]["tenant_id"]
    assert len(cloud.get("admin", f"{URL}?limit=1", "2.39")["tenant_usages"]) == 2, "no pages yet"


def test_no_host_audits(cloud: Cloud) -> None:
    url = "/os-instance_usage_audit_log"
    log = cloud.get("admin", f"{url}/2026-03-31 10:00:00")["instance_usage_audit_log"]
    assert (log["period_beginning"], log["period_ending"]) == ("2026-02-01 00:00:00", "2026-03-01 00:00:00")
    assert (log["hosts_not_run"], log["num_hosts_done"], log["log"]) == (["h1"], 0, {})
    assert log["overall_status"] == "0 of 1 hosts done. 0 errors."
    assert set(cloud.get("admin", url)["instance_usage_audit_logs"]) == set(log)
    assert cloud.get("admin", f"{url}/0001-01-01 00:00:00.5")["instance_usage_audit_log"]["num_hosts"] == 1
    assert cloud.refused("admin", "GET", f"{url}/my_invalid_time")[0] == 400
    for path in (url, f"{url}/2026-03-31 10:00:00"):
        assert cloud.refused("alice", "GET", path)[0] == 403


def test_what_is_refused(cloud: Cloud) -> None:
    for bad in ("start=yesterday", "start=2026-02-01T00:00:00&end=2026-01-01T00:00:00", "limit=x", "marker=nope"):
        assert cloud.refused("admin", "GET", f"{URL}?{bad}")[0] == 400
        assert cloud.refused("admin", "GET", f"{URL}/red?{bad}")[0] == 400
    assert cloud.refused("alice", "GET", URL)[0] == 403
    assert cloud.refused("alice", "GET", f"{URL}/blue")[0] == 403
    assert cloud.call("rita", "GET", f"{URL}/red")[0] == 200
    assert cloud.refused("admin", "GET", f"{URL}/")[0] == 404, "no project has an empty name"
