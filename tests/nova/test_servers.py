"""/servers: make, show, list, change, delete."""

import base64
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests import databases
from tests.nova.api_cloud import GIB, Cloud


@pytest.fixture
def cloud() -> Cloud:
    cloud = Cloud()
    cloud.add_host()
    return cloud


def create_refused(cloud: Cloud, who: str = "alice", version: str = "", **wish: Any) -> tuple[int, str]:
    body = {"name": "vm", "imageRef": cloud.image, "flavorRef": cloud.flavor, "networks": "none", **wish}
    return cloud.refused(who, "POST", "/servers", {"server": body}, version)


def test_create_and_show(cloud: Cloud) -> None:
    network = cloud.network()
    wish = {
        "name": "Web One",
        "imageRef": cloud.image,
        "flavorRef": cloud.flavor,
        "min_count": 1,
        "max_count": 1,
        "networks": [{"uuid": network}],
        "security_groups": [{"name": "default"}],
        "metadata": {"a": "b"},
        "config_drive": "True",
        "user_data": base64.b64encode(b"#!/bin/sh").decode(),
        "description": "first",
        "block_device_mapping_v2": [
            {
                "uuid": cloud.image,
                "boot_index": 0,
                "source_type": "image",
                "destination_type": "local",
                "delete_on_termination": True,
            }
        ],
    }
    status, answer, headers = cloud.answer("alice", "POST", "/servers", {"server": wish})
    assert status == 202
    made = answer["server"]
    assert set(made) == {"id", "links", "OS-DCF:diskConfig", "security_groups", "adminPass"}
    assert headers["Location"] == f"http://127.0.0.1:8774/v2.1/servers/{made['id']}"
    assert len(made["adminPass"]) == 12
    assert ("nova.servers", made["id"]) in cloud.hints

    shown = cloud.show("alice", made["id"])
    assert (shown["status"], shown["OS-EXT-STS:task_state"]) == ("BUILD", "scheduling")
    assert (shown["addresses"], shown["progress"], shown["hostId"]) == ({}, 0, "")
    cloud.place()
    assert cloud.show("alice", made["id"])["OS-EXT-STS:task_state"] == "spawning"
    cloud.report(made["id"], "on")
    shown = cloud.show("alice", made["id"])
    assert (shown["status"], shown["OS-EXT-STS:power_state"], shown["progress"]) == ("ACTIVE", 1, 100)
    (address,) = shown["addresses"]["private"]
    assert address["addr"] == "10.0.0.2"
    assert address["OS-EXT-IPS:type"] == "fixed"
    assert shown["security_groups"] == [{"name": "default"}]
    assert (shown["metadata"], shown["config_drive"], shown["description"]) == ({"a": "b"}, "True", "first")
    assert shown["OS-EXT-SRV-ATTR:hostname"] == "web-one"
    assert shown["flavor"] == {
        "vcpus": 1, "ram": 512, "disk": 1, "ephemeral": 0, "swap": 0, "original_name": "m1.tiny", "extra_specs": {},
    }  # fmt: skip
    assert "OS-EXT-SRV-ATTR:host" not in shown
    assert "host_status" not in shown
    seen = cloud.show("admin", made["id"])
    assert (seen["OS-EXT-SRV-ATTR:host"], seen["host_status"]) == ("h1", "UP")
    assert seen["OS-EXT-SRV-ATTR:user_data"] == wish["user_data"]
    (told,) = cloud.notified("compute.instance.create.start")
    assert told["instance_id"] == made["id"]


def test_networks_are_chosen_for_who_names_none(cloud: Cloud) -> None:
    without = cloud.create(version="2.36", networks=[])
    assert cloud.get("alice", f"/servers/{without}/os-interface")["interfaceAttachments"] == []
    assert create_refused(cloud, networks="auto") == (
        400,
        "Unable to automatically allocate a network for project red",
    )
    only = cloud.network()
    for wish in ({"version": "2.36", "networks": []}, {"networks": "auto"}):
        server = cloud.create(**wish)
        (interface,) = cloud.get("alice", f"/servers/{server}/os-interface")["interfaceAttachments"]
        assert interface["net_id"] == only
    assert cloud.get("alice", f"/servers/{cloud.create(networks='none')}/os-interface") == {
        "interfaceAttachments": []
    }
    cloud.network(name="second")
    status, message = create_refused(cloud, networks="auto")
    assert (status, message[:37]) == (409, "More than one possible network found.")
    assert create_refused(cloud, networks=[{"uuid": "5c5d2d8a-6f5d-4bb6-a2d0-cd2f5ac4a4c0"}])[0] == 400
    theirs = cloud.network("bob")
    status, message = create_refused(cloud, networks=[{"uuid": theirs}])
    assert (status, message) == (400, f"Network {theirs} could not be found.")


