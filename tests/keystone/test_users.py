"""Users: bodies, codes, lists, policies by role, passwords."""

import pytest

from tests.keystone.identity import Json, Keystone, by_password


def test_the_life_of_a_user(keystone: Keystone) -> None:
    wanted = {
        "name": "ann",
        "password": "a good password",
        "email": "ann@cloud",
        "description": "the first",
        "default_project_id": keystone.project("blue"),
        "options": {"lock_password": False, "ignore_password_expiry": None},
        "favourite": {"colour": ["blue"]},
    }
    status, body, _ = keystone.call("POST", "/users", {"user": wanted})
    user = body["user"]
    assert status == 201
    assert user == {
        "id": user["id"],
        "name": "ann",
        "domain_id": "default",
        "enabled": True,
        "default_project_id": wanted["default_project_id"],
        "password_expires_at": None,
        "options": {"lock_password": False},
        "email": "ann@cloud",
        "description": "the first",
        "favourite": {"colour": ["blue"]},
        "links": {"self": f"http://127.0.0.1:5000/v3/users/{user['id']}"},
    }
    path = f"/users/{user['id']}"
    assert keystone.good("GET", path)["user"] == user
    assert keystone.call("HEAD", path)[0] == 200
    change = {"user": {"name": "anna", "email": "anna@cloud", "default_project_id": None, "enabled": False}}
    changed = keystone.good("PATCH", path, change)["user"]
    assert (changed["name"], changed["email"], changed["enabled"]) == ("anna", "anna@cloud", False)
    assert "default_project_id" not in changed
    assert changed["favourite"] == {"colour": ["blue"]}
    assert keystone.call("DELETE", path)[:2] == (204, b"")
    for method, body in (("GET", None), ("PATCH", {"user": {}}), ("DELETE", None)):
        status, answer, _ = keystone.call(method, path, body)
        assert status == 404
        assert answer["error"]["message"] == f"Could not find user: {user['id']}."


def test_lists_filter_sort_and_page(keystone: Keystone) -> None:
    for name in ("cat", "ann", "bob"):
        keystone.person(name)
    keystone.good("POST", "/users", {"user": {"name": "off", "enabled": False}})

    def names(query: str = "") -> list[str]:
        return [user["name"] for user in keystone.good("GET", f"/users{query}")["users"]]

    assert names() == ["admin", "ann", "bob", "cat", "off"]
    assert names("?name=bob") == ["bob"]
    assert names("?name=nobody") == []
    assert names("?enabled=false") == ["off"]
    assert names("?enabled") == ["admin", "ann", "bob", "cat"]
    assert names("?name__contains=a") == ["admin", "ann", "cat"]
    assert names("?name__startswith=%25") == []
    assert names("?domain_id=other") == []
    assert names("?nonsense=1&sort_key=name&sort_dir=desc&limit=2") == ["off", "cat"]
    first = keystone.good("GET", "/users?limit=2")
    assert first["links"]["self"] == "http://127.0.0.1:5000/v3/users?limit=2"
    assert first["links"]["previous"] is None
    following = first["links"]["next"].removeprefix("http://127.0.0.1:5000/v3")
    assert [user["name"] for user in keystone.good("GET", following)["users"]] == ["bob", "cat"]
    assert keystone.good("GET", "/users")["links"]["next"] is None


def test_names_are_unique_in_a_domain(keystone: Keystone) -> None:
    keystone.person("ann")
    keystone.good("POST", "/domains", {"domain": {"name": "Other", "explicit_domain_id": "other"}})
    bob = keystone.person("bob")
    keystone.person("ann", "other")
    taken = "Conflict occurred attempting to store user - Duplicate entry found with name ann at domain ID default."
    for method, path in (("POST", "/users"), ("PATCH", f"/users/{bob.id}")):
        status, body, _ = keystone.call(method, path, {"user": {"name": "ann"}})
        assert (status, body["error"]["message"], body["error"]["title"]) == (409, taken, "Conflict")


@pytest.mark.parametrize(
    "user",
    [
        {},
        {"name": ""},
        {"name": "  "},
        {"name": "x" * 256},
        {"name": 7},
        {"name": "ann", "enabled": "maybe"},
        {"name": "ann", "enabled": None},
        {"name": "ann", "password": 7},
        {"name": "ann", "domain_id": None},
        {"name": "ann", "default_project_id": "../x"},
        {"name": "ann", "options": {"multi_factor_auth_enabled": True}},
        {"name": "ann", "options": {"lock_password": "perhaps"}},
    ],
)
def test_bad_users(keystone: Keystone, user: dict[str, object]) -> None:
    assert keystone.call("POST", "/users", {"user": user})[0] == 400


def test_bad_changes(keystone: Keystone) -> None:
    ann = keystone.person("ann")
    for change in ({"domain_id": "other"}, {"id": "other"}, {"name": ""}, {"password": ""}):
        assert keystone.call("PATCH", f"/users/{ann.id}", {"user": change})[0] == 400
    assert keystone.call("POST", "/users", {"user": {"name": "x", "domain_id": "none"}})[0] == 404
    assert keystone.call("POST", "/users", {"account": {}})[0] == 400
    assert keystone.call("PUT", "/users")[0] == 405


