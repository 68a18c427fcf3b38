"""Application credentials: made, listed, logged in with, and gone with what they stand on."""

from typing import Any

import pytest
import sqlalchemy as sa

from cumulet.core import clock
from cumulet.core.context import Context
from cumulet.keystone.tables import application_credentials
from tests.keystone.identity import Json, Keystone, Person, by_password


def make(keystone: Keystone, person: Person, token: str = "", **values: Any) -> Json:
    body = {"application_credential": {"name": "robot", **values}}
    token = token or keystone.token_of(person, project="blue")
    path = f"/users/{person.id}/application_credentials"
    return dict(keystone.good("POST", path, body, token)["application_credential"])


def login(keystone: Keystone, scope: Json | None = None, **method: Any) -> tuple[int, Any, str]:
    identity = {"methods": ["application_credential"], "application_credential": method}
    body = {"identity": identity, **({"scope": scope} if scope else {})}
    status, answer, headers = keystone.login(body)
    return status, answer, headers.get("X-Subject-Token", "")


def token_by(keystone: Keystone, made: Json) -> str:
    status, body, token = login(keystone, id=made["id"], secret=made["secret"])
    assert status == 201, body
    return token


def test_the_life_of_an_application_credential(keystone: Keystone) -> None:
    ann = keystone.person("ann", blue="member")
    token = keystone.token_of(ann, project="blue")
    path = f"/users/{ann.id}/application_credentials"
    # as the command line sends it
    made = make(keystone, ann, access_rules=None, description=None, expires_at=None, roles=[], secret=None)
    assert {role["name"] for role in made["roles"]} == {"member", "reader"}
    assert len(made["secret"]) > 80
    assert (made["unrestricted"], made["expires_at"], made["project_id"]) == (False, None, keystone.project("blue"))
    assert "access_rules" not in made
    shown = keystone.good("GET", f"{path}/{made['id']}", token=token)["application_credential"]
    assert shown == {key: value for key, value in made.items() if key != "secret"}
    assert keystone.good("GET", path, token=token)["application_credentials"] == [shown]
    assert keystone.good("GET", f"{path}?name=other", token=token)["application_credentials"] == []
    status, body, _ = keystone.call("POST", path, {"application_credential": {"name": "robot"}}, token)
    assert (status, "Duplicate entry found with name robot" in body["error"]["message"]) == (409, True)
    robot = token_by(keystone, made)
    assert keystone.call("DELETE", f"{path}/{made['id']}", token=token)[0] == 204
    assert keystone.who(robot) is None
    assert login(keystone, id=made["id"], secret=made["secret"])[0] == 401
    assert keystone.call("GET", f"{path}/{made['id']}", token=token)[0] == 404
    with keystone.db.read() as tx:
        assert made["secret"] not in str(tx.all(sa.select(application_credentials)))


def test_a_login_by_id_or_by_name(keystone: Keystone) -> None:
    ann = keystone.person("ann", blue="member")
    made = make(keystone, ann, secret="a chosen secret", roles=[{"name": "reader"}])
    assert made["secret"] == "a chosen secret"
    for method in (
        {"id": made["id"]},
        {"name": "robot", "user": {"id": ann.id}},
        {"name": "robot", "user": {"name": "ann", "domain": {"id": "default"}}},
        {"id": made["id"], "user": {"id": ann.id}},
    ):
        status, body, token = login(keystone, secret="a chosen secret", **method)
        assert status == 201, body
        document = body["token"]
        assert document["methods"] == ["application_credential"]
        assert document["project"]["name"] == "blue"
        assert [role["name"] for role in document["roles"]] == ["reader"]
        expected = {"id": made["id"], "name": "robot", "restricted": True}
        assert document["application_credential"] == expected
        assert (keystone.who(token) or Context()).roles == {"reader"}
    shown = keystone.call("GET", "/auth/tokens", token=token, X_Subject_Token=token)[1]["token"]
    assert shown["application_credential"]["id"] == made["id"]


