"""Stored credentials: kept encrypted, changed by their owner, seen by nobody else."""

import hashlib
import json

import pytest
import sqlalchemy as sa

from cumulet.keystone.tables import credentials
from tests.keystone.identity import Json, Keystone

BLOB = json.dumps({"access": "the access key", "secret": "the secret"})


def test_the_life_of_a_credential(keystone: Keystone) -> None:
    ann = keystone.person("ann", blue="member")
    token, blue = keystone.token_of(ann, project="blue"), keystone.project("blue")
    body = {"type": "ec2", "blob": BLOB, "project_id": blue, "note": "mine"}
    made = keystone.good("POST", "/credentials", {"credential": body}, token)["credential"]
    assert made["id"] == hashlib.sha256(b"the access key").hexdigest()
    assert {key: made[key] for key in ("type", "blob", "project_id", "user_id", "note")} == {
        **body,
        "user_id": ann.id,
    }
    with keystone.db.read() as tx:
        assert "secret" not in tx.all(sa.select(credentials))[0].sealed_blob
    path = f"/credentials/{made['id']}"
    assert keystone.good("GET", path, token=token)["credential"] == made
    assert keystone.call("POST", "/credentials", {"credential": body}, token)[0] == 409
    blob = json.dumps({"access": "the access key", "secret": "a new one"})
    changed = keystone.good("PATCH", path, {"credential": {"blob": blob}}, token)["credential"]
    assert (changed["blob"], changed["note"]) == (blob, "mine")
    other = keystone.good("POST", "/credentials", {"credential": {"type": "totp", "blob": "x"}}, token)[
        "credential"
    ]
    assert len(keystone.good("GET", "/credentials", token=token)["credentials"]) == 2
    assert keystone.good("GET", "/credentials?type=totp", token=token)["credentials"] == [other]
    assert len(keystone.good("GET", f"/credentials?user_id={ann.id}")["credentials"]) == 2
    assert keystone.call("DELETE", path, token=token)[0] == 204
    assert keystone.call("GET", path)[0] == 404
    keystone.good("DELETE", f"/users/{ann.id}")
    assert keystone.good("GET", "/credentials")["credentials"] == []


def test_an_administrator_may_keep_and_move_those_of_others(keystone: Keystone) -> None:
    ann = keystone.person("ann", blue="member", red="member")
    body = {"type": "ec2", "blob": BLOB, "project_id": keystone.project("blue"), "user_id": ann.id}
    made = keystone.good("POST", "/credentials", {"credential": body})["credential"]
    red = keystone.project("red")
    moved = keystone.good("PATCH", f"/credentials/{made['id']}", {"credential": {"project_id": red}})["credential"]
    assert (moved["user_id"], moved["project_id"]) == (ann.id, red)
    assert keystone.call("POST", "/credentials", {"credential": {**body, "user_id": "0" * 32}})[0] == 404
    assert keystone.call("PATCH", f"/credentials/{made['id']}", {"credential": {"project_id": "none"}})[0] == 404


@pytest.mark.parametrize(
    "values",
    [
        {"type": "ec2", "blob": BLOB},
        {"type": "ec2", "blob": "no json", "project_id": "blue"},
        {"type": "ec2", "blob": "[1]", "project_id": "blue"},
        {"type": "ec2", "blob": '{"access": 5}', "project_id": "blue"},
        {"type": "ec2", "blob": "[" * 4000, "project_id": "blue"},
        {"type": "totp", "blob": '{"trust_id": "x"}'},
        {"type": "", "blob": "x"},
        {"type": "totp", "blob": ""},
        {"type": "totp", "blob": "x" * 8193},
        {"type": "totp", "blob": {"a": 1}},
        {"type": "totp"},
        {"blob": "x"},
    ],
)
def test_malformed_credentials(keystone: Keystone, values: Json) -> None:
    ann = keystone.person("ann", blue="member")
    if "project_id" in values:
        values = {**values, "project_id": keystone.project("blue")}
    token = keystone.token_of(ann, project="blue")
    assert keystone.call("POST", "/credentials", {"credential": values}, token)[0] == 400