def test_who_may_do_what(keystone: Keystone) -> None:
    ann = keystone.person("ann", blue="member")
    mine = keystone.token_of(ann, project="blue")
    unscoped = keystone.token_of(ann, unscoped="yes")
    for token in (mine, unscoped):
        assert keystone.call("GET", f"/users/{ann.id}", token=token)[0] == 200
        assert keystone.call("GET", f"/users/{ann.id}/projects", token=token)[0] == 200
        assert keystone.call("PATCH", f"/users/{ann.id}", {"user": {"name": "x"}}, token)[0] == 403
        assert keystone.call("DELETE", f"/users/{ann.id}", token=token)[0] == 403
        status, body, _ = keystone.call("GET", "/users", token=token)
        assert (status, body["error"]["title"]) == (403, "Forbidden")
        assert body["error"]["message"] == (
            "You are not authorized to perform the requested action: identity:list_users."
        )
    keystone.grant(ann.id, "reader", "system")
    system = keystone.token_of(ann, system="yes")
    assert keystone.call("GET", "/users", token=system)[0] == 200
    assert keystone.call("POST", "/users", {"user": {"name": "x"}}, system)[0] == 403


def test_managers_and_readers_of_a_domain_keep_to_it(keystone: Keystone) -> None:
    keystone.good("POST", "/domains", {"domain": {"name": "Other", "explicit_domain_id": "other"}})
    bob = keystone.person("bob", "other")
    ann = keystone.person("ann")
    keystone.grant(ann.id, "reader", "domains/other")
    token = keystone.token_of(ann, domain_id="other")
    users = keystone.good("GET", "/users", token=token)["users"]
    assert [user["id"] for user in users] == [bob.id]
    assert keystone.call("GET", f"/users/{bob.id}", token=token)[0] == 200
    assert keystone.call("DELETE", f"/users/{bob.id}", token=token)[0] == 403
    keystone.grant(ann.id, "manager", "domains/other")
    new = keystone.good("POST", "/users", {"user": {"name": "eve"}}, token)["user"]
    assert new["domain_id"] == "other"
    assert keystone.call("POST", "/users", {"user": {"name": "x", "domain_id": "default"}}, token)[0] == 403
    assert keystone.call("DELETE", f"/users/{new['id']}", token=token)[0] == 204
    admin = keystone.good("GET", "/users?name=admin")["users"][0]["id"]
    assert keystone.call("PATCH", f"/users/{admin}", {"user": {"password": "mine now"}}, token)[0] == 403


def test_ones_own_password(keystone: Keystone) -> None:
    ann = keystone.person("ann", blue="member")
    token = keystone.token_of(ann, project="blue")
    path = f"/users/{ann.id}/password"
    change = {"user": {"original_password": ann.password, "password": "a newer one"}}
    assert keystone.call("POST", path, change, token)[:2] == (204, b"")
    assert keystone.call("POST", path, change, None)[0] == 401, "that was the password"
    assert keystone.login(by_password("ann", ann.password))[0] == 401
    assert keystone.login(by_password("ann", "a newer one"))[0] == 201
    assert keystone.call("POST", path, {"user": {"original_password": "a newer one", "password": ""}})[0] == 400
    assert keystone.call("POST", path, {"user": {"password": "x"}})[0] == 400
    keystone.good("PATCH", f"/users/{ann.id}", {"user": {"options": {"lock_password": True}}})
    locked = {"user": {"original_password": "a newer one", "password": "another"}}
    assert keystone.call("POST", path, locked, None)[0] == 403


def test_a_renamed_user_keeps_their_token(keystone: Keystone) -> None:
    ann = keystone.person("ann", blue="member")
    token = keystone.token_of(ann, project="blue")
    keystone.good("PATCH", f"/users/{ann.id}", {"user": {"name": "anna", "email": "a@b"}})
    seen = keystone.who(token)
    assert seen is not None
    assert seen.user_name == "anna"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"user": {"password": "new"}}, 400),
        ({"user": {"original_password": "a good password"}}, 400),
        ({"user": {"original_password": "a good password", "password": ""}}, 400),
        ({"user": {"original_password": "a good password", "password": None}}, 400),
        ({"user": {"original_password": "wrong", "password": "new"}}, 401),
        ({}, 400),
    ],
)
def test_a_password_is_not_changed_by(keystone: Keystone, body: Json, status: int) -> None:
    ann = keystone.person("ann", blue="member")
    for token in (None, keystone.token_of(ann, project="blue")):
        assert keystone.call("POST", f"/users/{ann.id}/password", body, token)[0] == status
    assert keystone.call("POST", "/users/none/password", body, None)[0] in (status, 401)
    assert keystone.login(by_password("ann", ann.password))[0] == 201
