"""Roles, what they imply, who has them where, and where a user may go."""

from typing import Any

import pytest

from tests.keystone.identity import Keystone, by_password


def test_the_life_of_a_role(keystone: Keystone) -> None:
    role = keystone.good("POST", "/roles", {"role": {"name": "cook", "description": "d"}})["role"]
    assert role == {
        "id": role["id"],
        "name": "cook",
        "domain_id": None,
        "description": "d",
        "options": {},
        "links": {"self": f"http://127.0.0.1:5000/v3/roles/{role['id']}"},
    }
    path = f"/roles/{role['id']}"
    assert keystone.good("PATCH", path, {"role": {"name": "chef"}})["role"]["name"] == "chef"
    status, body, _ = keystone.call("POST", "/roles", {"role": {"name": "chef"}})
    message = "Conflict occurred attempting to store role - Duplicate entry found with name chef."
    assert (status, body["error"]["message"]) == (409, message)
    assert keystone.call("PATCH", path, {"role": {"domain_id": "default"}})[0] == 400
    assert keystone.call("GET", "/roles/chef")[1]["error"]["message"] == "Could not find role: chef."
    ann = keystone.person("ann", blue="chef")
    token = keystone.token_of(ann, project="blue")
    assert keystone.call("GET", "/roles", token=token)[0] == 403
    assert keystone.call("DELETE", path)[0] == 204
    assert keystone.who(token) is None, "the assignment went with its role"
    assert keystone.call("DELETE", path)[0] == 404


def test_a_role_of_a_domain_counts_by_what_it_implies(keystone: Keystone) -> None:
    local = keystone.good("POST", "/roles", {"role": {"name": "member", "domain_id": "default"}})["role"]
    assert "member" in [each["name"] for each in keystone.good("GET", "/roles")["roles"]]
    assert local["id"] not in [each["id"] for each in keystone.good("GET", "/roles")["roles"]]
    assert [each["id"] for each in keystone.good("GET", "/roles?domain_id=default")["roles"]] == [local["id"]]
    ann, blue = keystone.person("ann"), keystone.project("blue")
    keystone.good("PUT", f"/projects/{blue}/users/{ann.id}/roles/{local['id']}")
    login = {"name": "ann", "password": ann.password, "project": "blue"}
    with pytest.raises(AssertionError):
        keystone.token(**login)
    keystone.good("PUT", f"/roles/{local['id']}/implies/{keystone.role('reader')}")
    seen = keystone.who(keystone.token(**login))
    assert seen is not None
    assert seen.roles == {"reader"}
    keystone.good("POST", "/domains", {"domain": {"name": "Other", "explicit_domain_id": "other"}})
    foreign = keystone.project("foreign", "other")
    assert keystone.call("PUT", f"/projects/{foreign}/users/{ann.id}/roles/{local['id']}")[0] == 403


def test_implied_roles(keystone: Keystone) -> None:
    cook, member, admin = (keystone.role(name) for name in ("cook", "member", "admin"))
    path = f"/roles/{cook}/implies/{member}"
    status, body, _ = keystone.call("PUT", path)
    assert status == 201
    assert body["role_inference"]["prior_role"]["name"] == "cook"
    assert body["role_inference"]["implies"]["name"] == "member"
    assert keystone.call("PUT", path)[0] == 201
    assert keystone.good("GET", path) == body
    assert keystone.call("HEAD", path)[0] == 204
    listed = keystone.good("GET", f"/roles/{cook}/implies")["role_inference"]
    assert [each["name"] for each in listed["implies"]] == ["member"]
    rules = keystone.good("GET", "/role_inferences")["role_inferences"]
    pairs = {(rule["prior_role"]["name"], each["name"]) for rule in rules for each in rule["implies"]}
    assert pairs == {("admin", "manager"), ("manager", "member"), ("member", "reader"), ("cook", "member")}
    status, body, _ = keystone.call("PUT", f"/roles/{cook}/implies/{admin}")
    assert (status, body["error"]["message"]) == (403, f"{admin} cannot be an implied roles.")
    assert keystone.call("PUT", f"/roles/{cook}/implies/{cook}")[0] == 400
    assert keystone.call("PUT", f"/roles/{member}/implies/{cook}")[0] == 201, "a circle is harmless"
    ann = keystone.person("ann", blue="cook")
    seen = keystone.who(keystone.token_of(ann, project="blue"))
    assert seen is not None
    assert seen.roles == {"cook", "member", "reader"}
    assert keystone.call("DELETE", path)[0] == 204
    assert keystone.call("DELETE", path)[0] == 404
    assert keystone.call("GET", path)[1]["error"]["message"] == f"{cook} does not imply {member}."
    assert keystone.call("GET", f"/roles/{cook}/implies/none")[0] == 404


