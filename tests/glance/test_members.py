"""The story of a shared image: offered by its owner, accepted or rejected by the other project."""

from typing import Any

from tests.glance.rig import Glance


def listed(glance: Glance, who: str, query: str = "") -> list[str]:
    return [image["name"] for image in glance.call(who, "GET", f"/v2/images{query}")[1]["images"]]


def test_sharing(glance: Glance) -> None:
    image = glance.active("alice", name="ours", data=b"shared")
    members = f"{image['self']}/members"
    assert glance.call("bob", "GET", members)[0] == 404
    status, member = glance.call("alice", "POST", members, {"member": "red"})
    assert status == 200
    assert {k: member[k] for k in ("member_id", "image_id", "status", "schema")} == {
        "member_id": "red",
        "image_id": image["id"],
        "status": "pending",
        "schema": "/v2/schemas/member",
    }
    assert glance.call("alice", "POST", members, {"member": "red"})[0] == 409
    assert glance.call("bob", "GET", image["self"])[0] == 200
    assert glance.download("bob", image["id"]).body == b"shared"
    assert listed(glance, "bob") == []
    assert listed(glance, "bob", "?member_status=pending") == ["ours"]
    assert glance.call("alice", "PUT", f"{members}/red", {"status": "accepted"})[0] == 403
    status, member = glance.call("bob", "PUT", f"{members}/red", {"status": "accepted"})
    assert (status, member["status"]) == (200, "accepted")
    assert listed(glance, "bob") == ["ours"]
    assert listed(glance, "bob", "?visibility=shared") == ["ours"]
    assert glance.call("bob", "GET", f"{members}/red") == (200, member)
    assert glance.call("bob", "PUT", f"{members}/red", {"status": "rejected"})[1]["status"] == "rejected"
    assert listed(glance, "bob", "?member_status=all") == ["ours"]
    assert glance.call("alice", "DELETE", f"{members}/red") == (204, "")
    assert glance.call("bob", "GET", image["self"])[0] == 404
    assert glance.call("alice", "DELETE", f"{members}/red")[0] == 404


def test_a_member_sees_only_itself_and_changes_nothing(glance: Glance) -> None:
    image = glance.create("alice")
    members = f"{image['self']}/members"
    for project in ("red", "green"):
        glance.call("alice", "POST", members, {"member": project})

    def seen(who: str) -> list[Any]:
        return [member["member_id"] for member in glance.call(who, "GET", members)[1]["members"]]

    assert sorted(seen("alice")) == ["green", "red"]
    assert seen("bob") == ["red"]
    assert glance.call("bob", "GET", f"{members}/green")[0] == 404
    assert glance.call("bob", "PUT", f"{members}/green", {"status": "rejected"})[0] == 403
    assert glance.call("bob", "POST", members, {"member": "pink"})[0] == 403
    assert glance.call("bob", "DELETE", f"{members}/red")[0] == 403
    assert glance.patch("bob", image["id"], {"op": "replace", "path": "/name", "value": "x"})[0] == 403
    assert glance.call("bob", "DELETE", image["self"])[0] == 403


def test_bad_members(glance: Glance) -> None:
    image = glance.create("alice")
    members = f"{image['self']}/members"
    body: Any
    for body in ({}, {"member": ""}, {"member": "x" * 256}, {"member": 5}, [], "red"):
        assert glance.call("alice", "POST", members, body)[0] == 400
    glance.call("alice", "POST", members, {"member": "red"})
    for body in ({}, {"status": "perhaps"}, []):
        assert glance.call("bob", "PUT", f"{members}/red", body)[0] == 400
    private = glance.create("alice", visibility="private")
    status, page = glance.call("alice", "POST", f"{private['self']}/members", {"member": "red"})
    assert status == 403
    assert "Only shared images have members." in page
    assert glance.call("alice", "GET", f"{private['self']}/members/red")[0] == 404
    for number in range(127):
        assert glance.call("alice", "POST", members, {"member": f"p{number}"})[0] == 200
    assert glance.call("alice", "POST", members, {"member": "one-too-many"})[0] == 413