def test_addresses_and_groups_that_are_asked_for(cloud: Cloud) -> None:
    network = cloud.network()
    server = cloud.running(networks=[{"uuid": network, "fixed_ip": "10.0.0.77"}])
    assert cloud.get("alice", f"/servers/{server}/ips") == {
        "addresses": {"private": [{"version": 4, "addr": "10.0.0.77"}]}
    }
    assert cloud.get("alice", f"/servers/{server}/ips/private") == {
        "private": [{"version": 4, "addr": "10.0.0.77"}]
    }
    assert cloud.refused("alice", "GET", f"/servers/{server}/ips/other")[0] == 404
    (group,) = cloud.get("alice", f"/servers/{server}/os-security-groups")["security_groups"]
    assert (group["name"], group["tenant_id"]) == ("default", "red")
    assert create_refused(cloud, networks=[{"uuid": network, "fixed_ip": "10.0.0.77"}])[0] == 400
    assert create_refused(cloud, networks=[{"uuid": network, "fixed_ip": "10.9.9.9"}])[0] == 400
    assert create_refused(cloud, networks=[{"uuid": network, "fixed_ip": "ten"}])[0] == 400
    assert create_refused(cloud, networks=[{"uuid": network}], security_groups=[{"name": "nope"}])[0] == 400
    assert create_refused(cloud, networks=[{"uuid": network, "fixed_ip": "10.0.0.78"}], max_count=2)[0] == 400
    assert len(cloud.get("alice", "/servers")["servers"]) == 1


def test_an_image_that_cannot_be_booted(cloud: Cloud) -> None:
    small = cloud.add_flavor("small", ram=64)
    zero = cloud.add_flavor("zero", disk=0)
    needs_ram, needs_disk = cloud.add_image(min_ram=128), cloud.add_image(min_disk=2)
    big = cloud.add_image(virtual_size=GIB + 1)
    assert create_refused(cloud, imageRef="nope") == (400, "Can not find requested image")
    private = cloud.add_image(visibility="private", owner="blue")
    assert create_refused(cloud, imageRef=private) == (400, "Can not find requested image")
    queued = cloud.add_image(stored_at=None, attempt=None)
    assert create_refused(cloud, imageRef=queued) == (400, f"Image {queued} is not active.")
    assert create_refused(cloud, imageRef=needs_ram, flavorRef=small) == (
        400, "Flavor's memory is too small for requested image.",
    )  # fmt: skip
    assert "minimum size specified in image metadata" in create_refused(cloud, imageRef=needs_disk)[1]
    assert "Flavor's disk is too small for requested image" in create_refused(cloud, imageRef=big)[1]
    assert create_refused(cloud, flavorRef=zero)[0] == 403
    cloud.create("admin", flavorRef=zero)
    assert create_refused(cloud, flavorRef="nope") == (400, "Flavor nope could not be found.")
    hidden = cloud.add_flavor("hidden", **{"os-flavor-access:is_public": False})
    assert create_refused(cloud, flavorRef=hidden)[0] == 400


