"""Attacks on logins and passwords (families TOK-7, 9 and 10)."""

import time
from pathlib import Path

import bcrypt
import pytest
import sqlalchemy as sa

from cumulet.keystone import passwords
from cumulet.keystone.tables import users
from tests.keystone.identity import ADMIN_PASSWORD, Keystone, by_password


@pytest.fixture
def keystone(tmp_path: Path) -> Keystone:
    return Keystone(tmp_path)


# --- TOK-7: who exists is not told


def test_a_wrong_login_says_the_same_of_everybody(keystone: Keystone) -> None:
    ann = keystone.person("ann", blue="member")
    keystone.person("gone")
    keystone.good("PATCH", f"/users/{keystone.person('off').id}", {"user": {"enabled": False}})
    keystone.good("POST", "/users", {"user": {"name": "without"}})
    answers = [
        keystone.login(by_password(name, password, domain, project="blue"))
        for name, password, domain in (
            ("ann", "wrong", "default"),
            ("nobody", "wrong", "default"),
            ("ann", ann.password, "nowhere"),
            ("off", "a good password", "default"),
            ("off", "wrong", "default"),
            ("without", "wrong", "default"),
            ("gone", "a good password", "default"),  # no role there
        )
    ]
    assert {status for status, _, _ in answers} == {401}
    assert len({str(body) for _, body, _ in answers}) == 1
    of_password = [
        keystone.call("POST", f"/users/{key}/password", {"user": {"original_password": "x", "password": "y"}}, None)
        for key in (ann.id, "nobody")
    ]
    assert [answer[:2] for answer in of_password] == [answers[0][:2]] * 2


def test_every_login_costs_one_bcrypt(tmp_path: Path) -> None:
    """As long for nobody as for somebody, by the cost that the hash names."""
    spent = {}
    stored = passwords.make_hash("right", 10)
    for who, known in (("somebody", stored), ("nobody", None)):
        times = []
        for _ in range(9):
            started = time.process_time()
            assert not passwords.matches("wrong", known, 10)
            times.append(time.process_time() - started)
        spent[who] = sorted(times)[4]
    assert 0.3 < spent["nobody"] / spent["somebody"] < 3, spent  # without one it would be nothing


# --- TOK-9, TOK-10: floods, giants and nothing


def test_a_method_named_a_thousand_times_is_tried_once(keystone: Keystone) -> None:
    body = by_password("admin", ADMIN_PASSWORD, project="admin")
    body["identity"]["methods"] = ["password"] * 1000
    started = time.process_time()
    status, answer, _ = keystone.login(body)
    assert (status, answer["token"]["methods"]) == (201, ["password"])
    assert time.process_time() - started < 0.5


def test_giants_are_refused(keystone: Keystone) -> None:
    assert keystone.login(by_password("admin", "x" * 60_000))[0] == 401
    deep = b'{"auth":' + b'{"identity":' * 20_000 + b"}" * 20_001
    assert keystone.call("POST", "/auth/tokens", deep, None)[0] == 400
    deep = b'{"auth":{"identity":{"methods":["password"],"x":' + b"[" * 50_000 + b"]" * 50_000 + b"}}}"
    assert keystone.call("POST", "/auth/tokens", deep, None)[0] == 400
    for raw in (b"", b"[]", b"null", b"\xff\xfe", b'{"auth": null}', b"x"):
        assert keystone.call("POST", "/auth/tokens", raw, None)[0] == 400
    assert keystone.login(by_password("x" * 10_000, "\ud800".encode("utf-8", "replace").decode()))[0] == 401


def test_every_byte_of_a_long_password_counts(keystone: Keystone) -> None:
    long = "p" * 100
    keystone.good("POST", "/users", {"user": {"name": "ann", "password": long}})
    assert keystone.login(by_password("ann", long))[0] == 201
    assert keystone.login(by_password("ann", long[:72]))[0] == 401
    assert keystone.login(by_password("ann", long[:99] + "q"))[0] == 401
    assert keystone.login(by_password("ann", long + "p"))[0] == 401
    zero = "with\0zero"
    keystone.good("POST", "/users", {"user": {"name": "bob", "password": zero}})
    assert keystone.login(by_password("bob", zero))[0] == 201
    assert keystone.login(by_password("bob", "with"))[0] == 401
    status, body, _ = keystone.call("POST", "/users", {"user": {"name": "eve", "password": "p" * 5000}})
    assert (status, "longer than" in body["error"]["message"]) == (400, True)


@pytest.mark.parametrize("password", ["", " ", "\t\n", "\u3000"])
def test_empty_passwords_are_nobodys(keystone: Keystone, password: str) -> None:
    assert keystone.call("POST", "/users", {"user": {"name": "ann", "password": password}})[0] == 400
    user = keystone.good("POST", "/users", {"user": {"name": "ann"}})["user"]
    assert keystone.call("PATCH", f"/users/{user['id']}", {"user": {"password": password}})[0] == 400
    assert keystone.login(by_password("ann", password))[0] == 401
    assert keystone.login(by_password("admin", password))[0] == 401
    blank = bcrypt.hashpw(passwords._digest(password), bcrypt.gensalt(4)).decode()
    with keystone.db.transaction() as tx:
        tx.write(sa.update(users).where(users.c.id == user["id"]).values(password_hash=blank))
    assert keystone.login(by_password("ann", password))[0] == 401, "not even if it were stored"
