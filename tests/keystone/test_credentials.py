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
    for blob in ({"access": "another", "secret": "x"}, {"access": "the access key", "trust_id": "x"}):
        change = {"credential": {"blob": json.dumps(blob)}}
        assert keystone.call("PATCH", f"/credentials/{made['id']}", change, token)[0] == 400