@pytest.mark.parametrize(
    "wish",
    [
        {"name": ""},
        {"name": "x" * 256},
        {"name": " vm"},
        {"name": "a\nb"},
        {"name": 5},
        {"imageRef": ""},
        {"networks": "some"},
        {"networks": [{"uuid": "not a uuid"}]},
        {"networks": [{}]},
        {"networks": [{"port": "5c5d2d8a-6f5d-4bb6-a2d0-cd2f5ac4a4c0", "fixed_ip": "10.0.0.5"}]},
        {"networks": [{"port": "5c5d2d8a-6f5d-4bb6-a2d0-cd2f5ac4a4c0"}] * 2},
        {"networks": [{"port": "5c5d2d8a-6f5d-4bb6-a2d0-cd2f5ac4a4c0"}]},
        {"user_data": "not base64!"},
        {"user_data": "A" * 65536},
        {"metadata": {"k" * 256: "v"}},
        {"metadata": {"k": "v" * 256}},
        {"metadata": {"k": 1}},
        {"metadata": {"k/": "v"}},
        {"key_name": "missing"},
        {"min_count": 0},
        {"min_count": 3, "max_count": 2},
        {"max_count": 1001},
        {"availability_zone": "mars"},
        {"config_drive": "perhaps"},
        {"block_device_mapping": [{"volume_id": "v"}]},
        {"block_device_mapping_v2": [{"source_type": "volume", "destination_type": "volume", "uuid": "v"}]},
        {"block_device_mapping_v2": [{"source_type": "blank", "destination_type": "local", "boot_index": 0}]},
        {"block_device_mapping_v2": [{"source_type": "image", "destination_type": "local", "tag": "x"}]},
        {"networks": [{"uuid": "5c5d2d8a-6f5d-4bb6-a2d0-cd2f5ac4a4c0", "tag": "x"}]},
        {"accessIPv4": "fe80::1"},
        {"accessIPv6": "10.0.0.1"},
        {"OS-DCF:diskConfig": "SOMETIMES"},
        {"hostname": "-bad"},
        {"hostname": "one", "max_count": 2},
        {"personality": []},
        {"unknown": 1},
    ],
)
def test_bad_wishes(cloud: Cloud, wish: dict[str, Any]) -> None:
    status, message = create_refused(cloud, **wish)
    assert status == 400, message
    assert message
    assert cloud.get("alice", "/servers")["servers"] == []


def test_bodies_that_are_none(cloud: Cloud) -> None:
    for body in (b"", b"{", b"[]", b"null", b'{"server": 1}', b'{"server": {"name": "x"}}', b"\xff"):
        assert cloud.refused("alice", "POST", "/servers", body)[0] == 400
    hints = {"os:scheduler_hints": {"_nova_check_type": "rebuild"}}
    wish = {"name": "vm", "imageRef": cloud.image, "flavorRef": cloud.flavor, "networks": "none"}
    assert cloud.refused("alice", "POST", "/servers", {"server": wish, **hints})[0] == 400


def test_who_may_make_servers(cloud: Cloud) -> None:
    assert create_refused(cloud, "rita")[0] == 403
    assert create_refused(cloud, "nobody")[0] == 401
    assert create_refused(cloud, availability_zone="nova:h1")[0] == 403
    assert create_refused(cloud, host="h1")[0] == 403
    forced = cloud.create("admin", availability_zone="nova:h1")
    assert cloud.show("admin", forced)["pinned_availability_zone"] == "nova"
    named = cloud.create("admin", host="h9")
    cloud.place()
    failed = cloud.show("admin", named)
    assert (failed["status"], failed["fault"]["code"]) == ("ERROR", 500)
    assert failed["fault"]["message"].startswith("No valid host was found.")
    assert cloud.show("admin", forced)["OS-EXT-SRV-ATTR:host"] == "h1"


def test_several_at_once_within_the_quota(cloud: Cloud) -> None:
    server = cloud.create(min_count=2, max_count=3)
    servers = cloud.get("alice", "/servers?sort_key=name&sort_dir=asc")["servers"]
    assert [one["name"] for one in servers] == ["vm-1", "vm-2", "vm-3"]
    assert cloud.show("alice", server)["OS-EXT-SRV-ATTR:hostname"] == "vm-1"
    body = {"name": "r", "imageRef": cloud.image, "flavorRef": cloud.flavor, "networks": "none", "max_count": 9}
    made = cloud.good("alice", "POST", "/servers", {"server": {**body, "return_reservation_id": True}})
    assert made["reservation_id"].startswith("r-")
    assert len(cloud.get("alice", "/servers")["servers"]) == 10
    found = cloud.get("alice", f"/servers?reservation_id={made['reservation_id']}")["servers"]
    assert len(found) == 7
    status, message = create_refused(cloud)
    assert status == 403
    assert message == "Quota exceeded for instances: Requested 1, but already used 10 of 10 instances"


