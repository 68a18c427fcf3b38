"""/os-aggregates, and the availability zones that they make."""

from typing import Any

import pytest

from tests.nova.api_cloud import Cloud

URL = "/os-aggregates"


@pytest.fixture
def cloud() -> Cloud:
    cloud = Cloud()
    cloud.add_host("h1")
    cloud.add_host("h2")
    return cloud


def make(cloud: Cloud, name: str, zone: str | None = None, *hosts: str) -> str:
    wish = {"name": name} | ({"availability_zone": zone} if zone else {})
    number = cloud.good("admin", "POST", URL, {"aggregate": wish})["aggregate"]["id"]
    for host in hosts:
        act(cloud, f"{URL}/{number}", add_host={"host": host})
    return f"{URL}/{number}"


def act(cloud: Cloud, url: str, **action: Any) -> Any:
    return cloud.good("admin", "POST", f"{url}/action", action)["aggregate"]


def zones(cloud: Cloud) -> dict[str, list[str]]:
    found = cloud.get("admin", "/os-availability-zone/detail")["availabilityZoneInfo"]
    return {one["zoneName"]: sorted(one["hosts"]) for one in found}


def test_a_life(cloud: Cloud) -> None:
    made = cloud.good("admin", "POST", URL, {"aggregate": {"name": "ssd"}})["aggregate"]
    url = f"{URL}/{made['id']}"
    assert set(made) == {
        "id", "uuid", "name", "availability_zone", "created_at", "updated_at", "deleted", "deleted_at",
    }  # fmt: skip
    assert (made["name"], made["availability_zone"], made["deleted"]) == ("ssd", None, False)
    assert cloud.get("admin", url)["aggregate"] == {**made, "hosts": [], "metadata": {}}
    assert "uuid" not in cloud.get("admin", url, "2.40")["aggregate"]
    assert act(cloud, url, add_host={"host": "h2"})["hosts"] == ["h2"]
    shown = act(cloud, url, set_metadata={"metadata": {"disk": "ssd", "rack": "1"}})
    assert shown["metadata"] == {"disk": "ssd", "rack": "1"}
    assert shown["updated_at"]
    assert act(cloud, url, set_metadata={"metadata": {"rack": None, "cpu": "x"}})["metadata"] == {
        "disk": "ssd",
        "cpu": "x",
    }
    renamed = cloud.good("admin", "PUT", url, {"aggregate": {"name": "nvme"}})["aggregate"]
    assert (renamed["name"], renamed["hosts"]) == ("nvme", ["h2"])
    with cloud.counting() as queries:
        assert [one["name"] for one in cloud.get("admin", URL, "2.81")["aggregates"]] == ["nvme"]
    assert queries() == 2
    assert cloud.refused("admin", "DELETE", url)[0] == 400, "it has a host"
    assert act(cloud, url, remove_host={"host": "h2"})["hosts"] == []
    assert cloud.call("admin", "DELETE", url)[0] == 200
    assert cloud.refused("admin", "GET", url) == (404, f"Aggregate {made['id']} could not be found.")


def test_a_zone(cloud: Cloud) -> None:
    make(cloud, "east", "east", "h2")
    assert zones(cloud) == {"east": ["h2"], "nova": ["h1"]}
    assert {one["zoneName"] for one in cloud.get("alice", "/os-availability-zone")["availabilityZoneInfo"]} == {
        "east",
        "nova",
    }
    assert [one["zone"] for one in cloud.get("admin", "/os-services")["services"]] == ["nova", "east"]
    there, here, anywhere = (
        cloud.create(**wish) for wish in ({"availability_zone": "east"}, {"availability_zone": "nova"}, {})
    )
    cloud.place()
    found = {one: cloud.show("admin", one) for one in (there, here, anywhere)}
    assert found[there]["OS-EXT-SRV-ATTR:host"] == "h2"
    assert found[there]["OS-EXT-AZ:availability_zone"] == "east"
    assert found[here]["OS-EXT-SRV-ATTR:host"] == "h1"
    assert found[here]["OS-EXT-AZ:availability_zone"] == "nova"
    listed = cloud.get("admin", "/servers/detail?availability_zone=east&all_tenants=1")["servers"]
    assert {one["id"] for one in listed} >= {there}
    assert here not in {one["id"] for one in listed}
    assert cloud.refused("alice", "POST", "/servers", wish(cloud, "mars"))[0] == 400