def test_roles_of_domains_may_imply_others_but_are_in_no_token(keystone: Keystone) -> None:
    for domain in ("one", "two"):
        keystone.good("POST", "/domains", {"domain": {"name": domain, "explicit_domain_id": domain}})

    def local(name: str, domain: str) -> str:
        return str(keystone.good("POST", "/roles", {"role": {"name": name, "domain_id": domain}})["role"]["id"])

    cook, baker, smith = local("cook", "one"), local("baker", "one"), local("smith", "two")
    member = keystone.role("member")
    for implied in (baker, smith, member):
        assert keystone.call("PUT", f"/roles/{cook}/implies/{implied}")[0] == 201
    assert keystone.call("PUT", f"/roles/{member}/implies/{cook}")[0] == 403
    ann = keystone.person("ann", "one")
    kitchen = keystone.project("kitchen", "one")
    keystone.good("PUT", f"/projects/{kitchen}/users/{ann.id}/roles/{cook}")
    query = f"/role_assignments?user.id={ann.id}&scope.project.id={kitchen}"
    assert [each["role"]["id"] for each in keystone.good("GET", query)["role_assignments"]] == [cook]
    effective = keystone.good("GET", f"{query}&effective")["role_assignments"]
    assert {each["role"]["id"] for each in effective} == {member, keystone.role("reader")}


def targets(keystone: Keystone) -> dict[str, str]:
    return {"project": f"/projects/{keystone.project('blue')}", "domain": "/domains/default", "system": "/system"}


@pytest.mark.parametrize("actor", ["user", "group"])
@pytest.mark.parametrize(
    ("target", "inherited"),
    [("project", False), ("domain", False), ("system", False), ("project", True), ("domain", True)],
)
def test_grants(keystone: Keystone, target: str, actor: str, inherited: bool) -> None:
    actor_id = (
        keystone.person("ann").id
        if actor == "user"
        else keystone.good("POST", "/groups", {"group": {"name": "crew"}})["group"]["id"]
    )
    role, other = keystone.role("member"), keystone.role("reader")
    start, end = ("/OS-INHERIT", "/inherited_to_projects") if inherited else ("", "")
    where = f"{start}{targets(keystone)[target]}/{actor}s/{actor_id}/roles"
    one = f"{where}/{role}{end}"
    assert keystone.call("HEAD", one)[0] == 404
    status, body, _ = keystone.call("DELETE", one)
    assert status == 404, "to take away what is not there"
    assert body["error"]["message"].startswith(f"Could not find role assignment with role: {role}, user or group:")
    assert keystone.call("HEAD", one)[0] == 404, "does not make it"
    assert keystone.call("PUT", one)[:2] == (204, b"")
    assert keystone.call("PUT", one)[0] == 204
    assert keystone.call("GET", one)[0] == 204
    assert [each["name"] for each in keystone.good("GET", f"{where}{end}")["roles"]] == ["member"]
    assert keystone.call("HEAD", f"{where}/{other}{end}")[0] == 404
    for wrong in (one.replace(role, "none"), one.replace(actor_id, "none")):
        assert keystone.call("PUT", wrong)[0] == 404
    if target != "system":
        assert keystone.call("PUT", one.replace(targets(keystone)[target], f"/{target}s/none"))[0] == 404
    assert keystone.call("DELETE", one)[0] == 204
    assert keystone.good("GET", f"{where}{end}")["roles"] == []


