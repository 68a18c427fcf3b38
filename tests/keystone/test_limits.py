"""Registered limits and limits: numbers that keystone keeps for the services."""

import pytest

from tests.keystone.identity import Json, Keystone


def service(keystone: Keystone) -> str:
    return str(keystone.good("GET", "/services?type=compute")["services"][0]["id"])


def register(keystone: Keystone, **values: object) -> Json:
    body = {"service_id": service(keystone), "resource_name": "servers", "default_limit": 10, **values}
    made = keystone.good("POST", "/registered_limits", {"registered_limits": [body]})
    return dict(made["registered_limits"][0])


def limit(keystone: Keystone, **values: object) -> tuple[int, Json]:
    body = {"service_id": service(keystone), "resource_name": "servers", "resource_limit": 5, **values}
    status, data, _ = keystone.call("POST", "/limits", {"limits": [body]})
    return status, data


def test_the_life_of_a_registered_limit(keystone: Keystone) -> None:
    made = register(keystone, description="how many")
    path = f"/registered_limits/{made['id']}"
    assert (made["default_limit"], made["region_id"], made["description"]) == (10, None, "how many")
    assert keystone.good("GET", path)["registered_limit"] == made
    member = keystone.token_of(keystone.person("ann", blue="reader"), project="blue")
    assert keystone.good("GET", "/registered_limits", token=member)["registered_limits"] == [made]
    regional = register(keystone, region_id="RegionOne")
    assert keystone.good("GET", "/registered_limits?region_id=RegionOne")["registered_limits"] == [regional]
    body = {
        "registered_limits": [{"service_id": made["service_id"], "resource_name": "servers", "default_limit": 1}]
    }
    assert keystone.call("POST", "/registered_limits", body)[0] == 409
    changed = keystone.good("PATCH", path, {"registered_limit": {"default_limit": -1}})["registered_limit"]
    assert changed["default_limit"] == -1
    for method in ("PATCH", "DELETE"):
        assert keystone.call(method, path, {"registered_limit": {}}, member)[0] == 403
    assert keystone.call("DELETE", path)[0] == 204
    assert keystone.call("GET", path)[0] == 404


def test_the_life_of_a_limit(keystone: Keystone) -> None:
    blue = keystone.project("blue")
    assert limit(keystone, project_id=blue)[0] == 403, "there is no registered limit"
    registered = register(keystone)
    status, data = limit(keystone, project_id=blue)
    assert status == 201
    made = data["limits"][0]
    assert (made["project_id"], made["domain_id"], made["resource_limit"]) == (blue, None, 5)
    path = f"/limits/{made['id']}"
    assert keystone.good("GET", path)["limit"] == made
    assert limit(keystone, project_id=blue)[0] == 409
    domain = limit(keystone, domain_id="default")[1]["limits"][0]
    assert (domain["project_id"], domain["domain_id"]) == (None, "default")
    assert keystone.good("GET", f"/limits?project_id={blue}")["limits"] == [made]
    assert keystone.good("GET", "/limits?domain_id=default")["limits"] == [domain]
    assert len(keystone.good("GET", "/limits?resource_name=servers")["limits"]) == 2
    assert keystone.call("DELETE", f"/registered_limits/{registered['id']}")[0] == 403
    changed = keystone.good("PATCH", path, {"limit": {"resource_limit": 7}})["limit"]
    assert changed["resource_limit"] == 7
    assert keystone.good("GET", "/limits/model")["model"]["name"] == "flat"
    assert keystone.call("DELETE", path)[0] == 204
    assert keystone.call("GET", path)[0] == 404


def test_everybody_sees_the_limits_of_their_own_project(keystone: Keystone) -> None:
    ann = keystone.token_of(keystone.person("ann", blue="reader"), project="blue")
    bob = keystone.token_of(keystone.person("bob", red="member"), project="red")
    register(keystone)
    made = limit(keystone, project_id=keystone.project("blue"))[1]["limits"][0]
    assert keystone.good("GET", "/limits", token=ann)["limits"] == [made]
    assert keystone.good("GET", f"/limits/{made['id']}", token=ann)["limit"] == made
    assert keystone.good("GET", "/limits", token=bob)["limits"] == []
    assert keystone.call("GET", f"/limits/{made['id']}", token=bob)[0] == 403
    for method in ("PATCH", "DELETE"):
        assert keystone.call(method, f"/limits/{made['id']}", {"limit": {}}, ann)[0] == 403


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"project_id": "blue", "domain_id": "default"},
        {"project_id": "default"},
        {"domain_id": "none"},
        {"project_id": "none"},
        {"domain_id": "default", "resource_limit": -2},
        {"domain_id": "default", "resource_name": ""},
        {"domain_id": "default", "service_id": "none"},
        {"domain_id": "default", "region_id": "none"},
    ],
)
def test_malformed_limits(keystone: Keystone, values: Json) -> None:
    register(keystone)
    assert limit(keystone, **values)[0] == 400


@pytest.mark.parametrize("body", [{"registered_limits": []}, {"registered_limits": [{}]}, {}])
def test_malformed_registered_limits(keystone: Keystone, body: Json) -> None:
    assert keystone.call("POST", "/registered_limits", body)[0] == 400
