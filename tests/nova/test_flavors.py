"""/flavors, their extra specs and who may use them."""

from typing import Any

import pytest

from tests.nova.api_cloud import Cloud


@pytest.fixture
def cloud() -> Cloud:
    return Cloud()


def test_create_list_show_delete(cloud: Cloud) -> None:
    body = {
        "id": "auto", "name": "f1", "ram": 512, "vcpus": 1, "disk": 1, "swap": 0, "OS-FLV-EXT-DATA:ephemeral": 0,
        "os-flavor-access:is_public": True,
    }  # fmt: skip
    made = cloud.good("admin", "POST", "/flavors", {"flavor": body})["flavor"]
    assert len(made["id"]) == 36
    assert made == {
        "id": made["id"], "name": "f1", "ram": 512, "disk": 1, "swap": 0, "vcpus": 1, "rxtx_factor": 1.0,
        "OS-FLV-EXT-DATA:ephemeral": 0, "OS-FLV-DISABLED:disabled": False, "os-flavor-access:is_public": True,
        "description": None, "extra_specs": {},
        "links": [
            {"rel": "self", "href": f"http://127.0.0.1:8774/v2.1/flavors/{made['id']}"},
            {"rel": "bookmark", "href": f"http://127.0.0.1:8774/flavors/{made['id']}"},
        ],
    }  # fmt: skip
    assert cloud.get("alice", f"/flavors/{made['id']}")["flavor"] == made
    assert cloud.refused("alice", "GET", "/flavors/f1") == (404, "Flavor f1 could not be found.")
    brief = cloud.get("alice", "/flavors")["flavors"]
    assert {frozenset(flavor) for flavor in brief} == {frozenset({"id", "name", "description", "links"})}
    assert sorted(flavor["name"] for flavor in brief) == ["f1", "m1.tiny"]
    old = cloud.get("alice", f"/flavors/{made['id']}", "2.54")["flavor"]
    assert old["swap"] == ""
    assert not {"description", "extra_specs"} & set(old)
    assert cloud.call("admin", "DELETE", f"/flavors/{made['id']}")[0] == 202
    assert cloud.refused("admin", "DELETE", f"/flavors/{made['id']}")[0] == 404
    chosen = cloud.good("admin", "POST", "/flavors", {"flavor": {**body, "id": 7, "ram": "512"}})["flavor"]
    assert (chosen["id"], chosen["ram"]) == ("7", 512)


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"name": "m1.tiny"}, 409),
        ({"id": "1"}, 409),
        ({"name": ""}, 400),
        ({"name": " x"}, 400),
        ({"ram": 0}, 400),
        ({"ram": "much"}, 400),
        ({"vcpus": -1}, 400),
        ({"disk": -1}, 400),
        ({"disk": 1 << 31}, 400),
        ({"rxtx_factor": 0}, 400),
        ({"id": " x"}, 400),
        ({"id": "a/b"}, 400),
        ({"os-flavor-access:is_public": "perhaps"}, 400),
        ({"description": "x\ny"}, 400),
        ({"color": "red"}, 400),
    ],
)
def test_bad_flavors(cloud: Cloud, change: dict[str, Any], status: int) -> None:
    cloud.add_flavor("taken", id="1")
    body = {"name": "f1", "ram": 512, "vcpus": 1, "disk": 1, **change}
    assert cloud.refused("admin", "POST", "/flavors", {"flavor": body})[0] == status
    assert cloud.refused("alice", "POST", "/flavors", {"flavor": body})[0] == 403
    assert len(cloud.get("admin", "/flavors")["flavors"]) == 2


def test_descriptions(cloud: Cloud) -> None:
    url = f"/flavors/{cloud.flavor}"
    change = {"flavor": {"description": "tiny"}}
    assert cloud.good("admin", "PUT", url, change)["flavor"]["description"] == "tiny"
    assert cloud.refused("admin", "PUT", url, change, "2.54")[0] == 404
    assert cloud.refused("alice", "PUT", url, change)[0] == 403
    with_description = {"flavor": {"name": "x", "ram": 1, "vcpus": 1, "disk": 1, "description": "d"}}
    assert cloud.refused("admin", "POST", "/flavors", with_description, "2.54")[0] == 400


