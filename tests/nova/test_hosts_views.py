"""What administrators see of hosts: services, hypervisors, zones; and quotas, limits, extensions for everybody."""

import pytest
import sqlalchemy as sa

from cumulet.core import clock
from cumulet.core.heartbeat import Heartbeat, beat
from cumulet.core.tables import agents
from cumulet.placement import public as placement
from tests.nova.api_cloud import Cloud

UPTIME = " 17:37:14 up 2:33,  3 users,  load average: 0.33, 0.36, 0.34"


@pytest.fixture
def cloud() -> Cloud:
    cloud = Cloud()
    cloud.add_host("h1", vcpus=4, uptime=UPTIME)
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
    for bad in ({}, {"status": "sleepy"}, {"disabled_reason": "x"}, {"forced_down": "so"}, {"x": 1}):
        assert cloud.refused("admin", "PUT", url, bad)[0] == 400
    assert cloud.refused("admin", "PUT", f"/os-services/{services[2]['id']}", change)[0] == 400
    assert cloud.refused("admin", "PUT", "/os-services/nope", change)[0] == 404
    assert cloud.refused("alice", "GET", "/os-services")[0] == 403
    old = cloud.get("admin", "/os-services", "2.10")["services"][0]
    assert isinstance(old["id"], int)
    assert "forced_down" not in old
    assert len(cloud.get("admin", "/os-services", "2.69")["services"]) == 3


def test_a_service_is_down_because_an_administrator_says_so(cloud: Cloud) -> None:
    (compute,) = cloud.get("admin", "/os-services?binary=nova-compute&host=h1")["services"]
    url = f"/os-services/{compute['id']}"
    down = cloud.good("admin", "PUT", url, {"forced_down": True})["service"]
    assert (down["forced_down"], down["state"], down["status"]) == (True, "down", "enabled")
    server = cloud.create()
    cloud.place()
    assert cloud.show("admin", server)["OS-EXT-SRV-ATTR:host"] is None
    up = cloud.good("admin", "PUT", url, {"forced_down": "false"})["service"]
    assert (up["forced_down"], up["state"]) == (False, "up")


def test_older_ways_to_change_a_service(cloud: Cloud) -> None:
    named = {"host": "h1", "binary": "nova-compute"}

    def put(verb: str, version: str = "2.52", **more: object) -> object:
        return cloud.good("admin", "PUT", f"/os-services/{verb}", {**named, **more}, version)["service"]

    assert put("disable") == {**named, "status": "disabled"}
    assert put("disable-log-reason", disabled_reason="fan") == {
        **named,
        "status": "disabled",
        "disabled_reason": "fan",
    }
    assert put("enable", "2.1") == {**named, "status": "enabled"}
    assert put("force-down", "2.11", forced_down=True) == {**named, "forced_down": True}
    assert cloud.get("admin", "/os-services?host=h1", "2.11")["services"][0]["forced_down"] is True
    assert put("force-down", "2.11", forced_down=False) == {**named, "forced_down": False}
    for verb, version in (("enable", "2.53"), ("force-down", "2.10")):
        assert cloud.refused("admin", "PUT", f"/os-services/{verb}", named, version)[0] in (400, 404)
    nobody = {"host": "h9", "binary": "nova-compute"}
    assert cloud.refused("admin", "PUT", "/os-services/disable", nobody, "2.1")[0] == 404
    scheduler = {"host": "c1", "binary": "nova-scheduler"}
    assert cloud.refused("admin", "PUT", "/os-services/disable", scheduler, "2.1")[0] == 400
    assert cloud.refused("alice", "PUT", "/os-services/disable", named, "2.1")[0] == 403


def test_a_service_is_forgotten(cloud: Cloud) -> None:
    first, second, scheduler = cloud.get("admin", "/os-services")["services"]
    server = cloud.create()
    cloud.place()
    assert cloud.show("admin", server)["OS-EXT-SRV-ATTR:host"] == "h1"
    status, message = cloud.refused("admin", "DELETE", f"/os-services/{first['id']}")
    assert (status, "hosting instances" in message) == (409, True)
    old = cloud.get("admin", "/os-services?host=h2", "2.52")["services"][0]
    assert cloud.call("admin", "DELETE", f"/os-services/{old['id']}", version="2.52")[0] == 204
    assert cloud.call("admin", "DELETE", f"/os-services/{scheduler['id']}")[0] == 204
    assert [one["id"] for one in cloud.get("admin", "/os-services")["services"]] == [first["id"]]
    with cloud.db.read() as tx:
        assert [one.host for one in placement.list_capacity(tx)] == ["h1"]
    assert cloud.refused("admin", "DELETE", f"/os-services/{second['id']}")[0] == 404
    assert cloud.refused("alice", "DELETE", f"/os-services/{first['id']}")[0] == 403


