"""Projects and their tags, and domains."""

import pytest

from tests.keystone.identity import Keystone


def test_the_life_of_a_project(keystone: Keystone) -> None:
    status, body, _ = keystone.call("POST", "/projects", {"project": {"name": "blue", "colour": "blue"}})
    project = body["project"]
    assert status == 201
    assert project == {
        "id": project["id"],
        "name": "blue",
        "domain_id": "default",
        "parent_id": "default",
        "is_domain": False,
        "enabled": True,
        "description": "",
        "options": {},
        "tags": [],
        "colour": "blue",
        "links": {"self": f"http://127.0.0.1:5000/v3/projects/{project['id']}"},
    }
    path = f"/projects/{project['id']}"
    change = {"project": {"description": "d", "tags": ["b", "a"], "name": "red", "parent_id": "default"}}
    changed = keystone.good("PATCH", path, change)["project"]
    assert (changed["name"], changed["description"], changed["tags"]) == ("red", "d", ["a", "b"])
    assert keystone.good("GET", path)["project"] == changed
    assert keystone.call("HEAD", path)[0] == 200
    for wrong in ({"domain_id": "x"}, {"parent_id": "x"}, {"is_domain": True}, {"name": ""}, {"id": "x"}):
        assert keystone.call("PATCH", path, {"project": wrong})[0] == 400
    assert keystone.call("DELETE", path)[0] == 204
    status, body, _ = keystone.call("GET", path)
    assert (status, body["error"]["message"]) == (404, f"Could not find project: {project['id']}.")


def test_by_name_it_is_not_found(keystone: Keystone) -> None:
    status, body, _ = keystone.call("GET", "/projects/admin")
    assert (status, body["error"]["message"]) == (404, "Could not find project: admin.")
    assert [each["name"] for each in keystone.good("GET", "/projects?name=admin")["projects"]] == ["admin"]


def test_parents_and_children(keystone: Keystone) -> None:
    top = keystone.project("top")
    middle = keystone.project("middle", parent_id=top)
    leaf = keystone.project("leaf", parent_id=middle)
    shown = keystone.good("GET", f"/projects/{middle}?parents_as_ids&subtree_as_ids")["project"]
    assert shown["parents"] == {top: {"default": None}}
    assert shown["subtree"] == {leaf: None}
    shown = keystone.good("GET", f"/projects/{top}?parents_as_list&subtree_as_list")["project"]
    assert [each["project"]["id"] for each in shown["parents"]] == ["default"]
    assert [each["project"]["id"] for each in shown["subtree"]] == [middle, leaf]
    assert [each["id"] for each in keystone.good("GET", f"/projects?parent_id={top}")["projects"]] == [middle]
    status, body, _ = keystone.call("DELETE", f"/projects/{top}")
    assert (status, "not a leaf" in body["error"]["message"]) == (403, True)
    assert keystone.call("PATCH", f"/projects/{top}", {"project": {"enabled": False}})[0] == 403
    for project_id in (leaf, middle):
        keystone.good("PATCH", f"/projects/{project_id}", {"project": {"enabled": False}})
    assert keystone.call("PATCH", f"/projects/{leaf}", {"project": {"enabled": True}})[0] == 403
    below = {"project": {"name": "below", "parent_id": leaf}}
    assert keystone.call("POST", "/projects", below)[0] == 400, "its parent is disabled"
    for project_id in (middle, leaf):
        keystone.good("PATCH", f"/projects/{project_id}", {"project": {"enabled": True}})
    lowest = keystone.project("lowest", parent_id=leaf)
    too_deep = {"project": {"name": "deeper", "parent_id": lowest}}
    assert keystone.call("POST", "/projects", too_deep)[0] == 403