def test_what_a_blob_fixes_stays(keystone: Keystone) -> None:
    ann = keystone.person("ann", blue="member")
    token = keystone.token_of(ann, project="blue")
    body = {"type": "ec2", "blob": BLOB, "project_id": keystone.project("blue")}
    made = keystone.good("POST", "/credentials", {"credential": body}, token)["credential"]
    path = f"/credentials/{made['id']}"
    for blob in ({"secret": "x"}, {"access": "the access key", "trust_id": "x"}):
        assert keystone.call("PATCH", path, {"credential": {"blob": json.dumps(blob)}}, token)[0] == 400
    totp = keystone.good("POST", "/credentials", {"credential": {"type": "totp", "blob": BLOB}}, token)[
        "credential"
    ]
    change = {"credential": {"type": "ec2", "project_id": body["project_id"]}}
    assert keystone.call("PATCH", f"/credentials/{totp['id']}", change, token)[0] == 400


def test_a_new_access_key_in_the_blob_opens_nothing(keystone: Keystone) -> None:
    """The id stays that of the key it was made with; neither key finds it then."""
    ann = keystone.person("ann", blue="member")
    token = keystone.token_of(ann, project="blue")
    body = {"type": "ec2", "blob": BLOB, "project_id": keystone.project("blue")}
    made = keystone.good("POST", "/credentials", {"credential": body}, token)["credential"]
    place = f"/users/{ann.id}/credentials/OS-EC2"
    assert keystone.good("GET", f"{place}/the access key", token=token)["credential"]["secret"] == "the secret"
    blob = json.dumps({"access": "another", "secret": "x"})
    changed = keystone.good("PATCH", f"/credentials/{made['id']}", {"credential": {"blob": blob}}, token)[
        "credential"
    ]
    assert changed["id"] == made["id"]
    for access in ("another", "the access key"):
        assert keystone.call("GET", f"{place}/{access}", token=token)[0] == 404


def test_keys_of_the_ec2_api(keystone: Keystone) -> None:
    ann, bob = keystone.person("ann", blue="member"), keystone.person("bob", blue="member")
    token, blue = keystone.token_of(ann, project="blue"), keystone.project("blue")
    place = f"/users/{ann.id}/credentials/OS-EC2"
    made = keystone.good("POST", place, {"tenant_id": blue}, token)["credential"]
    assert (made["user_id"], made["tenant_id"], made["trust_id"]) == (ann.id, blue, None)
    assert len(made["access"]) == len(made["secret"]) == 32
    assert keystone.good("GET", f"{place}/{made['access']}", token=token)["credential"] == made
    assert keystone.good("GET", place, token=token)["credentials"] == [made]
    stored = keystone.good("GET", "/credentials?type=ec2", token=token)["credentials"]
    assert [json.loads(each["blob"])["access"] for each in stored] == [made["access"]]
    other = keystone.token_of(bob, project="blue")
    for method, path in (
        ("GET", place),
        ("GET", f"{place}/{made['access']}"),
        ("DELETE", f"{place}/{made['access']}"),
    ):
        assert keystone.call(method, path, token=other)[0] == 403, (method, path)
    theirs = f"/users/{bob.id}/credentials/OS-EC2/{made['access']}"
    assert keystone.call("GET", theirs, token=other)[0] == 404
    assert keystone.call("POST", place, {"tenant_id": blue}, other)[0] == 403
    red = keystone.project("red")
    assert keystone.call("POST", place, {"tenant_id": red}, token)[0] == 403
    assert keystone.good("POST", place, {"tenant_id": red})["credential"]["tenant_id"] == red
    assert keystone.call("POST", place, {"tenant_id": "none"})[0] == 404
    assert keystone.call("POST", place, {}, token)[0] == 400
    assert keystone.call("GET", "/users/none/credentials/OS-EC2")[0] == 404
    assert keystone.call("DELETE", f"{place}/{made['access']}", token=token)[0] == 204
    assert keystone.call("GET", f"{place}/{made['access']}", token=token)[0] == 404