def test_quota_of_cores_and_ram(cloud: Cloud) -> None:
    big = cloud.add_flavor("big", vcpus=21, ram=51201)
    status, message = create_refused(cloud, flavorRef=big)
    assert status == 403
    assert (
        message
        == "Quota exceeded for cores, ram: Requested 21, 51201, but already used 0, 0 of 20, 51200 cores, ram"
    )
    cloud.good("admin", "PUT", "/os-quota-sets/red", {"quota_set": {"cores": -1, "ram": -1}})
    cloud.create(flavorRef=big)


def test_requests_at_once_do_not_overrun_a_quota(tmp_path: Path) -> None:
    cloud = Cloud(url=databases.url(tmp_path / "db"))
    body = {"name": "vm", "imageRef": cloud.image, "flavorRef": cloud.flavor, "networks": "none"}

    def create(_: int) -> int:
        return cloud.call("alice", "POST", "/servers", {"server": body})[0]

    with ThreadPoolExecutor(20) as pool:
        answers = sorted(pool.map(create, range(20)))
    assert answers == [202] * 10 + [403] * 10
    assert len(cloud.get("alice", "/servers")["servers"]) == 10


def test_others_do_not_see_it(cloud: Cloud) -> None:
    server = cloud.running()
    for method, url in (
        ("GET", ""), ("PUT", ""), ("DELETE", ""), ("GET", "/ips"), ("GET", "/os-interface"), ("GET", "/metadata"),
        ("GET", "/os-instance-actions"), ("GET", "/os-volume_attachments"), ("GET", "/os-server-password"),
    ):  # fmt: skip
        body = {"server": {"name": "mine"}} if method == "PUT" else None
        status, message = cloud.refused("bob", method, f"/servers/{server}{url}", body)
        assert (status, message) == (404, f"Instance {server} could not be found.")
    action: Any
    for action in ({"os-stop": None}, {"reboot": {"type": "HARD"}}, {"os-getConsoleOutput": {}}):
        assert cloud.refused("bob", "POST", f"/servers/{server}/action", action)[0] == 404
        assert cloud.refused("rita", "POST", f"/servers/{server}/action", action)[0] == 403
    assert cloud.get("bob", "/servers/detail")["servers"] == []
    assert cloud.show("rita", server)["id"] == server
    assert cloud.refused("rita", "DELETE", f"/servers/{server}")[0] == 403
    assert cloud.refused("alice", "GET", "/servers/vm") == (404, "Instance vm could not be found.")


def test_update(cloud: Cloud) -> None:
    server = cloud.running()
    wish = {
        "name": "new",
        "description": "changed",
        "accessIPv4": "192.0.2.7",
        "accessIPv6": "2001:DB8::1",
        "hostname": "web",
    }
    answer = cloud.good("alice", "PUT", f"/servers/{server}", {"server": wish})["server"]
    assert answer == cloud.show("alice", server)
    assert (answer["name"], answer["description"], answer["accessIPv6"]) == ("new", "changed", "2001:db8::1")
    assert answer["OS-EXT-SRV-ATTR:hostname"] == "web"
    assert (
        cloud.good("alice", "PUT", f"/servers/{server}", {"server": {"description": None}})["server"]["description"]
        is None
    )
    for bad in (
        {"name": ""},
        {"accessIPv4": "x"},
        {"hostname": "a b"},
        {"OS-DCF:diskConfig": "X"},
        {"status": "ERROR"},
    ):
        assert cloud.refused("alice", "PUT", f"/servers/{server}", {"server": bad})[0] == 400
    assert cloud.refused("alice", "PUT", f"/servers/{server}", {"server": {"hostname": "x1"}}, "2.89")[0] == 400
    old = cloud.good("alice", "PUT", f"/servers/{server}", {"server": {"name": "old"}}, "2.1")["server"]
    assert "OS-EXT-STS:vm_state" not in old
    assert cloud.notified("compute.instance.update")