@pytest.mark.parametrize(
    ("project", "status"),
    [
        ({}, 400),
        ({"name": " "}, 400),
        ({"name": "x" * 65}, 400),
        ({"name": "x", "enabled": "False"}, 400),
        ({"name": "x", "is_domain": "False"}, 400),
        ({"name": "x", "tags": ["a,b"]}, 400),
        ({"name": "x", "tags": ["t" * 256]}, 400),
        ({"name": "x", "tags": "a"}, 400),
        ({"name": "x", "options": {"unknown": 1}}, 400),
        ({"name": "x", "domain_id": "none"}, 404),
        ({"name": "x", "parent_id": "none"}, 404),
        ({"name": "x", "parent_id": "default", "domain_id": "none"}, 400),
        ({"name": "x", "is_domain": True, "parent_id": "default"}, 400),
        ({"name": "admin"}, 409),
    ],
)
def test_bad_projects(keystone: Keystone, project: dict[str, object], status: int) -> None:
    got, body, _ = keystone.call("POST", "/projects", {"project": project})
    assert got == status, body
    if status == 409:
        message = (
            "Conflict occurred attempting to store project - Duplicate entry found with name admin at domain ID "
            "default."
        )
        assert body["error"]["message"] == message


def test_what_a_member_and_a_reader_of_the_domain_see(keystone: Keystone) -> None:
    ann = keystone.person("ann", blue="member")
    blue, red = keystone.project("blue"), keystone.project("red")
    token = keystone.token_of(ann, project="blue")
    assert keystone.call("GET", f"/projects/{blue}", token=token)[0] == 200
    assert keystone.call("GET", f"/projects/{red}", token=token)[0] == 403
    assert keystone.call("GET", "/projects/none", token=token)[0] == 403
    assert keystone.call("GET", "/projects", token=token)[0] == 403
    assert keystone.call("PATCH", f"/projects/{blue}", {"project": {"name": "x"}}, token)[0] == 403
    keystone.grant(ann.id, "reader", "domains/default")
    token = keystone.token_of(ann, domain_id="default")
    assert keystone.call("GET", f"/projects/{red}", token=token)[0] == 200
    keystone.good("POST", "/domains", {"domain": {"name": "Other", "explicit_domain_id": "other"}})
    keystone.project("foreign", "other")
    names = [each["name"] for each in keystone.good("GET", "/projects", token=token)["projects"]]
    assert names == ["admin", "blue", "red", "service"]


def test_tags(keystone: Keystone) -> None:
    blue, red = keystone.project("blue"), keystone.project("red")
    path = f"/projects/{blue}/tags"
    assert keystone.good("PUT", path, {"tags": ["x", "y"]})["tags"] == ["x", "y"]
    status, _, headers = keystone.call("PUT", f"{path}/z")
    assert (status, headers["Location"]) == (201, f"http://127.0.0.1:5000/v3{path}/z")
    assert keystone.call("PUT", f"{path}/z")[0] == 201
    assert keystone.good("GET", path)["tags"] == ["x", "y", "z"]
    assert keystone.call("GET", f"{path}/z")[0] == 204
    assert keystone.call("HEAD", f"{path}/z")[0] == 204
    keystone.good("PUT", f"/projects/{red}/tags/x")

    def found(query: str) -> list[str]:
        return [each["name"] for each in keystone.good("GET", f"/projects?{query}")["projects"]]

    assert found("tags=x") == ["blue", "red"]
    assert found("tags=x,y") == ["blue"]
    assert found("tags-any=y,nothing") == ["blue"]
    assert found("not-tags=x,y") == ["admin", "red", "service"]
    assert found("not-tags-any=x,y") == ["admin", "service"]
    assert keystone.call("DELETE", f"{path}/z")[0] == 204
    status, body, _ = keystone.call("DELETE", f"{path}/z")
    assert (status, body["error"]["message"]) == (404, "Could not find project tag: z.")
    assert keystone.call("PUT", path, {"tags": [str(number) for number in range(81)]})[0] == 400
    assert keystone.call("PUT", f"{path}/a,b")[0] == 400
    assert keystone.call("DELETE", path)[0] == 204
    assert keystone.good("GET", path)["tags"] == []