def wish(cloud: Cloud, zone: str) -> Any:
    server = {"name": "vm", "imageRef": cloud.image, "flavorRef": cloud.flavor, "networks": "none"}
    return {"server": {**server, "availability_zone": zone}}


def test_a_host_is_in_one_zone(cloud: Cloud) -> None:
    east, west, plain = make(cloud, "east", "east", "h2"), make(cloud, "west", "west"), make(cloud, "plain")
    assert cloud.refused("admin", "POST", f"{west}/action", {"add_host": {"host": "h2"}})[0] == 409
    assert act(cloud, plain, add_host={"host": "h2"})["hosts"] == ["h2"]
    to_west = {"set_metadata": {"metadata": {"availability_zone": "west"}}}
    assert cloud.refused("admin", "POST", f"{plain}/action", to_west)[0] == 409
    assert cloud.refused("admin", "PUT", plain, {"aggregate": {"availability_zone": "west"}})[0] == 409
    same = act(cloud, plain, set_metadata={"metadata": {"availability_zone": "east"}})
    assert (same["availability_zone"], same["metadata"]) == ("east", {"availability_zone": "east"})
    act(cloud, east, remove_host={"host": "h2"})
    assert zones(cloud)["east"] == ["h2"]


def test_a_host_with_servers_stays_in_its_zone(cloud: Cloud) -> None:
    east, plain = make(cloud, "east", "east", "h2"), make(cloud, "plain")
    cloud.create(availability_zone="east")
    cloud.place()
    for action in (
        {"remove_host": {"host": "h2"}},
        {"set_metadata": {"metadata": {"availability_zone": None}}},
        {"set_metadata": {"metadata": {"availability_zone": "far"}}},
    ):
        status, message = cloud.refused("admin", "POST", f"{east}/action", action)
        assert (status, "contain instances" in message) == (409, True)
    assert act(cloud, plain, add_host={"host": "h2"})["hosts"] == ["h2"], "that says nothing of zones"
    assert act(cloud, plain, remove_host={"host": "h2"})["hosts"] == []
    assert act(cloud, east, add_host={"host": "h1"})["hosts"] == ["h1", "h2"]


def test_what_is_refused(cloud: Cloud) -> None:
    url = make(cloud, "a", None, "h1")
    make(cloud, "b")
    assert cloud.refused("admin", "POST", URL, {"aggregate": {"name": "a"}}) == (409, "Aggregate a already exists.")
    assert cloud.refused("admin", "PUT", url, {"aggregate": {"name": "b"}})[0] == 409
    for bad in ({}, {"name": ""}, {"name": "n" * 256}, {"name": "n", "availability_zone": "x:y"}, {"x": 1}):
        assert cloud.refused("admin", "POST", URL, {"aggregate": bad})[0] == 400
        assert cloud.refused("admin", "PUT", url, {"aggregate": bad})[0] == 400
    for number in ("-1", "nope", "999999", "9" * 30):
        assert cloud.refused("admin", "GET", f"{URL}/{number}")[0] == 404
        assert cloud.refused("admin", "DELETE", f"{URL}/{number}")[0] == 404
    for action, code in (
        ({"add_host": {"host": "h1"}}, 409),
        ({"add_host": {"host": "nobody"}}, 404),
        ({"remove_host": {"host": "h2"}}, 404),
        ({"add_host": {}}, 400),
        ({"set_metadata": {"metadata": {"": "x"}}}, 400),
        ({"set_metadata": {"metadata": {"k": "v" * 256}}}, 400),
        ({"paint": {}}, 400),
    ):
        assert cloud.refused("admin", "POST", f"{url}/action", action)[0] == code
    for method, path, body in (
        ("GET", URL, None),
        ("POST", URL, {"aggregate": {"name": "x"}}),
        ("GET", url, None),
        ("DELETE", url, None),
        ("POST", f"{url}/action", {"add_host": {"host": "h2"}}),
    ):
        assert cloud.refused("alice", method, path, body)[0] == 403