def test_delete(cloud: Cloud) -> None:
    server = cloud.running(networks=[{"uuid": cloud.network()}])
    cloud.hints.clear()
    assert cloud.call("alice", "DELETE", f"/servers/{server}") == (204, b"")
    assert {("nova.servers", server), ("nova.hosts.h1", server)} <= set(cloud.hints)
    shown = cloud.show("alice", server)
    assert (shown["status"], shown["OS-EXT-STS:task_state"]) == ("ACTIVE", "deleting")
    assert cloud.call("alice", "DELETE", f"/servers/{server}")[0] == 204
    assert len(cloud.notified("compute.instance.delete.start")) == 1
    cloud.report(server, "absent")
    assert cloud.refused("alice", "GET", f"/servers/{server}")[0] == 404
    assert cloud.refused("alice", "DELETE", f"/servers/{server}")[0] == 404
    assert cloud.get("alice", "/servers?deleted=True")["servers"] == []
    assert cloud.refused("alice", "GET", "/servers?status=DELETED")[0] == 403
    for query in ("deleted=True", "status=deleted"):
        (gone,) = cloud.get("admin", f"/servers/detail?all_tenants=1&{query}")["servers"]
        assert (gone["id"], gone["status"], gone["OS-EXT-STS:vm_state"]) == (server, "DELETED", "deleted")
        assert gone["OS-SRV-USG:terminated_at"]
    unplaced = cloud.create()
    assert cloud.call("alice", "DELETE", f"/servers/{unplaced}")[0] == 204


def test_metadata_of_a_server(cloud: Cloud) -> None:
    server = cloud.create(metadata={"a": "1"})
    url = f"/servers/{server}/metadata"
    assert cloud.refused("alice", "POST", url, {"metadata": {"b": "2"}}) == (
        409,
        f"Cannot 'update metadata' instance {server} while it is in vm_state building",
    )
    cloud.place()
    cloud.report(server, "on")
    assert cloud.good("alice", "POST", url, {"metadata": {"b": "2"}}) == {"metadata": {"a": "1", "b": "2"}}
    assert cloud.good("alice", "PUT", url, {"metadata": {"c": "3"}}) == {"metadata": {"c": "3"}}
    assert cloud.good("alice", "PUT", f"{url}/d", {"meta": {"d": "4"}}) == {"meta": {"d": "4"}}
    assert cloud.get("alice", f"{url}/d") == {"meta": {"d": "4"}}
    assert cloud.get("alice", url) == {"metadata": {"c": "3", "d": "4"}}
    assert cloud.refused("alice", "PUT", f"{url}/d", {"meta": {"e": "4"}})[0] == 400
    assert cloud.call("alice", "DELETE", f"{url}/d")[0] == 204
    assert cloud.refused("alice", "DELETE", f"{url}/d") == (404, "Metadata item was not found")
    assert cloud.refused("alice", "GET", f"{url}/d")[0] == 404
    many = {"metadata": {str(number): "x" for number in range(129)}}
    assert cloud.refused("alice", "PUT", url, many) == (403, "Maximum number of metadata items exceeds 128")
    assert cloud.refused("rita", "POST", url, {"metadata": {}})[0] == 403
    assert cloud.refused("alice", "POST", url, {"metadata": {"": "x"}})[0] == 400


# ── lists ────────────────────────────────────────────────────────────────────────────────────────────────────


def names(answer: Any) -> list[str]:
    return [server["name"] for server in answer["servers"]]


