"""/os-server-groups: their bodies in each version, quotas, and where nova-scheduler puts their members."""

from typing import Any

import pytest

from tests.nova.api_cloud import Cloud

URL = "/os-server-groups"


@pytest.fixture
def cloud() -> Cloud:
    cloud = Cloud()
    cloud.add_host("h1")
    return cloud


def group(cloud: Cloud, policy: str, who: str = "alice", **rules: int) -> str:
    wish: dict[str, Any] = {"name": "g", "policy": policy} | ({"rules": rules} if rules else {})
    group_id: str = cloud.good(who, "POST", URL, {"server_group": wish})["server_group"]["id"]
    return group_id


def member(cloud: Cloud, group_id: str, who: str = "alice", **wish: Any) -> str:
    body = {"name": "vm", "imageRef": cloud.image, "flavorRef": cloud.flavor, "networks": "none", **wish}
    hinted = {"server": body, "os:scheduler_hints": {"group": group_id}}
    server_id: str = cloud.good(who, "POST", "/servers", hinted)["server"]["id"]
    return server_id


def hosts(cloud: Cloud, *server_ids: str) -> list[str | None]:
    return [cloud.show("admin", one)["OS-EXT-SRV-ATTR:host"] for one in server_ids]


def test_bodies_of_each_version(cloud: Cloud) -> None:
    wish = {"name": "web", "policy": "anti-affinity", "rules": {"max_server_per_host": 3}}
    made = cloud.good("alice", "POST", URL, {"server_group": wish}, "2.64")["server_group"]
    url = f"{URL}/{made['id']}"
    assert made == {"id": made["id"], **wish, "members": [], "project_id": "red", "user_id": "alice"}
    assert cloud.get("rita", url, "2.64")["server_group"] == made
    assert cloud.get("alice", URL) == {"server_groups": [made]}
    newer = {"id": made["id"], "name": "web", "policies": ["anti-affinity"], "metadata": {}, "members": []}
    assert cloud.get("alice", url, "2.13")["server_group"] == {**newer, "project_id": "red", "user_id": "alice"}
    assert cloud.get("alice", url, "2.12")["server_group"] == newer
    old = {"server_group": {"name": "old", "policies": ["affinity"]}}
    assert cloud.good("alice", "POST", URL, old, "2.1")["server_group"]["policies"] == ["affinity"]
    soft = {"server_group": {"name": "soft", "policies": ["soft-affinity"]}}
    assert cloud.refused("alice", "POST", URL, soft, "2.14")[0] == 400
    assert cloud.good("alice", "POST", URL, soft, "2.15")["server_group"]["policies"] == ["soft-affinity"]
    assert [one["name"] for one in cloud.get("alice", f"{URL}?limit=1&offset=1")["server_groups"]] == ["old"]


def test_members(cloud: Cloud) -> None:
    group_id = group(cloud, "affinity")
    first, second = member(cloud, group_id), member(cloud, group_id)
    assert cloud.get("alice", f"{URL}/{group_id}")["server_group"]["members"] == [first, second]
    assert cloud.show("alice", first)["server_groups"] == [group_id]
    assert "server_groups" not in cloud.show("alice", first, "2.70")
    cloud.good("alice", "DELETE", f"/servers/{first}")
    with cloud.counting() as queries:
        assert cloud.get("alice", URL)["server_groups"][0]["members"] == [second]
    assert queries() == 2
    assert cloud.call("alice", "DELETE", f"{URL}/{group_id}")[0] == 204
    assert cloud.show("alice", second)["server_groups"] == []
    assert cloud.refused("alice", "GET", f"{URL}/{group_id}") == (
        404,
        f"Instance group {group_id} could not be found.",
    )


def test_where_members_go(cloud: Cloud) -> None:
    cloud.add_host("h2")
    together, apart = group(cloud, "affinity"), group(cloud, "anti-affinity")
    pair = [member(cloud, together), member(cloud, together)]
    three = [member(cloud, apart) for _ in range(3)]
    cloud.place()
    assert len(set(hosts(cloud, *pair))) == 1
    assert sorted(map(str, hosts(cloud, *three))) == ["None", "h1", "h2"]
    last = cloud.show("alice", three[2])
    assert last["status"] == "ERROR"
    assert last["fault"]["message"].endswith("0 left after 'server_group' (anti-affinity)")
    later = member(cloud, together)
    cloud.place()
    assert hosts(cloud, later) == hosts(cloud, pair[0]), "also in a later pass"
    cloud.good("alice", "DELETE", f"/servers/{three[0]}")
    free = member(cloud, apart)
    cloud.place()
    assert hosts(cloud, free) == hosts(cloud, three[0]), "who is ordered away is in nobody's way"