def test_extra_specs(cloud: Cloud) -> None:
    url = f"/flavors/{cloud.flavor}/os-extra_specs"
    specs = {"extra_specs": {"hw:cpu_policy": "shared", "number": 3}}
    assert cloud.good("admin", "POST", url, specs)["extra_specs"] == {"hw:cpu_policy": "shared", "number": "3"}
    assert cloud.good("admin", "PUT", f"{url}/number", {"number": "4"}) == {"number": "4"}
    assert cloud.get("alice", f"{url}/number") == {"number": "4"}
    assert cloud.get("alice", url)["extra_specs"] == {"hw:cpu_policy": "shared", "number": "4"}
    assert cloud.get("alice", f"/flavors/{cloud.flavor}")["flavor"]["extra_specs"]["number"] == "4"
    assert cloud.call("admin", "DELETE", f"{url}/hw:cpu_policy")[0] == 200
    assert cloud.refused("admin", "DELETE", f"{url}/hw:cpu_policy")[0] == 404
    assert cloud.refused("alice", "GET", f"{url}/nope")[0] == 404
    assert cloud.refused("admin", "PUT", f"{url}/a", {"b": "4"})[0] == 400
    assert cloud.refused("admin", "POST", url, {"extra_specs": {"a/b": "1"}})[0] == 400
    assert cloud.refused("admin", "POST", url, {"extra_specs": {"a": "1" * 256}})[0] == 400
    assert cloud.refused("alice", "POST", url, specs)[0] == 403
    assert cloud.refused("alice", "DELETE", f"{url}/number")[0] == 403


def test_private_flavors(cloud: Cloud) -> None:
    secret = cloud.add_flavor("secret", **{"os-flavor-access:is_public": False})
    url = f"/flavors/{secret}"

    def names(who: str, query: str = "") -> list[str]:
        return sorted(flavor["name"] for flavor in cloud.get(who, f"/flavors/detail{query}")["flavors"])

    assert names("alice") == ["m1.tiny"]
    assert names("alice", "?is_public=None") == ["m1.tiny"]
    assert names("admin") == ["m1.tiny"]
    assert names("admin", "?is_public=None") == ["m1.tiny", "secret"]
    assert names("admin", "?is_public=False") == ["secret"]
    assert cloud.refused("admin", "GET", "/flavors?is_public=x") == (400, "Invalid is_public filter [x]")
    assert cloud.refused("alice", "GET", url)[0] == 404
    grant = {"addTenantAccess": {"tenant": "red"}}
    expected = {"flavor_access": [{"flavor_id": secret, "tenant_id": "red"}]}
    assert cloud.good("admin", "POST", f"{url}/action", grant) == expected
    assert cloud.refused("admin", "POST", f"{url}/action", grant)[0] == 409
    assert names("alice", "?is_public=None") == ["m1.tiny", "secret"]
    assert names("bob") == ["m1.tiny"]
    assert cloud.get("alice", url)["flavor"]["name"] == "secret"
    assert cloud.get("admin", f"{url}/os-flavor-access") == expected
    assert cloud.refused("alice", "GET", f"{url}/os-flavor-access")[0] == 403
    assert cloud.refused("admin", "GET", f"/flavors/{cloud.flavor}/os-flavor-access")[0] == 404
    assert cloud.refused("admin", "POST", f"/flavors/{cloud.flavor}/action", grant)[0] == 409
    revoke = {"removeTenantAccess": {"tenant": "red"}}
    assert cloud.good("admin", "POST", f"{url}/action", revoke) == {"flavor_access": []}
    assert cloud.refused("admin", "POST", f"{url}/action", revoke)[0] == 404
    assert cloud.refused("admin", "POST", f"{url}/action", {"addTenantAccess": {"tenant": "a/b"}})[0] == 400
    cloud.good("admin", "POST", f"{url}/action", grant)
    assert cloud.call("admin", "DELETE", url)[0] == 202


def test_filters_and_pages(cloud: Cloud) -> None:
    for number in range(5):
        cloud.add_flavor(f"f{number}", id=f"f{number}", ram=1024 * (number + 1), disk=number)

    def ids(query: str) -> list[str]:
        return [flavor["id"] for flavor in cloud.get("alice", f"/flavors?{query}")["flavors"]]

    assert ids("minRam=4096") == ["f3", "f4"]
    assert ids("minDisk=4") == ["f4"]
    assert ids("minRam=1024&sort_key=memory_mb&sort_dir=desc&limit=2") == ["f4", "f3"]
    assert ids("minRam=1024&limit=2&marker=f1") == ["f2", "f3"]
    assert ids("limit=0") == []
    for bad in ("minRam=x", "minDisk=x", "limit=x", "marker=nope", "sort_key=color"):
        assert cloud.refused("alice", "GET", f"/flavors?{bad}")[0] == 400


def test_a_server_keeps_its_flavor(cloud: Cloud) -> None:
    server = cloud.create()
    cloud.good("admin", "DELETE", f"/flavors/{cloud.flavor}")
    assert cloud.show("alice", server)["flavor"]["original_name"] == "m1.tiny"