def test_filters(cloud: Cloud) -> None:
    network = cloud.network()
    web = cloud.running(name="web-1", networks=[{"uuid": network}])
    cloud.create(name="web-2")
    cloud.running(name="db", networks=[{"uuid": network}])
    cloud.create("bob", name="theirs")
    other = cloud.add_flavor("other")
    cloud.create(name="big", flavorRef=other)
    for query, expected in (
        ("", ["big", "db", "web-2", "web-1"]),
        ("name=web", ["web-2", "web-1"]),
        ("name=^web-1$", ["web-1"]),
        ("name=WEB", ["web-2", "web-1"]),
        ("status=ACTIVE", ["db", "web-1"]),
        ("status=active&status=build", ["big", "db", "web-2", "web-1"]),
        ("status=SHELVED", []),
        (f"flavor={other}", ["big"]),
        (f"image={cloud.image}", ["big", "db", "web-2", "web-1"]),
        ("ip=10.0.0.2", ["web-1"]),
        ("ip=^10.0.0.", ["db", "web-1"]),
        ("deleted=False", ["big", "db", "web-2", "web-1"]),
        ("sort_key=display_name&sort_dir=asc", ["big", "db", "web-1", "web-2"]),
        ("project_id=blue", ["big", "db", "web-2", "web-1"]),
        ("host=nowhere", ["big", "db", "web-2", "web-1"]),
        ("tags=x", []),
        ("not-tags=x", ["big", "db", "web-2", "web-1"]),
        ("locked=True", []),
        ("vm_state=active", ["db", "web-1"]),
        ("task_state=spawning", ["web-2"]),
        ("availability_zone=nova", ["db", "web-2", "web-1"]),
        ("limit=0", []),
        ("changes-since=2100-01-01T00:00:00Z", []),
        ("changes-before=2000-01-01T00:00:00Z", []),
        ("changes-since=2000-01-01T00:00:00%2B00:00", ["big", "db", "web-2", "web-1"]),
    ):
        assert names(cloud.get("alice", f"/servers?{query}")) == expected, query
    assert names(cloud.get("alice", "/servers?status=NONSENSE", "2.37")) == []
    for query in (
        "status=NONSENSE", "name=(", "name=" + quote("(a+)+$"), "name=" + quote("a*a*a*b"), "name=" + "x" * 300,
        "limit=-1", "limit=x", "marker=nope", "sort_key=nope", "sort_key=name&sort_dir=up",
        "changes-since=yesterday", "all_tenants=perhaps", "nonsense=1", "_secret=1", "ip=(",
    ):  # fmt: skip
        assert cloud.refused("alice", "GET", f"/servers?{query}")[0] in (400, 403), query
    assert names(cloud.get("alice", "/servers?nonsense=1", "2.74")) == ["big", "db", "web-2", "web-1"]
    assert cloud.refused("alice", "GET", "/servers?all_tenants=True")[0] == 403
    assert cloud.refused("alice", "GET", "/servers?sort_key=host")[0] == 403
    everybody = cloud.get("admin", "/servers?all_tenants=True&sort_key=name&sort_dir=asc")
    assert names(everybody) == ["big", "db", "theirs", "web-1", "web-2"]
    assert names(cloud.get("admin", "/servers?all_tenants=True&project_id=blue")) == ["theirs"]
    assert names(cloud.get("admin", "/servers?all_tenants=True&host=h1")) == ["db", "web-2", "web-1"]
    assert names(cloud.get("admin", "/servers?all_tenants=True&power_state=1")) == ["db", "web-1"]
    assert cloud.get("alice", "/servers?name=^web-1$")["servers"][0]["id"] == web


def test_pages(cloud: Cloud) -> None:
    made = [cloud.create(name=f"vm{number}") for number in range(5)]
    found: list[str] = []
    url = "/servers?limit=2"
    while url:
        answer = cloud.get("alice", url)
        found += [server["id"] for server in answer["servers"]]
        links = answer.get("servers_links", [])
        assert all(link["rel"] == "next" for link in links)
        url = links[0]["href"].removeprefix("http://127.0.0.1:8774/v2.1") if links else ""
    assert found == made[::-1]
    assert "servers_links" not in cloud.get("alice", "/servers")


def test_a_list_costs_a_constant_number_of_queries(cloud: Cloud) -> None:
    cloud.good("admin", "PUT", "/os-quota-sets/red", {"quota_set": {"instances": -1, "cores": -1, "ram": -1}})
    network = cloud.network(cidr="10.0.0.0/16")
    counts = []
    for more in (2, 30):
        cloud.create(networks=[{"uuid": network}], min_count=more)
        cloud.place()
        with cloud.counting() as count:
            answer = cloud.get("admin", "/servers/detail?all_tenants=1")
        counts.append(count())
    assert len(answer["servers"]) == 32
    assert counts[0] == counts[1]
    assert counts[0] <= 8