def test_what_is_lent_is_part_of_what_the_user_has_now(keystone: Keystone) -> None:
    ann = keystone.person("ann", blue="member")
    member, blue = keystone.role("member"), keystone.project("blue")
    made = make(keystone, ann, roles=[{"id": member}])
    robot = token_by(keystone, made)
    assert (keystone.who(robot) or Context()).roles == {"member", "reader"}, "with what it implies"
    keystone.grant(ann.id, "admin", f"projects/{blue}")
    assert (keystone.who(robot) or Context()).roles == {"member", "reader"}, "and no more, whatever the user gets"
    with keystone.db.transaction() as tx:  # as if by a group
        from cumulet.keystone.tables import assignments

        tx.write(sa.delete(assignments).where(assignments.c.actor_id == ann.id))
    keystone.grant(ann.id, "reader", f"projects/{blue}")
    assert (keystone.who(robot) or Context()).roles == {"reader"}
    keystone.grant(ann.id, "reader", f"projects/{blue}", "DELETE")
    assert keystone.who(robot) is None
    keystone.grant(ann.id, "member", f"projects/{blue}")
    assert keystone.who(robot) is None, "a role that is taken away takes the credentials with it"
    assert login(keystone, id=made["id"], secret=made["secret"])[0] == 401


def test_expiry(keystone: Keystone) -> None:
    ann = keystone.person("ann", blue="member")
    soon = clock.later(100)
    made = make(keystone, ann, expires_at=soon[:19])
    assert made["expires_at"] == soon[:19] + ".000000"
    status, body, robot = login(keystone, id=made["id"], secret=made["secret"])
    assert (status, body["token"]["expires_at"]) == (201, made["expires_at"] + "Z"), (
        "no token outlives its credential"
    )
    with keystone.db.transaction() as tx:
        tx.write(sa.update(application_credentials).values(expires_at=clock.now()))
    assert keystone.who(robot) is None
    assert login(keystone, id=made["id"], secret=made["secret"])[0] == 401


def test_a_new_password_ends_the_tokens_not_the_credential(keystone: Keystone) -> None:
    ann = keystone.person("ann", blue="member")
    made = make(keystone, ann)
    robot = token_by(keystone, made)
    keystone.good("PATCH", f"/users/{ann.id}", {"user": {"password": "another good one"}})
    assert keystone.who(robot) is None
    assert keystone.who(token_by(keystone, made)) is not None
    keystone.good("PATCH", f"/users/{ann.id}", {"user": {"enabled": False}})
    assert login(keystone, id=made["id"], secret=made["secret"])[0] == 401


def test_it_goes_with_the_user_and_the_project(keystone: Keystone) -> None:
    for what in ("user", "project"):
        ann = keystone.person(f"ann of {what}", blue="member")
        made = make(keystone, ann, access_rules=[{"service": "compute", "method": "GET", "path": "/v2.1/servers"}])
        robot = token_by(keystone, made)
        path = f"/users/{ann.id}" if what == "user" else f"/projects/{keystone.project('blue')}"
        keystone.good("DELETE", path)
        assert keystone.who(robot) is None
        assert login(keystone, id=made["id"], secret=made["secret"])[0] == 401


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"roles": [{"name": "admin"}]}, "unassigned role"),
        ({"roles": [{"id": "0" * 32}]}, "unassigned role"),
        ({"roles": [{}]}, "by its id or its name"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "must not be before now"),
        ({"expires_at": "tomorrow"}, "ISO 8601"),
        ({"expires_at": "9999-99-99"}, "ISO 8601"),
        ({"name": ""}, "name"),
        ({"name": "x" * 256}, "name"),
        ({"secret": " "}, "empty"),
        ({"unrestricted": "perhaps"}, "unrestricted"),
        ({"access_rules": [{"service": "compute", "method": "GET"}]}, "path is missing"),
        ({"access_rules": [{"service": "compute", "method": "STEAL", "path": "/x"}]}, "method"),
        ({"access_rules": [{"service": "compute", "method": "GET", "path": "x"}]}, "path"),
        ({"access_rules": [{"service": "c", "method": "GET", "path": f"/{n}"} for n in range(51)]}, "access_rules"),
    ],
)
def test_what_cannot_be_made(keystone: Keystone, values: Json, text: str) -> None:
    ann = keystone.person("ann", blue="member")
    body = {"application_credential": {"name": "robot", **values}}
    path = f"/users/{ann.id}/application_credentials"
    status, answer, _ = keystone.call("POST", path, body, keystone.token_of(ann, project="blue"))
    assert (status, text in answer["error"]["message"]) == (400, True), answer
    status, answer, _ = keystone.call("POST", path, body, keystone.token_of(ann, unscoped="yes"))
    assert status in (400, 403)


