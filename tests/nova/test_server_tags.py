"""Tags of servers, from their own URLs, a server's body and the filters of lists."""

from typing import Any

import pytest

from tests.nova.api_cloud import Cloud


@pytest.fixture
def cloud() -> Cloud:
    cloud = Cloud()
    cloud.add_host("h1")
    return cloud


def test_tags_come_and_go(cloud: Cloud) -> None:
    server = cloud.running(tags=["web"])
    url = f"/servers/{server}/tags"
    assert cloud.get("alice", url) == {"tags": ["web"]}
    status, answer, headers = cloud.answer("alice", "PUT", f"{url}/blue sky")
    assert (status, answer) == (201, b"")
    assert headers["Location"].endswith(f"{url}/blue%20sky")
    assert cloud.call("alice", "PUT", f"{url}/web") == (204, b"")
    assert cloud.call("alice", "GET", f"{url}/web") == (204, b"")
    assert cloud.refused("alice", "GET", f"{url}/no") == (404, f"Server {server} has no tag 'no'")
    assert cloud.show("alice", server)["tags"] == ["blue sky", "web"]
    assert cloud.good("alice", "PUT", url, {"tags": ["b", "a", "b"]}) == {"tags": ["a", "b"]}
    assert cloud.call("alice", "DELETE", f"{url}/a") == (204, b"")
    assert cloud.refused("alice", "DELETE", f"{url}/a")[0] == 404
    assert cloud.call("alice", "DELETE", url) == (204, b"")
    assert cloud.get("alice", url) == {"tags": []}
    assert cloud.notified("compute.instance.update")


def test_servers_are_found_by_their_tags(cloud: Cloud) -> None:
    for name, tags in (("one", ["a", "b"]), ("two", ["b", "c"]), ("none", [])):
        cloud.create(name=name, tags=tags)
    for query, expected in (
        ("tags=b", {"one", "two"}),
        ("tags=a,b", {"one"}),
        ("tags-any=a,c", {"one", "two"}),
        ("not-tags=a,b", {"two", "none"}),
        ("not-tags-any=a,c", {"none"}),
    ):
        found = cloud.get("alice", f"/servers?{query}")["servers"]
        assert {server["name"] for server in found} == expected, query


def test_what_is_refused(cloud: Cloud) -> None:
    server = cloud.running()
    url = f"/servers/{server}/tags"
    for bad in ("a,b", "x" * 61, "tab\t"):
        assert cloud.refused("alice", "PUT", url, {"tags": [bad]})[0] == 400
    assert cloud.refused("alice", "PUT", f"{url}/a,b")[0] == 400
    body: Any
    for body in ({}, {"tags": "a"}, {"tags": [1]}, {"tags": [], "x": 1}, {"tags": [""]}):
        assert cloud.refused("alice", "PUT", url, body)[0] == 400
    cloud.good("alice", "PUT", url, {"tags": [str(number) for number in range(50)]})
    assert cloud.refused("alice", "PUT", f"{url}/one-more") == (
        400,
        "The number of tags exceeded the per-server limit 50",
    )
    assert cloud.refused("alice", "PUT", url, {"tags": [str(number) for number in range(51)]})[0] == 400
    for method, path, body in (("PUT", url, {"tags": []}), ("DELETE", url, None), ("PUT", f"{url}/x", None)):
        assert cloud.refused("rita", method, path, body)[0] == 403
        assert cloud.refused("bob", method, path, body)[0] == 404
    assert len(cloud.get("rita", url)["tags"]) == 50
    assert cloud.refused("alice", "GET", url, version="2.25")[0] == 404
    cloud.act("alice", server, lock=None)
    cloud.good("alice", "DELETE", url)
    building = cloud.create()
    assert cloud.refused("alice", "DELETE", f"/servers/{building}/tags") == (
        409,
        f"Cannot 'delete tags' instance {building} while it is in vm_state building",
    )
