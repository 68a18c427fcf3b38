"""Keys of the EC2 API, which outlive tokens: who may make, see, move and use them (families EC2-1, 2, 4, 5).

No front takes their signatures yet (``test_fronts``): what remains is that nobody gets keys
for more than is theirs.
"""

from pathlib import Path

import pytest

from tests.keystone.identity import Json, Keystone, Person

LENT = ("application credential", "with access rules")


@pytest.fixture
def keystone(tmp_path: Path) -> Keystone:
    return Keystone(tmp_path)


@pytest.fixture
def ann(keystone: Keystone) -> Person:
    return keystone.person("ann", blue="member", red="member")


def keys(keystone: Keystone, person: Person, project: str = "blue", token: str = "") -> tuple[int, Json]:
    token = token or keystone.token_of(person, project=project)
    body = {"tenant_id": keystone.project(project)}
    return keystone.call("POST", f"/users/{person.id}/credentials/OS-EC2", body, token)[:2]


def lent_token(keystone: Keystone, person: Person, kind: str) -> str:
    wish: Json = {"name": kind, "unrestricted": kind == "with access rules"}
    if kind == "with access rules":
        wish["access_rules"] = [
            {"service": "identity", "method": m, "path": "/**"} for m in ("GET", "POST", "DELETE")
        ]
    url, token = f"/users/{person.id}/application_credentials", keystone.token_of(person, project="blue")
    made = keystone.good("POST", url, {"application_credential": wish}, token)["application_credential"]
    method = {"id": made["id"], "secret": made["secret"]}
    identity = {"methods": ["application_credential"], "application_credential": method}
    status, body, headers = keystone.login({"identity": identity})
    assert status == 201, body
    return headers["X-Subject-Token"]


# ── EC2-4: keys from what was lent; keys that change hands (OSSA-2020-004, OSSA-2026-005) ────────────────────


@pytest.mark.parametrize("kind", LENT)
def test_what_is_lent_makes_sees_and_ends_no_keys(keystone: Keystone, ann: Person, kind: str) -> None:
    status, body = keys(keystone, ann)
    assert status == 201
    token, url = lent_token(keystone, ann, kind), f"/users/{ann.id}/credentials/OS-EC2"
    assert keys(keystone, ann, token=token)[0] == 403
    for method, path in (("GET", url), ("GET", f"{url}/{body['credential']['access']}"), ("GET", "/credentials")):
        assert keystone.call(method, path, token=token)[0] == 403, path
    assert keystone.call("DELETE", f"{url}/{body['credential']['access']}", token=token)[0] == 403
    wish = {"type": "ec2", "blob": '{"access": "a", "secret": "s"}', "project_id": keystone.project("blue")}
    assert keystone.call("POST", "/credentials", {"credential": wish}, token)[0] == 403


def test_keys_are_for_the_project_of_the_token(keystone: Keystone, ann: Person) -> None:
    blue, red = keystone.token_of(ann, project="blue"), keystone.project("red")
    status, body = keys(keystone, ann, "red", blue)
    assert status == 403, body
    wish = {"type": "ec2", "blob": '{"access": "a", "secret": "s"}', "project_id": red}
    assert keystone.call("POST", "/credentials", {"credential": wish}, blue)[0] == 403
    found = keys(keystone, ann)[1]["credential"]
    listed = keystone.good("GET", "/credentials", token=blue)["credentials"]
    assert [each["user_id"] for each in listed] == [ann.id]
    assert found["access"] in listed[0]["blob"]
    for change in ({"project_id": red}, {"user_id": keystone.person("bob", blue="member").id}):
        status, body, _ = keystone.call("PATCH", f"/credentials/{listed[0]['id']}", {"credential": change}, blue)
        assert status == 403, (change, body)


# ── EC2-1, EC2-2, EC2-5: others' keys, and a blob that says whom it is for ───────────────────────────────────


def test_keys_of_others_are_not_to_be_had(keystone: Keystone, ann: Person) -> None:
    bob = keystone.person("bob", blue="admin", red="member")
    access = keys(keystone, ann)[1]["credential"]["access"]
    token = keystone.token_of(bob, project="red")
    for method, path in (
        ("GET", f"/users/{ann.id}/credentials/OS-EC2"),
        ("GET", f"/users/{ann.id}/credentials/OS-EC2/{access}"),
        ("DELETE", f"/users/{ann.id}/credentials/OS-EC2/{access}"),
    ):
        assert keystone.call(method, path, token=token)[0] == 403, path
    assert keys(keystone, ann, "red", token)[0] == 403
    assert keystone.call("GET", f"/users/{bob.id}/credentials/OS-EC2/{access}", token=token)[0] in (403, 404)
    assert access not in str(keystone.good("GET", "/credentials", token=token))


@pytest.mark.parametrize("field", ["trust_id", "app_cred_id", "access_token_id"])
def test_a_blob_does_not_say_what_it_was_lent_by(keystone: Keystone, ann: Person, field: str) -> None:
    token, blue = keystone.token_of(ann, project="blue"), keystone.project("blue")
    blob = f'{{"access": "a", "secret": "s", "{field}": "x"}}'
    wish = {"type": "ec2", "blob": blob, "project_id": blue}
    assert keystone.call("POST", "/credentials", {"credential": wish}, token)[0] == 400
    wish["blob"] = '{"access": "a", "secret": "s"}'
    made = keystone.good("POST", "/credentials", {"credential": wish}, token)["credential"]
    change = {"credential": {"blob": blob}}
    assert keystone.call("PATCH", f"/credentials/{made['id']}", change, token)[0] == 400