def test_access_rules_are_shared_and_kept_while_in_use(keystone: Keystone) -> None:
    ann = keystone.person("ann", blue="member")
    token = keystone.token_of(ann, project="blue")
    rule = {"service": "compute", "method": "GET", "path": "/v2.1/servers"}
    other = {"service": "image", "method": "GET", "path": "/v2/images/*"}
    first = make(keystone, ann, access_rules=[rule, rule])
    (kept,) = first["access_rules"]
    second = make(keystone, ann, name="second", access_rules=[{"id": kept["id"]}, other])
    assert [each["path"] for each in second["access_rules"]] == [rule["path"], other["path"]]
    path = f"/users/{ann.id}/access_rules"
    listed = keystone.good("GET", path, token=token)["access_rules"]
    assert {each["id"] for each in listed} == {each["id"] for each in second["access_rules"]}
    assert keystone.good("GET", f"{path}?service=image", token=token)["access_rules"][0]["path"] == other["path"]
    assert keystone.good("GET", f"{path}/{kept['id']}", token=token)["access_rule"]["service"] == "compute"
    assert keystone.call("DELETE", f"{path}/{kept['id']}", token=token)[0] == 403
    for made in (first, second):
        keystone.good("DELETE", f"/users/{ann.id}/application_credentials/{made['id']}", token=token)
    assert keystone.call("DELETE", f"{path}/{kept['id']}", token=token)[0] == 204
    assert keystone.call("GET", f"{path}/{kept['id']}", token=token)[0] == 404
    bob = keystone.person("bob", blue="member")
    body = {"application_credential": {"name": "mine", "access_rules": [{"id": listed[0]["id"]}]}}
    of_bob = keystone.token_of(bob, project="blue")
    assert keystone.call("POST", f"/users/{bob.id}/application_credentials", body, of_bob)[0] == 404


def test_access_rules_bound_every_request(keystone: Keystone) -> None:
    ann = keystone.person("ann", blue="admin")
    rules = [{"service": "identity", "method": "GET", "path": "/v3/users/{user_id}"}]
    robot = token_by(keystone, make(keystone, ann, access_rules=rules, unrestricted=True))
    assert keystone.call("GET", f"/users/{ann.id}", token=robot)[0] == 200
    assert keystone.call("HEAD", f"/users/{ann.id}", token=robot)[0] == 401
    assert keystone.call("DELETE", f"/users/{ann.id}", token=robot)[0] == 401
    for path in ("/users", f"/users/{ann.id}/projects", f"/users/{ann.id}/", f"//users/{ann.id}", "/auth/projects"):
        assert keystone.call("GET", path, token=robot)[0] == 401, path
    none = token_by(keystone, make(keystone, ann, name="none", access_rules=[]))
    assert keystone.call("GET", f"/users/{ann.id}", token=none)[0] == 401, "no rule is no request"
    shown = keystone.call("GET", "/auth/tokens", X_Subject_Token=robot)[1]["token"]
    assert shown["application_credential"]["access_rules"] == rules
    assert shown["application_credential"]["restricted"] is False


def test_others_neither_see_nor_make(keystone: Keystone) -> None:
    ann, bob = keystone.person("ann", blue="member"), keystone.person("bob", blue="member")
    made = make(keystone, ann)
    of_bob = keystone.token_of(bob, project="blue")
    path = f"/users/{ann.id}/application_credentials"
    body = {"application_credential": {"name": "mine"}}
    for method, url in (
        ("GET", path),
        ("POST", path),
        ("GET", f"{path}/{made['id']}"),
        ("DELETE", f"{path}/{made['id']}"),
    ):
        assert keystone.call(method, url, body if method == "POST" else None, of_bob)[0] == 403
    assert keystone.call("POST", path, body)[0] == 403, "an administrator does not become anybody"
    assert keystone.call("GET", f"/users/{bob.id}/application_credentials/{made['id']}", token=of_bob)[0] == 404
    assert keystone.call("DELETE", f"/users/{bob.id}/application_credentials/{made['id']}", token=of_bob)[0] == 404
    assert keystone.good("GET", path)["application_credentials"][0]["id"] == made["id"]
    assert keystone.call("DELETE", f"{path}/{made['id']}")[0] == 204
    assert keystone.login(by_password("ann", ann.password))[0] == 201