def test_who_may_grant(keystone: Keystone) -> None:
    ann, bob = keystone.person("ann", blue="member"), keystone.person("bob")
    blue, member, admin = keystone.project("blue"), keystone.role("member"), keystone.role("admin")
    to_bob = f"/projects/{blue}/users/{bob.id}/roles"
    token = keystone.token_of(ann, project="blue")
    for method in ("PUT", "GET", "DELETE"):
        assert keystone.call(method, f"{to_bob}/{member}", token=token)[0] == 403
    keystone.grant(ann.id, "manager", "domains/default")
    token = keystone.token_of(ann, domain_id="default")
    assert keystone.call("PUT", f"{to_bob}/{member}", token=token)[0] == 204
    assert keystone.call("PUT", f"{to_bob}/{admin}", token=token)[0] == 403, "a manager makes no admins"
    assert keystone.call("PUT", f"/system/users/{bob.id}/roles/{member}", token=token)[0] == 403
    keystone.good("POST", "/domains", {"domain": {"name": "Other", "explicit_domain_id": "other"}})
    foreign = keystone.project("foreign", "other")
    assert keystone.call("PUT", f"/projects/{foreign}/users/{bob.id}/roles/{member}", token=token)[0] == 403
    eve = keystone.person("eve", "other")
    assert keystone.call("PUT", f"/projects/{blue}/users/{eve.id}/roles/{member}", token=token)[0] == 403


def named(assignment: Any) -> tuple[str, str, str]:
    actor = assignment.get("user") or assignment["group"]
    scope = assignment["scope"]
    where = scope.get("project") or scope.get("domain") or {"name": "system"}
    below = "*" if "OS-INHERIT:inherited_to" in scope else ""
    return assignment["role"]["name"], actor["name"], where["name"] + below


def test_the_list_of_assignments(keystone: Keystone) -> None:
    ann = keystone.person("ann", blue="member")
    top = keystone.project("top")
    leaf = keystone.project("leaf", parent_id=top)
    group = keystone.good("POST", "/groups", {"group": {"name": "crew"}})["group"]["id"]
    keystone.good("PUT", f"/groups/{group}/users/{ann.id}")
    reader = keystone.role("reader")
    granted = f"OS-INHERIT/projects/{top}/groups/{group}/roles/{reader}/inherited_to_projects"
    keystone.good("PUT", f"/{granted}")

    def listed(query: str) -> list[Any]:
        return list(keystone.good("GET", f"/role_assignments?{query}")["role_assignments"])

    def names(query: str) -> set[tuple[str, str, str]]:
        return {named(each) for each in listed(f"include_names&{query}")}

    assert names("") == {
        ("member", "ann", "blue"),
        ("reader", "crew", "top*"),
        ("admin", "admin", "admin"),
        ("admin", "admin", "Default"),
        ("admin", "admin", "Default*"),
        ("admin", "admin", "system"),
    }
    assert names(f"user.id={ann.id}") == {("member", "ann", "blue")}
    assert names(f"group.id={group}") == {("reader", "crew", "top*")}
    assert names(f"role.id={reader}") == {("reader", "crew", "top*")}
    assert names("scope.system=all") == {("admin", "admin", "system")}
    assert names("scope.domain.id=default&scope.OS-INHERIT:inherited_to=projects") == {
        ("admin", "admin", "Default*")
    }
    assert names(f"user.id={ann.id}&effective") == {
        ("member", "ann", "blue"),
        ("reader", "ann", "blue"),
        ("reader", "ann", "leaf*"),
    }
    assert ("admin", "admin", "leaf*") in names(f"scope.project.id={leaf}&effective=true")
    assert names(f"effective&role.id={reader}&scope.project.id={leaf}") == {
        ("reader", "ann", "leaf*"),
        ("reader", "admin", "leaf*"),
    }
    (plain,) = listed(f"user.id={ann.id}")
    blue, member = keystone.project("blue"), keystone.role("member")
    assert plain == {
        "role": {"id": member},
        "user": {"id": ann.id},
        "scope": {"project": {"id": blue}},
        "links": {
            "assignment": f"http://127.0.0.1:5000/v3/projects/{blue}/users/{ann.id}/roles/{member}",
        },
    }
    (through,) = listed(f"effective&user.id={ann.id}&scope.project.id={leaf}")
    assert through["links"] == {
        "assignment": f"http://127.0.0.1:5000/v3/{granted}",
        "membership": f"http://127.0.0.1:5000/v3/groups/{group}/users/{ann.id}",
    }
    for wrong in ("user.id=a&group.id=b", "scope.project.id=a&scope.domain.id=b", "effective&group.id=x"):
        assert keystone.call("GET", f"/role_assignments?{wrong}")[0] == 400
    assert keystone.call("GET", "/role_assignments", token=keystone.token_of(ann, project="blue"))[0] == 403
    keystone.grant(ann.id, "reader", "domains/default")
    token = keystone.token_of(ann, domain_id="default")
    seen = keystone.good("GET", "/role_assignments?include_names", token=token)["role_assignments"]
    assert {named(each) for each in seen} == {
        ("member", "ann", "blue"),
        ("reader", "ann", "Default"),
        ("reader", "crew", "top*"),
        ("admin", "admin", "admin"),
        ("admin", "admin", "Default"),
        ("admin", "admin", "Default*"),
    }, "not what is on the system"


