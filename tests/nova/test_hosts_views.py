"""What administrators see of hosts: services, hypervisors, zones; and quotas, limits, extensions for everybody."""

import pytest
import sqlalchemy as sa

from cumulet.core import clock
from cumulet.core.heartbeat import Heartbeat, beat
from cumulet.core.tables import agents
from tests.nova.api_cloud import Cloud


@pytest.fixture
def cloud() -> Cloud:
    cloud = Cloud()
    cloud.add_host("h1", vcpus=4)
    cloud.add_host("h2", vcpus=4)
    with cloud.db.transaction() as tx:
        for binary in ("nova-scheduler", "nova-api", "neutron-dhcp-agent"):
            beat(tx, binary, "c1", Heartbeat(clock.now(), {}))
        tx.write(sa.update(agents).where(agents.c.host == "h2").values(seen_at=clock.later(-60)))
    return cloud


def test_services(cloud: Cloud) -> None:
    services = cloud.get("admin", "/os-services")["services"]
    assert [(one["binary"], one["host"], one["zone"], one["state"]) for one in services] == [
        ("nova-compute", "h1", "nova", "up"),
        ("nova-compute", "h2", "nova", "down"),
        ("nova-scheduler", "c1", "internal", "up"),
    ]
    assert all(one["status"] == "enabled" and one["forced_down"] is False for one in services)
    (compute,) = cloud.get("admin", "/os-services?binary=nova-compute&host=h1")["services"]
    url = f"/os-services/{compute['id']}"
    cloud.hints.clear()
    change = {"status": "disabled", "disabled_reason": "broken fan"}
    changed = cloud.good("admin", "PUT", url, change)["service"]
    assert (changed["status"], changed["disabled_reason"]) == ("disabled", "broken fan")
    assert ("nova.servers", "*") in cloud.hints
    server = cloud.create()
    cloud.place()
    assert (
        cloud.show("alice", server)["OS-EXT-STS:task_state"] == "scheduling" or cloud.show("alice", server)["fault"]
    )
    enabled = cloud.good("admin", "PUT", url, {"status": "enabled"})["service"]
    assert (enabled["status"], enabled["disabled_reason"]) == ("enabled", None)
    for bad in ({}, {"status": "sleepy"}, {"disabled_reason": "x"}, {"forced_down": True}, {"x": 1}):
        assert cloud.refused("admin", "PUT", url, bad)[0] == 400
    assert cloud.refused("admin", "PUT", f"/os-services/{services[2]['id']}", change)[0] == 400
    assert cloud.refused("admin", "PUT", "/os-services/nope", change)[0] == 404
    assert cloud.refused("alice", "GET", "/os-services")[0] == 403
    old = cloud.get("admin", "/os-services", "2.10")["services"][0]
    assert isinstance(old["id"], int)
    assert "forced_down" not in old


def test_hypervisors(cloud: Cloud) -> None:
    server = cloud.create()
    cloud.place()
    brief = cloud.get("admin", "/os-hypervisors")["hypervisors"]
    assert [(one["hypervisor_hostname"], one["state"], one["status"]) for one in brief] == [
        ("h1", "up", "enabled"),
        ("h2", "down", "enabled"),
    ]
    first = cloud.get("admin", "/os-hypervisors/detail")["hypervisors"][0]
    assert first["hypervisor_type"] == "QEMU"
    assert first["hypervisor_version"] == 7002022
    assert first["host_ip"] == "192.0.2.1"
    assert first["service"] == {"id": first["id"], "host": "h1", "disabled_reason": None}
    assert first["uptime"].startswith("up 0 days")
    assert "vcpus" not in first
    assert cloud.get("admin", f"/os-hypervisors/{first['id']}")["hypervisor"] == first
    assert cloud.refused("admin", "GET", "/os-hypervisors/h1")[0] == 404
    old = cloud.get("admin", f"/os-hypervisors/{first['id']}", "2.87")["hypervisor"]
    assert (old["vcpus"], old["vcpus_used"], old["running_vms"], old["free_ram_mb"]) == (4, 1, 1, 999488)
    assert "uptime" not in old
    assert isinstance(cloud.get("admin", "/os-hypervisors", "2.52")["hypervisors"][0]["id"], int)
    (with_servers,) = cloud.get("admin", "/os-hypervisors?hypervisor_hostname_pattern=h1&with_servers=1")[
        "hypervisors"
    ]
    assert with_servers["servers"] == [{"name": "vm", "uuid": server}]
    assert cloud.refused("admin", "GET", "/os-hypervisors?hypervisor_hostname_pattern=x")[0] == 404
    page = cloud.get("admin", "/os-hypervisors?limit=1")
    assert len(page["hypervisors"]) == 1
    assert page["hypervisors_links"][0]["href"].endswith(f"marker={first['id']}")
    assert (
        cloud.get("admin", f"/os-hypervisors?marker={first['id']}")["hypervisors"][0]["hypervisor_hostname"] == "h2"
    )
    for bad in ("limit=x", "marker=nope", "hypervisor_hostname_pattern=h&limit=1", "with_servers=perhaps"):
        assert cloud.refused("admin", "GET", f"/os-hypervisors?{bad}")[0] == 400
    total = cloud.get("admin", "/os-hypervisors/statistics", "2.1")["hypervisor_statistics"]
    assert (total["count"], total["vcpus"], total["vcpus_used"], total["memory_mb_used"]) == (2, 8, 1, 512)
    assert cloud.refused("admin", "GET", "/os-hypervisors/statistics")[0] == 404
    assert cloud.refused("alice", "GET", "/os-hypervisors")[0] == 403


