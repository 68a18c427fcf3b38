"""Services, endpoints and regions, and what bootstrap makes of them."""

import pytest

from tests.keystone.identity import ADMIN_PASSWORD, CATALOG, Keystone, by_password


def test_services_and_endpoints(keystone: Keystone) -> None:
    service = keystone.good("POST", "/services", {"service": {"type": "xt", "name": "x", "colour": "red"}})[
        "service"
    ]
    assert service == {
        "id": service["id"],
        "type": "xt",
        "name": "x",
        "enabled": True,
        "colour": "red",
        "links": {"self": f"http://127.0.0.1:5000/v3/services/{service['id']}"},
    }
    path = f"/services/{service['id']}"
    assert keystone.good("PATCH", path, {"service": {"description": "d"}})["service"]["description"] == "d"
    assert [each["name"] for each in keystone.good("GET", "/services?type=xt")["services"]] == ["x"]
    body = {"service_id": service["id"], "interface": "public", "url": "http://x/%(project_id)s"}
    endpoint = keystone.good("POST", "/endpoints", {"endpoint": {**body, "region_id": "RegionOne"}})["endpoint"]
    assert endpoint == {
        "id": endpoint["id"],
        **body,
        "region": "RegionOne",
        "region_id": "RegionOne",
        "enabled": True,
        "links": {"self": f"http://127.0.0.1:5000/v3/endpoints/{endpoint['id']}"},
    }
    found = keystone.good("GET", f"/endpoints?service_id={service['id']}&interface=public&region_id=RegionOne")
    assert found["endpoints"] == [endpoint]
    one = f"/endpoints/{endpoint['id']}"

    def offered() -> bool:
        token = keystone.login(by_password("admin", ADMIN_PASSWORD, project="admin"))[1]["token"]
        return any(each["url"].startswith("http://x/") for entry in token["catalog"] for each in entry["endpoints"])

    assert offered()
    keystone.good("PATCH", one, {"endpoint": {"enabled": False}})
    assert not offered()
    keystone.good("PATCH", one, {"endpoint": {"enabled": True, "region": "RegionTwo"}})
    assert keystone.good("GET", "/regions/RegionTwo")["region"]["id"] == "RegionTwo"
    assert keystone.call("DELETE", "/regions/RegionTwo")[0] == 403
    assert keystone.call("DELETE", path)[0] == 204
    assert keystone.call("GET", path)[1]["error"]["message"] == f"Could not find service: {service['id']}."
    assert keystone.call("GET", one)[1]["error"]["message"] == f"Could not find endpoint: {endpoint['id']}."
    assert keystone.call("DELETE", "/regions/RegionTwo")[0] == 204


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"service_id": "none"}, 404),
        ({"region_id": "none"}, 404),
        ({"interface": "private"}, 400),
        ({"url": ""}, 400),
        ({"url": "nonsense"}, 400),
        ({"url": "http://x/%(password)s"}, 400),
        ({"url": "http://x/$(project_id)"}, 400),
        ({"enabled": "perhaps"}, 400),
        ({"enabled": "True"}, 400),
    ],
)
def test_bad_endpoints(keystone: Keystone, change: dict[str, str], status: int) -> None:
    service = keystone.good("GET", "/services")["services"][0]["id"]
    good = {"service_id": service, "interface": "public", "url": "http://x"}
    assert keystone.call("POST", "/endpoints", {"endpoint": {**good, **change}})[0] == status


def test_regions(keystone: Keystone) -> None:
    status, body, _ = keystone.call("POST", "/regions", {"region": {"id": "North", "description": "d"}})
    assert (status, body["region"]) == (
        201,
        {
            "id": "North",
            "description": "d",
            "parent_region_id": None,
            "links": {"self": "http://127.0.0.1:5000/v3/regions/North"},
        },
    )
    status, body, _ = keystone.call("POST", "/regions", {"region": {"id": "North"}})
    assert (status, body["error"]["message"]) == (
        409,
        "Conflict occurred attempting to store region - Duplicate ID, North.",
    )
    keystone.good("POST", "/regions", {"region": {"id": "Far North", "parent_region_id": "North"}})
    assert keystone.call("PATCH", "/regions/North", {"region": {"parent_region_id": "Far North"}})[0] == 400
    assert keystone.call("POST", "/regions", {"region": {"parent_region_id": "none"}})[0] == 404
    assert len(keystone.good("POST", "/regions", {"region": {}})["region"]["id"]) == 32
    status, body, _ = keystone.call("PUT", "/regions/South", {"region": {"description": "s"}})
    assert (status, body["region"]["id"], body["region"]["description"]) == (201, "South", "s")
    assert keystone.call("PUT", "/regions/South", {"region": {}})[0] == 409
    assert keystone.call("PUT", "/regions/East", {"region": {"id": "West"}})[0] == 400
    found = keystone.good("GET", "/regions?parent_region_id=North")["regions"]
    assert [each["id"] for each in found] == ["Far North"]
    assert keystone.call("DELETE", "/regions/North")[0] == 204
    assert keystone.call("GET", "/regions/Far North")[0] == 404


def test_who_may_change_the_catalogue(keystone: Keystone) -> None:
    token = keystone.token_of(keystone.person("ann", blue="member"), project="blue")
    assert keystone.call("GET", "/regions", token=token)[0] == 200
    for path in ("/services", "/endpoints"):
        assert keystone.call("GET", path, token=token)[0] == 403
    assert keystone.call("POST", "/regions", {"region": {}}, token)[0] == 403
    assert keystone.call("POST", "/services", {"service": {"type": "x"}}, token)[0] == 403


def test_bootstrap_again_changes_nothing(keystone: Keystone) -> None:
    def everything() -> list[object]:
        paths = ("users", "projects", "roles", "services", "endpoints", "regions", "role_assignments", "domains")
        return [keystone.good("GET", f"/{path}") for path in paths]

    before = everything()
    keystone.bootstrap()
    assert everything() == before, "and the token still lives"


def test_bootstrap_mends_a_password_that_somebody_changed(keystone: Keystone) -> None:
    keystone.bootstrap()
    change = {"user": {"password": "of somebody else"}}
    admin = keystone.good("GET", "/users?name=admin")["users"][0]["id"]
    assert keystone.call("PATCH", f"/users/{admin}", change, keystone.admin)[0] == 200
    keystone.bootstrap()
    assert keystone.login(by_password("admin", "of somebody else"))[0] == 401
    assert keystone.login(by_password("admin", ADMIN_PASSWORD))[0] == 201


def test_bootstrap_mends(keystone: Keystone) -> None:
    moved = (CATALOG[0], CATALOG[1].__class__("compute", "nova", "http://elsewhere:8774/v2.1"))
    keystone.bootstrap(catalog=moved)
    nova = keystone.good("GET", "/services?type=compute")["services"][0]["id"]
    endpoints = keystone.good("GET", f"/endpoints?service_id={nova}")["endpoints"]
    assert {each["url"] for each in endpoints} == {"http://elsewhere:8774/v2.1"}
    assert len(endpoints) == 3
    keystone.bootstrap("another password of admin")
    assert keystone.who(keystone.admin) is None
    assert keystone.login(by_password("admin", ADMIN_PASSWORD))[0] == 401
    assert keystone.login(by_password("admin", "another password of admin", project="admin"))[0] == 201


def test_the_administrator_may_go_everywhere(keystone: Keystone) -> None:
    for scope in ({"project": "admin"}, {"project": "service"}, {"domain_id": "default"}, {"system": "all"}):
        keystone.token("admin", ADMIN_PASSWORD, **scope)
