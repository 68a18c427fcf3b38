"""Groups and their members."""

from tests.keystone.identity import Keystone


def test_the_life_of_a_group(keystone: Keystone) -> None:
    status, body, _ = keystone.call("POST", "/groups", {"group": {"name": "crew", "colour": "blue"}})
    group = body["group"]
    assert status == 201
    assert group == {
        "id": group["id"],
        "name": "crew",
        "domain_id": "default",
        "description": "",
        "colour": "blue",
        "links": {"self": f"http://127.0.0.1:5000/v3/groups/{group['id']}"},
    }
    path = f"/groups/{group['id']}"
    assert keystone.good("PATCH", path, {"group": {"description": "d"}})["group"]["description"] == "d"
    assert keystone.call("PATCH", path, {"group": {"domain_id": "x"}})[0] == 400
    assert keystone.call("POST", "/groups", {"group": {"name": "crew"}})[0] == 409
    assert keystone.call("POST", "/groups", {"group": {"name": ""}})[0] == 400
    assert keystone.call("POST", "/groups", {"group": {"name": "x", "domain_id": "none"}})[0] == 404
    assert [each["name"] for each in keystone.good("GET", "/groups?name=crew")["groups"]] == ["crew"]
    assert keystone.call("DELETE", path)[0] == 204
    assert keystone.call("GET", path)[1]["error"]["message"] == f"Could not find group: {group['id']}."


def test_members(keystone: Keystone) -> None:
    ann, bob = keystone.person("ann", blue="member"), keystone.person("bob", blue="member")
    group = keystone.good("POST", "/groups", {"group": {"name": "crew"}})["group"]["id"]
    member = f"/groups/{group}/users/{ann.id}"
    assert keystone.call("HEAD", member)[0] == 404
    assert keystone.call("PUT", member)[:2] == (204, b"")
    assert keystone.call("PUT", member)[0] == 204
    assert keystone.call("HEAD", member)[0] == 204
    assert [each["id"] for each in keystone.good("GET", f"/groups/{group}/users")["users"]] == [ann.id]
    mine = keystone.token_of(ann, project="blue")
    assert [each["id"] for each in keystone.good("GET", f"/users/{ann.id}/groups", token=mine)["groups"]] == [group]
    theirs = keystone.token_of(bob, project="blue")
    assert keystone.call("GET", f"/users/{ann.id}/groups", token=theirs)[0] == 403
    assert keystone.call("PUT", f"/groups/{group}/users/{bob.id}", token=theirs)[0] == 403
    assert keystone.call("GET", "/groups", token=theirs)[0] == 403
    assert keystone.call("PUT", f"/groups/{group}/users/none")[0] == 404
    assert keystone.call("PUT", f"/groups/none/users/{ann.id}")[0] == 404
    assert keystone.call("DELETE", member)[0] == 204
    assert keystone.call("DELETE", member)[0] == 404
    keystone.good("PUT", member)
    keystone.good("DELETE", f"/users/{ann.id}")
    assert keystone.good("GET", f"/groups/{group}/users")["users"] == []