def test_where_a_user_may_go(keystone: Keystone) -> None:
    ann = keystone.person("ann", blue="member", red="reader", off="reader")
    keystone.good("PATCH", f"/projects/{keystone.project('off')}", {"project": {"enabled": False}})
    top = keystone.project("top")
    leaf = keystone.project("leaf", parent_id=keystone.project("middle", parent_id=top))
    grant = f"/OS-INHERIT/projects/{top}/users/{ann.id}/roles/{keystone.role('reader')}/inherited_to_projects"
    keystone.good("PUT", grant)
    token = keystone.token_of(ann, unscoped="yes")

    def names(path: str, token: str = token) -> list[str]:
        (collection,) = (value for key, value in keystone.good("GET", path, token=token).items() if key != "links")
        return [each["name"] for each in collection]

    assert names("/auth/projects") == ["blue", "leaf", "middle", "red"]
    assert names(f"/users/{ann.id}/projects") == ["blue", "leaf", "middle", "off", "red"]
    assert names("/auth/projects?name=red") == ["red"]
    for project_id in (leaf, keystone.project("blue")):
        keystone.rescope(token, project_id=project_id)
    assert names("/auth/domains") == []
    keystone.grant(ann.id, "reader", "domains/default")
    assert names("/auth/domains") == ["Default"]
    assert keystone.good("GET", "/auth/system", token=token)["system"] == []
    assert keystone.good("GET", "/auth/system")["system"] == [{"all": True}]
    assert keystone.call("GET", "/auth/catalog", token=token)[0] == 403
    assert [each["type"] for each in keystone.good("GET", "/auth/catalog")["catalog"]] == [
        "identity",
        "compute",
        "object-store",
    ]


def test_assignments_of_a_whole_subtree(keystone: Keystone) -> None:
    ann = keystone.person("ann", blue="admin")
    blue = keystone.project("blue")
    below = keystone.project("below", parent_id=blue)
    lowest = keystone.project("lowest", parent_id=below)
    other = keystone.project("other")
    for project_id in (lowest, other):
        keystone.grant(ann.id, "reader", f"projects/{project_id}")

    def shown(query: str) -> set[str]:
        found = keystone.good("GET", f"/role_assignments?user.id={ann.id}&{query}")["role_assignments"]
        return {each["scope"]["project"]["id"] for each in found}

    assert shown(f"scope.project.id={blue}") == {blue}
    assert shown(f"scope.project.id={blue}&include_subtree=True") == {blue, lowest}
    assert shown(f"scope.project.id={blue}&include_subtree&effective") == {blue, lowest}
    assert shown(f"scope.project.id={below}&include_subtree") == {lowest}
    assert keystone.call("GET", "/role_assignments?include_subtree")[0] == 400


def test_roles_on_the_system(keystone: Keystone) -> None:
    ann = keystone.person("ann")
    reader = keystone.role("reader")
    path = f"/system/users/{ann.id}/roles"
    assert keystone.login(by_password("ann", ann.password, system="all"))[0] == 401
    assert keystone.call("HEAD", f"{path}/{reader}")[0] == 404
    keystone.good("PUT", f"{path}/{reader}")
    assert [each["name"] for each in keystone.good("GET", path)["roles"]] == ["reader"]
    assert keystone.call("GET", f"{path}/{reader}")[0] == 204
    token = keystone.token_of(ann, system="all")
    context = keystone.who(token)
    assert context is not None
    assert context.system
    assert context.project_id == ""
    assert context.roles == {"reader"}
    assert keystone.call("GET", "/users", token=token)[0] == 200, "a reader of the system reads all"
    assert keystone.call("DELETE", f"/users/{ann.id}", token=token)[0] == 403
    assert keystone.good("GET", "/auth/system", token=token)["system"] == [{"all": True}]
    keystone.good("DELETE", f"{path}/{reader}")
    assert keystone.who(token) is None