def test_the_life_of_a_domain(keystone: Keystone) -> None:
    status, body, _ = keystone.call("POST", "/domains", {"domain": {"name": "Other", "tags": ["t"]}})
    domain = body["domain"]
    assert status == 201
    assert domain == {
        "id": domain["id"],
        "name": "Other",
        "enabled": True,
        "description": "",
        "options": {},
        "tags": ["t"],
        "links": {"self": f"http://127.0.0.1:5000/v3/domains/{domain['id']}"},
    }
    path = f"/domains/{domain['id']}"
    assert [each["name"] for each in keystone.good("GET", "/domains")["domains"]] == ["Default", "Other"]
    as_project = keystone.good("GET", f"/projects/{domain['id']}")["project"]
    assert (as_project["is_domain"], as_project["domain_id"], as_project["parent_id"]) == (True, None, None)
    assert [each["name"] for each in keystone.good("GET", "/projects?is_domain=true")["projects"]] == [
        "Default",
        "Other",
    ]
    assert keystone.call("POST", "/domains", {"domain": {"name": "Other"}})[0] == 409
    assert keystone.good("PATCH", path, {"domain": {"name": "Others"}})["domain"]["name"] == "Others"
    ann = keystone.person("ann", domain["id"], inside="member")
    keystone.good("POST", "/groups", {"group": {"name": "crew", "domain_id": domain["id"]}})
    keystone.good("POST", "/roles", {"role": {"name": "local", "domain_id": domain["id"]}})
    assert keystone.call("DELETE", path)[0] == 403, "it is enabled"
    assert keystone.call("DELETE", f"/projects/{domain['id']}")[0] == 400, "so it is as a project"
    keystone.good("PATCH", path, {"domain": {"enabled": False}})
    assert keystone.call("DELETE", path)[0] == 204
    assert keystone.call("GET", path)[0] == 404
    assert keystone.call("GET", f"/users/{ann.id}")[0] == 404
    assert keystone.good("GET", "/projects?name=inside")["projects"] == []
    assert keystone.good("GET", f"/role_assignments?user.id={ann.id}")["role_assignments"] == []
    assert keystone.call("DELETE", "/domains/default")[0] == 403


def test_a_project_that_acts_as_a_domain(keystone: Keystone) -> None:
    made = keystone.good("POST", "/projects", {"project": {"name": "acting", "is_domain": True}})["project"]
    assert (made["is_domain"], made["domain_id"]) == (True, None)
    assert keystone.good("GET", f"/domains/{made['id']}")["domain"]["name"] == "acting"
    assert keystone.call("GET", "/domains/" + keystone.project("blue"))[0] == 404
    path = f"/projects/{made['id']}"
    inside = keystone.project("inside", made["id"])
    keystone.good("PATCH", f"/projects/{inside}", {"project": {"enabled": False}})
    keystone.good("PATCH", path, {"project": {"enabled": False}})
    assert keystone.call("DELETE", path)[0] == 403, "there is a project in it"
    assert keystone.call("DELETE", f"/projects/{inside}")[0] == 204
    ann = keystone.good("POST", "/users", {"user": {"name": "ann", "domain_id": made["id"]}})["user"]
    assert keystone.call("DELETE", path)[0] == 204
    assert keystone.call("GET", f"/domains/{made['id']}")[0] == 404
    assert keystone.call("GET", f"/users/{ann['id']}")[0] == 404
    assert keystone.call("DELETE", "/projects/default")[0] == 400


def test_who_sees_domains(keystone: Keystone) -> None:
    ann = keystone.person("ann", blue="member")
    keystone.good("POST", "/domains", {"domain": {"name": "Other", "explicit_domain_id": "other"}})
    token = keystone.token_of(ann, project="blue")
    assert keystone.call("GET", "/domains/default", token=token)[0] == 200, "of their project"
    assert keystone.call("GET", "/domains/other", token=token)[0] == 403
    assert keystone.call("GET", "/domains", token=token)[0] == 403
    assert keystone.call("POST", "/domains", {"domain": {"name": "x"}}, token)[0] == 403


def test_what_is_immutable_stays(keystone: Keystone) -> None:
    admin = keystone.role("admin")
    for method, body in (("PATCH", {"role": {"name": "x"}}), ("DELETE", None)):
        status, answer, _ = keystone.call(method, f"/roles/{admin}", body)
        assert (status, "immutable role" in answer["error"]["message"]) == (403, True)
    blue = keystone.project("blue")
    keystone.good("PATCH", f"/projects/{blue}", {"project": {"options": {"immutable": True}}})
    assert keystone.call("PATCH", f"/projects/{blue}", {"project": {"name": "x"}})[0] == 403
    assert keystone.call("DELETE", f"/projects/{blue}")[0] == 403
    keystone.good("PATCH", f"/projects/{blue}", {"project": {"options": {"immutable": None}}})
    assert keystone.call("DELETE", f"/projects/{blue}")[0] == 204