def test_hosts_as_they_were(cloud: Cloud) -> None:
    cloud.create()
    cloud.create("bob")
    cloud.place()
    hosts = cloud.get("admin", "/os-hosts", "2.1")["hosts"]
    assert hosts == [
        {"host_name": "h1", "service": "compute", "zone": "nova"},
        {"host_name": "h2", "service": "compute", "zone": "nova"},
        {"host_name": "c1", "service": "scheduler", "zone": "internal"},
    ]
    assert cloud.get("admin", "/os-hosts?zone=internal", "2.1")["hosts"] == hosts[2:]
    assert cloud.get("admin", "/os-hosts?service=compute&zone=", "2.1")["hosts"] == hosts[:2]
    resources = [one["resource"] for one in cloud.get("admin", "/os-hosts/h1", "2.42")["host"]]
    assert [(one["project"], one["cpu"], one["memory_mb"], one["disk_gb"]) for one in resources] == [
        ("(total)", 4, 1000000, 100000),
        ("(used_now)", 2, 1024, 2),
        ("(used_max)", 2, 1024, 2),
        ("red", 1, 512, 1),
        ("blue", 1, 512, 1),
    ]
    assert cloud.good("admin", "PUT", "/os-hosts/h1", {"status": "disable"}, "2.1") == {
        "host": "h1",
        "status": "disabled",
    }
    assert cloud.get("admin", "/os-services?host=h1")["services"][0]["status"] == "disabled"
    for bad in ({}, {"status": "odd"}, {"x": 1}):
        assert cloud.refused("admin", "PUT", "/os-hosts/h1", bad, "2.1")[0] == 400
    for verb in ("reboot", "shutdown", "startup"):
        assert cloud.call("admin", "GET", f"/os-hosts/h1/{verb}", version="2.1")[0] == 501
        assert cloud.refused("admin", "GET", f"/os-hosts/h9/{verb}", version="2.1")[0] == 404
        assert cloud.refused("alice", "GET", f"/os-hosts/h1/{verb}", version="2.1")[0] == 403
    assert cloud.call("admin", "PUT", "/os-hosts/h1", {"maintenance_mode": "enable"}, "2.1")[0] == 501
    assert cloud.refused("admin", "GET", "/os-hosts/h9", version="2.1")[0] == 404
    assert cloud.refused("admin", "GET", "/os-hosts")[0] == 404
    assert cloud.refused("alice", "GET", "/os-hosts", version="2.1")[0] == 403


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
    assert first["uptime"] == UPTIME
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
    assert uptime["uptime"] == UPTIME
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


def test_quotas_of_one_user(cloud: Cloud) -> None:
    url = "/os-quota-sets/red"
    cloud.create("carol")
    assert cloud.good("admin", "PUT", f"{url}?user_id=alice", {"quota_set": {"instances": 1}})["quota_set"]
    assert cloud.get("admin", f"{url}?user_id=alice")["quota_set"]["instances"] == 1
    assert cloud.get("alice", url)["quota_set"]["instances"] == 10
    cloud.create("alice")
    status, message = cloud.call(
        "alice",
        "POST",
        "/servers",
        {"server": {"name": "vm", "imageRef": cloud.image, "flavorRef": cloud.flavor, "networks": "none"}},
    )
    assert status == 403
    assert "already used 1 of 1 instances" in message["forbidden"]["message"]
    detail = cloud.get("admin", f"{url}/detail?user_id=alice")["quota_set"]["instances"]
    assert detail == {"limit": 1, "in_use": 1, "reserved": 0}
    assert cloud.get("admin", f"{url}/detail")["quota_set"]["instances"]["in_use"] == 2
    for bad in ({"instances": 11}, {"instances": -1}, {"instances": 0}):
        assert cloud.refused("admin", "PUT", f"{url}?user_id=alice", {"quota_set": bad})[0] == 400
    assert cloud.call("admin", "DELETE", f"{url}?user_id=alice")[0] == 202
    cloud.create("alice")


def test_quota_classes(cloud: Cloud) -> None:
    url = "/os-quota-class-sets/default"
    shown = cloud.get("admin", url)["quota_class_set"]
    assert (shown["id"], shown["cores"], shown["server_groups"]) == ("default", 20, 10)
    assert not {"floating_ips", "injected_files"} & set(shown)
    old = cloud.get("admin", url, "2.49")["quota_class_set"]
    assert {"floating_ips", "injected_files"} <= set(old)
    assert "server_groups" not in old
    changed = cloud.good("admin", "PUT", url, {"quota_class_set": {"cores": 7}})["quota_class_set"]
    assert (changed["cores"], "id" in changed) == (7, False)
    assert cloud.get("alice", "/os-quota-sets/red")["quota_set"]["cores"] == 7
    assert cloud.get("alice", "/os-quota-sets/red/defaults")["quota_set"]["cores"] == 7
    assert cloud.get("alice", "/limits")["limits"]["absolute"]["maxTotalCores"] == 7
    cloud.good("admin", "PUT", "/os-quota-sets/red", {"quota_set": {"cores": 9}})
    assert cloud.get("alice", "/os-quota-sets/red")["quota_set"]["cores"] == 9
    cloud.good("admin", "PUT", "/os-quota-class-sets/gold", {"quota_class_set": {"cores": 99}})
    assert cloud.get("admin", "/os-quota-class-sets/gold")["quota_class_set"]["cores"] == 99
    assert cloud.get("bob", "/os-quota-sets/blue")["quota_set"]["cores"] == 7
    for bad in ({"cores": -2}, {"bananas": 1}, {"force": True}):
        assert cloud.refused("admin", "PUT", url, {"quota_class_set": bad})[0] == 400
    assert cloud.refused("alice", "GET", url)[0] == 403
    assert cloud.refused("alice", "PUT", url, {"quota_class_set": {}})[0] == 403


def test_limits(cloud: Cloud) -> None:
    cloud.create()
    limits = cloud.get("alice", "/limits?reserved=False", "2.74")["limits"]
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
    assert cloud.get("admin", "/os-migrations") == {"migrations": []}
    assert cloud.refused("alice", "GET", "/os-migrations")[0] == 403
