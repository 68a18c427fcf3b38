"""Texts that operators keep for other programs."""

import pytest

from tests.keystone.identity import Json, Keystone


def test_the_life_of_a_stored_policy(keystone: Keystone) -> None:
    body = {"policy": {"type": "application/json", "blob": {"a": "role:admin"}, "note": "mine"}}
    made = keystone.good("POST", "/policies", body)["policy"]
    assert {name: made[name] for name in ("type", "blob", "note")} == body["policy"]
    path = f"/policies/{made['id']}"
    assert keystone.good("GET", path)["policy"] == made
    changed = keystone.good("PATCH", path, {"policy": {"type": "text/plain", "blob": "words"}})["policy"]
    assert (changed["type"], changed["blob"], changed["note"]) == ("text/plain", "words", "mine")
    assert keystone.good("GET", "/policies?type=text/plain")["policies"] == [changed]
    assert keystone.good("GET", "/policies?type=other")["policies"] == []
    member = keystone.token_of(keystone.person("ann", blue="member"), project="blue")
    for method, place in (("GET", "/policies"), ("GET", path), ("DELETE", path)):
        assert keystone.call(method, place, token=member)[0] == 403
    assert keystone.call("DELETE", path)[0] == 204
    assert keystone.call("GET", path)[0] == 404


@pytest.mark.parametrize(
    "values", [{"type": "x"}, {"blob": "x"}, {"type": "x", "blob": 5}, {"type": 5, "blob": ["x"]}]
)
def test_malformed_policies(keystone: Keystone, values: Json) -> None:
    assert keystone.call("POST", "/policies", {"policy": values})[0] == 400