def test_older_pages_of_hypervisors(cloud: Cloud) -> None:
    server = cloud.create()
    cloud.place()
    first, second = cloud.get("admin", "/os-hypervisors", "2.52")["hypervisors"]
    uptime = cloud.get("admin", f"/os-hypervisors/{first['id']}/uptime", "2.52")["hypervisor"]
    assert uptime["uptime"].startswith("up 0 days")
    assert {name: uptime[name] for name in first} == first
    assert cloud.refused("admin", "GET", f"/os-hypervisors/{second['id']}/uptime", version="2.52")[0] == 400, "down"
    assert cloud.get("admin", "/os-hypervisors/h/search", "2.52")["hypervisors"] == [first, second]
    with_servers = {**first, "servers": [{"name": "vm", "uuid": server}]}
    assert cloud.get("admin", "/os-hypervisors/h/servers", "2.52")["hypervisors"] == [with_servers, second]
    for url in ("1/uptime", "x/search", "x/servers"):
        assert cloud.refused("admin", "GET", f"/os-hypervisors/{url}", version="2.52")[0] == 404
        assert cloud.refused("alice", "GET", f"/os-hypervisors/{url}", version="2.52")[0] == 403
    assert cloud.refused("admin", "GET", "/os-hypervisors/h/search")[0] == 404
    assert cloud.refused("admin", "GET", f"/os-hypervisors/{first['id']}/uptime")[0] == 404


def test_availability_zones(cloud: Cloud) -> None:
    expected = [{"zoneName": "nova", "zoneState": {"available": True}, "hosts": None}]
    assert cloud.get("alice", "/os-availability-zone")["availabilityZoneInfo"] == expected
    assert cloud.refused("alice", "GET", "/os-availability-zone/detail")[0] == 403
    internal, nova = cloud.get("admin", "/os-availability-zone/detail")["availabilityZoneInfo"]
    assert (internal["zoneName"], list(internal["hosts"]["c1"])) == ("internal", ["nova-scheduler"])
    assert nova["hosts"]["h1"]["nova-compute"]["available"] is True
    assert nova["hosts"]["h2"]["nova-compute"]["available"] is False


def test_quotas(cloud: Cloud) -> None:
    url = "/os-quota-sets/red"
    cloud.create()
    shown = cloud.get("alice", url)["quota_set"]
    assert (shown["id"], shown["cores"], shown["instances"], shown["ram"]) == ("red", 20, 10, 51200)
    assert not {"floating_ips", "injected_files"} & set(shown)
    assert {"floating_ips", "fixed_ips", "injected_files"} <= set(cloud.get("alice", url, "2.35")["quota_set"])
    assert "injected_files" in cloud.get("alice", url, "2.56")["quota_set"]
    assert cloud.refused("alice", "GET", "/os-quota-sets/blue")[0] == 403
    changed = cloud.good("admin", "PUT", url, {"quota_set": {"cores": "30"}})["quota_set"]
    assert (changed["cores"], "id" in changed) == (30, False)
    assert cloud.get("alice", url)["quota_set"]["cores"] == 30
    assert cloud.get("alice", f"{url}/defaults")["quota_set"]["cores"] == 20
    detail = cloud.get("alice", f"{url}/detail")["quota_set"]
    assert detail["cores"] == {"limit": 30, "in_use": 1, "reserved": 0}
    assert cloud.refused("admin", "PUT", url, {"quota_set": {"instances": 0}})[0] == 400
    assert (
        cloud.good("admin", "PUT", url, {"quota_set": {"instances": 0, "force": True}})["quota_set"]["instances"]
        == 0
    )
    for bad in ({"cores": -2}, {"cores": "many"}, {"bananas": 1}, {"cores": 1 << 31}):
        assert cloud.refused("admin", "PUT", url, {"quota_set": bad})[0] == 400
    assert cloud.refused("alice", "PUT", url, {"quota_set": {"cores": 99}})[0] == 403
    assert cloud.call("admin", "DELETE", url)[0] == 202
    assert cloud.get("alice", url)["quota_set"]["cores"] == 20


def test_limits(cloud: Cloud) -> None:
    cloud.create()
    limits = cloud.get("alice", "/limits?reserved=False")["limits"]
    assert limits["rate"] == []
    absolute = limits["absolute"]
    assert (absolute["maxTotalCores"], absolute["totalCoresUsed"], absolute["totalRAMUsed"]) == (20, 1, 512)
    assert not {"maxImageMeta", "maxPersonality", "maxSecurityGroups"} & set(absolute)
    assert {"maxImageMeta", "maxPersonality", "maxSecurityGroups"} <= set(
        cloud.get("alice", "/limits", "2.1")["limits"]["absolute"]
    )
    assert cloud.refused("bob", "GET", "/limits?tenant_id=red")[0] == 403
    assert cloud.get("admin", "/limits?tenant_id=red")["limits"]["absolute"]["totalInstancesUsed"] == 1


def test_extensions(cloud: Cloud) -> None:
    aliases = {one["alias"] for one in cloud.get("alice", "/extensions")["extensions"]}
    assert "os-keypairs" in aliases
    assert cloud.get("alice", "/extensions/os-keypairs")["extension"]["alias"] == "os-keypairs"
    assert cloud.refused("alice", "GET", "/extensions/os-cells")[0] == 404


def test_collections_that_are_empty(cloud: Cloud) -> None:
    assert cloud.get("admin", "/os-aggregates") == {"aggregates": []}
    assert cloud.get("admin", "/os-migrations") == {"migrations": []}
    assert cloud.refused("alice", "GET", "/os-aggregates")[0] == 403