def test_more_than_one_on_a_host(cloud: Cloud) -> None:
    group_id = group(cloud, "anti-affinity", max_server_per_host=2)
    members = [member(cloud, group_id) for _ in range(3)]
    cloud.place()
    assert hosts(cloud, *members) == ["h1", "h1", None]
    soft = group(cloud, "soft-anti-affinity")
    pair = [member(cloud, soft), member(cloud, soft)]
    cloud.place()
    assert hosts(cloud, *pair) == ["h1", "h1"]


def test_quotas(cloud: Cloud) -> None:
    cloud.good("admin", "PUT", "/os-quota-sets/red", {"quota_set": {"server_groups": 1, "server_group_members": 1}})
    group_id = group(cloud, "affinity")
    assert cloud.get("alice", "/limits")["limits"]["absolute"]["totalServerGroupsUsed"] == 1
    assert cloud.get("alice", "/os-quota-sets/red/detail")["quota_set"]["server_groups"]["in_use"] == 1
    body = {"server_group": {"name": "g", "policy": "affinity"}}
    assert cloud.refused("alice", "POST", URL, body) == (403, "Quota exceeded, too many server groups.")
    member(cloud, group_id)
    server = {"name": "vm", "imageRef": cloud.image, "flavorRef": cloud.flavor, "networks": "none"}
    hinted = {"server": server, "os:scheduler_hints": {"group": group_id}}
    assert cloud.refused("alice", "POST", "/servers", hinted) == (403, "Quota exceeded, too many servers in group")


def test_whose_groups(cloud: Cloud) -> None:
    group_id = group(cloud, "affinity")
    url = f"{URL}/{group_id}"
    assert cloud.get("bob", URL) == {"server_groups": []}
    assert cloud.get("bob", f"{URL}?all_projects=True") == {"server_groups": []}
    assert len(cloud.get("admin", f"{URL}?all_projects=True")["server_groups"]) == 1
    assert cloud.get("admin", url)["server_group"]["id"] == group_id
    for method in ("GET", "DELETE"):
        assert cloud.refused("bob", method, url)[0] == 404
    assert cloud.refused("rita", "DELETE", url)[0] == 403
    assert cloud.refused("rita", "POST", URL, {"server_group": {"name": "g", "policy": "affinity"}})[0] == 403
    server = {"name": "vm", "imageRef": cloud.image, "flavorRef": cloud.flavor, "networks": "none"}
    for stranger in (group_id, "nope", 7):
        hinted = {"server": server, "os:scheduler_hints": {"group": stranger}}
        assert cloud.refused("bob", "POST", "/servers", hinted)[0] == 400


@pytest.mark.parametrize(
    "wish",
    [
        {},
        {"name": "g"},
        {"name": "", "policy": "affinity"},
        {"name": "g", "policy": "mars"},
        {"name": "g", "policies": ["affinity"]},
        {"name": "g", "policy": "affinity", "rules": {"max_server_per_host": 2}},
        {"name": "g", "policy": "anti-affinity", "rules": {"max_server_per_host": 0}},
        {"name": "g", "policy": "anti-affinity", "rules": {"x": 1}},
    ],
)
def test_what_is_refused(cloud: Cloud, wish: Any) -> None:
    assert cloud.refused("alice", "POST", URL, {"server_group": wish})[0] == 400
    for old in ({"name": "g", "policies": []}, {"name": "g", "policies": ["affinity", "anti-affinity"]}, wish):
        if "policies" not in wish:
            assert cloud.refused("alice", "POST", URL, {"server_group": old}, "2.63")[0] == 400
    for query in ("limit=x", "offset=-1", "all_projects=perhaps"):
        assert cloud.refused("alice", "GET", f"{URL}?{query}")[0] == 400
