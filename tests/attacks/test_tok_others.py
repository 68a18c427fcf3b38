"""What is another's is neither listed, shown nor changed; roles and ids are not mixed up (TOK-8, TOK-11)."""

from typing import Any

import pytest

from tests.attacks.doors import PASSWORD, Doors
from tests.attacks.street import KEY, Street, body_of, routes, rule_of
from tests.attacks.test_policy import FOR_ADMINISTRATORS


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Street:
    return Street(tmp_path_factory.mktemp("street"))


# ── TOK-8: everything of Alice's project, asked for by its id ────────────────────────────────────────────────

FOR_ALL = {
    "/v2.1/flavors/{id}", "/v2.1/flavors/{id}/os-extra_specs", "/v2.1/os-quota-sets/{id}/defaults",
    "/v2.1/extensions/{alias}", "/v2.0/extensions/{alias}", "/v3/regions/{region_id}", "/{version}",
    "/v3/domains/{domain_id}",
}  # fmt: skip
"""What is everybody's: public flavors, regions, the default quotas, what the API can do, one's own domain."""
READS_OF_ANOTHER = [
    ("nova-api", "/v2.1/servers?all_tenants=1", 403), ("nova-api", "/v2.1/servers/detail?all_tenants=true", 403),
    ("nova-api", "/v2.1/servers?status=deleted", 403), ("nova-api", "/v2.1/os-keypairs?user_id={alice}", 403),
    ("nova-api", "/v2.1/os-keypairs/k?user_id={alice}", 403), ("nova-api", "/v2.1/os-keypairs/k", 404),
    ("nova-api", "/v2.1/limits?tenant_id={red}", 403), ("nova-api", "/v2.1/os-availability-zone/detail", 403),
    ("neutron-server", "/v2.0/quotas/{red}", 403), ("neutron-server", "/v2.0/quotas/{red}/details.json", 403),
    ("keystone", "/v3/users", 403), ("keystone", "/v3/users?name=alice", 403), ("keystone", "/v3/groups", 403),
    ("keystone", "/v3/projects", 403), ("keystone", "/v3/projects?name=red", 403), ("keystone", "/v3/domains", 403),
    ("keystone", "/v3/role_assignments", 403), ("keystone", "/v3/role_assignments?user.id={bob}", 403),
    ("keystone", "/v3/role_assignments?scope.project.id={blue}&include_names", 403),
    ("keystone", "/v3/services", 403), ("keystone", "/v3/role_assignments?effective&user.id={alice}", 403),
    ("keystone", "/v3/endpoints", 403), ("keystone", "/v3/users/{alice}/projects", 403),
    ("keystone", "/v3/users/{alice}/groups", 403), ("keystone", "/v3/projects/{red}", 403),
    ("keystone", "/v3/users/no-such-user", 403), ("keystone", "/v3/roles", 403),
]  # fmt: skip

NOT_FOR_USERS = ("glance-registry", "nova-api-metadata")


def test_strangers_read_nothing_by_its_id(street: Street) -> None:
    """404 where they must not learn that it is there; keystone says 403 of both."""
    asked = 0
    for name, line, route in routes(street, "GET"):
        if "{" not in route.path or route.policy == "host" or route.path in FOR_ALL or name in NOT_FOR_USERS:
            continue
        status, data = street.knock("bob", name, route, b"")
        if status == 410:  # there is nothing any more, for anybody
            continue
        assert status in (403, 404), (line, status, data)
        by_name = name == "keystone" or "quota" in line or "usage" in line
        assert status == 404 or by_name or rule_of(street, name, route) in FOR_ADMINISTRATORS, (line, data)
        asked += 1
    assert asked > 60


@pytest.mark.parametrize(("name", "url", "expected"), READS_OF_ANOTHER)
def test_filters_reach_nobody_else(street: Street, name: str, url: str, expected: int) -> None:
    assert street.doors.call("bob", name, "GET", url.format(**street.doors.ids))[0] == expected


@pytest.mark.parametrize("who", ["bob", "nora"])
def test_no_filter_widens_a_list(street: Street, who: str) -> None:
    doors, red = street.doors, street.doors.ids["red"]
    alice = doors.ids["alice"]
    mine = (
        ("nova-api", "/v2.1/servers", "servers"), ("nova-api", "/v2.1/servers/detail", "servers"),
        ("nova-api", "/v2.1/os-keypairs", "keypairs"), ("neutron-server", "/v2.0/ports", "ports"),
        ("neutron-server", "/v2.0/routers", "routers"), ("neutron-server", "/v2.0/floatingips", "floatingips"),
        ("glance-api", "/v2/images", "images"),
    )  # fmt: skip
    filters = [
        "", f"project_id={red}", f"tenant_id={red}", f"owner={red}", f"user_id={alice}", "all_tenants=0",
        "all_projects=false", "all_tenants=0&project_id=" + red, "visibility=private", "visibility=shared",
        "member_status=all", "visibility=all&owner=" + red, f"device_id={street.server}", "deleted=1",
        "shared=True", "name=vm", "limit=1000", f"id={street.server}", f"uuid={street.server}", "fields=id",
        f"host=h1&project_id={red}", "changes-since=2000-01-01T00:00:00Z", "os_hidden=true", "ip=10",
    ]  # fmt: skip
    for name, url, key in mine:
        for text in filters:
            status, data, _ = doors.call(who, name, "GET", f"{url}?{text}")
            assert status in (400, 403) or data[key] == [], (who, url, text, data)


def test_a_marker_of_anothers_tells_nothing(street: Street) -> None:
    """The same answer as for one that does not exist."""
    doors = street.doors
    for name, url, theirs in (
        ("nova-api", "/v2.1/servers", street.server), ("glance-api", "/v2/images", doors.ids["image of alice"]),
        ("neutron-server", "/v2.0/routers", street.values["router_id"]),
        ("neutron-server", "/v2.0/ports", street.values["port_id"]),
    ):  # fmt: skip
        nothing = "00000000-0000-4000-8000-000000000000"
        found = [doors.call("bob", name, "GET", f"{url}?limit=1&marker={marker}") for marker in (theirs, nothing)]
        assert found[0][0] == found[1][0] == 400, (url, found)
        assert str(found[0][1]).replace(theirs, "x") == str(found[1][1]).replace(nothing, "x")


def test_where_a_server_is_is_not_to_be_sorted_out(street: Street) -> None:
    """Nor filtered: hosts are for administrators.  ``sort`` is another API's way, and none around the check."""
    for text, expected in (
        ("sort_key=host", 403), ("sort_key=node", 403), ("sort_key=name&sort_key=host", 403),
        ("sort=host:asc", 400), ("sort=name:asc,node", 400),
    ):  # fmt: skip
        assert street.doors.call("alice", "nova-api", "GET", f"/v2.1/servers?{text}")[0] == expected, text
    for host in ("h1", "h2"):
        found = street.doors.good("alice", "nova-api", "GET", f"/v2.1/servers?host={host}")["servers"]
        assert [one["id"] for one in found] == [street.server], "ignored"
        found = street.doors.good("alice", "neutron-server", "GET", f"/v2.0/ports?binding:host_id={host}")["ports"]
        assert street.values["port_id"] in [one["id"] for one in found], "ignored"
    shown = str(street.doors.good("alice", "nova-api", "GET", f"/v2.1/servers/{street.server}"))
    assert "'h1'" not in shown
    assert "127.0.0.2" not in shown


def test_nobody_writes_what_is_anothers(street: Street) -> None:
    """Bob, a member with good bodies, on what is Alice's; nothing of hers is any different afterwards."""
    doors = street.doors
    before = doors.good("alice", "nova-api", "GET", f"/v2.1/servers/{street.server}")
    for name, line, route in routes(street, "PUT", "PATCH", "DELETE", "POST"):
        if "{" in route.path and route.policy not in ("host", "public") and name != "glance-registry":
            status, data = street.knock("bob", name, route, body_of(route))
            # his own password and key aside, whatever it is: refused, and not for want of a body alone
            assert status in (400, 403, 404, 410, 415), (line, status, data)
    server, ids = f"/v2.1/servers/{street.server}", doors.ids
    good: list[tuple[str, str, str, Any]] = [
        ("nova-api", "PUT", server, {"server": {"name": "mine"}}),
        ("nova-api", "DELETE", server, None),
        *(("nova-api", "POST", f"{server}/action", {action: value}) for action, value in (
            ("os-stop", None), ("reboot", {"type": "HARD"}), ("lock", None), ("unlock", None),
            ("os-getConsoleOutput", {}))),
        ("nova-api", "POST", f"{server}/metadata", {"metadata": {"a": "b"}}),
        ("nova-api", "POST", f"{server}/os-interface", {"interfaceAttachment": {}}),
        ("nova-api", "DELETE", f"{server}/os-interface/{street.values['port_id']}", None),
        ("nova-api", "DELETE", "/v2.1/os-keypairs/k", None),
        ("nova-api", "DELETE", f"/v2.1/os-keypairs/k?user_id={ids['alice']}", None),
        ("nova-api", "POST", "/v2.1/os-keypairs",
         {"keypair": {"name": "x", "public_key": KEY, "user_id": ids["alice"]}}),
        ("nova-api", "PUT", f"/v2.1/os-quota-sets/{ids['blue']}", {"quota_set": {"cores": -1}}),
        ("neutron-server", "PUT", f"/v2.0/quotas/{ids['blue']}", {"quota": {"port": -1}}),
        ("keystone", "PATCH", f"/v3/users/{ids['alice']}", {"user": {"password": "mine now"}}),
        ("keystone", "PATCH", f"/v3/users/{ids['bob']}", {"user": {"enabled": True}}),
        ("keystone", "POST", f"/v3/users/{ids['alice']}/password",
         {"user": {"original_password": "guess", "password": "x"}}),
        ("glance-api", "POST", f"/v2/images/{ids['image of alice']}/members", {"member": ids["blue"]}),
        ("glance-api", "PUT", f"/v2/images/{ids['image of alice']}/members/{ids['blue']}", {"status": "accepted"}),
    ]  # fmt: skip
    for name, method, url, body in good:
        status, data, _ = doors.call("bob", name, method, url, body)
        assert status in (401, 403, 404), (method, url, status, data)
    assert doors.good("alice", "nova-api", "GET", f"/v2.1/servers/{street.server}") == before
    assert doors.good("alice", "nova-api", "GET", "/v2.1/os-keypairs/k")["keypair"]["public_key"] == KEY


def test_servers_are_not_made_with_what_is_anothers(street: Street) -> None:
    """Image, network, port, group, key and flavor of another project, by id (OSSA-2013-001's class)."""
    doors, values = street.doors, street.values
    mine = doors.image("bob")
    net, _ = doors.network("bob")
    secret = _private_flavor(doors)
    base = {"name": "x", "imageRef": mine, "flavorRef": doors.ids["flavor"], "networks": [{"uuid": net}]}
    for change in (
        {"imageRef": doors.ids["image of alice"]}, {"flavorRef": secret}, {"key_name": "k"},
        {"networks": [{"uuid": street.network}]}, {"networks": [{"port": values["port_id"]}]},
        {"security_groups": [{"name": values["security_group_id"]}]}, {"security_groups": [{"name": "g"}]},
        {"availability_zone": "nova:h1"}, {"host": "h1"}, {"hypervisor_hostname": "h1"},
    ):  # fmt: skip
        status, data, _ = doors.call("bob", "nova-api", "POST", "/v2.1/servers", {"server": {**base, **change}})
        assert status in (400, 403, 404), (change, data)
    assert doors.good("bob", "nova-api", "GET", "/v2.1/servers")["servers"] == []


def _private_flavor(doors: Doors) -> str:
    wish = {"name": "secret", "ram": 1, "vcpus": 1, "disk": 1, "os-flavor-access:is_public": False}
    return str(doors.good("admin", "nova-api", "POST", "/v2.1/flavors", {"flavor": wish})["flavor"]["id"])


def test_tokens_of_others(doors: Doors) -> None:
    """Neither shown, checked nor ended; nor made by who has nothing but a project's or user's id."""
    for method in ("GET", "HEAD", "DELETE"):
        status, data, _ = doors.call(
            "bob", "keystone", method, "/v3/auth/tokens", X_Subject_Token=doors.tokens["alice"]
        )
        assert status == 403, (method, data)
    assert doors.call("alice", "keystone", "GET", "/v3/auth/projects")[0] == 200
    for scope in ({"project": {"id": doors.ids["red"]}}, {"system": {"all": True}}, {"domain": {"id": "default"}}):
        identity = {"methods": ["token"], "token": {"id": doors.tokens["bob"]}}
        body = {"auth": {"identity": identity, "scope": scope}}
        assert doors.call("bob", "keystone", "POST", "/v3/auth/tokens", body)[0] == 401, scope


# ── TOK-11: roles, groups and ids ────────────────────────────────────────────────────────────────────────────


def test_taking_away_a_role_that_is_not_there_gives_nothing(doors: Doors) -> None:
    """OSSA-2013-028: it gave the role."""
    for target in (f"projects/{doors.ids['red']}", "domains/default", "system"):
        for role in ("admin", "member"):
            url = f"/v3/{target}/users/{doors.ids['bob']}/roles/{doors.role(role)}"
            assert doors.call("admin", "keystone", "DELETE", url)[0] == 404
            assert doors.call("admin", "keystone", "GET", url)[0] == 404
    assert doors.call("bob", "nova-api", "GET", "/v2.1/os-services")[0] == 403


def test_nothing_implies_admin(doors: Doors) -> None:
    admin = doors.role("admin")
    for role in ("reader", "member", "manager"):
        url = f"/v3/roles/{doors.role(role)}/implies/{admin}"
        assert doors.call("admin", "keystone", "PUT", url)[0] == 403
    for who in ("mona", "alice"):
        url = f"/v3/roles/{doors.role('reader')}/implies/{doors.role('member')}"
        assert doors.call(who, "keystone", "PUT", url)[0] == 403


def test_a_domains_role_of_a_great_name_is_not_the_great_role(doors: Doors) -> None:
    """A role ``admin`` that belongs to a domain, on a project in it, makes no administrator."""
    role = {"name": "admin", "domain_id": "default"}
    mine = doors.make("keystone", "admin", "/v3/roles", "role", **role)["id"]
    url = f"/v3/projects/{doors.ids['blue']}/users/{doors.ids['bob']}/roles/{mine}"
    doors.good("admin", "keystone", "PUT", url)
    token = doors.login("bob", PASSWORD, project="blue")
    assert doors.env.authenticate(token).roles == {"member", "reader"}
    assert doors.call("bob", "nova-api", "GET", "/v2.1/os-services")[0] == 403


@pytest.mark.parametrize("role", ["manager", "member", "reader"])
def test_a_domains_people_stay_in_it(doors: Doors, role: str) -> None:
    """With a role on domain ``other``: nothing of Default, no great role even at home, nobody from outside."""
    other = doors.make("keystone", "admin", "/v3/domains", "domain", name="other")["id"]
    home = doors.make("keystone", "admin", "/v3/projects", "project", name="home", domain_id=other)["id"]
    dan = doors.make("keystone", "admin", "/v3/users", "user", name="dan", domain_id=other, password=PASSWORD)["id"]
    doors.good("admin", "keystone", "PUT", f"/v3/domains/{other}/users/{dan}/roles/{doors.role(role)}")
    user = {"id": dan, "password": PASSWORD}
    body = {
        "auth": {
            "identity": {"methods": ["password"], "password": {"user": user}},
            "scope": {"domain": {"id": other}},
        }
    }
    doors.tokens["dan"] = doors.apps["keystone"].call("POST", "/v3/auth/tokens", body)[2]["X-Subject-Token"]
    alice, red = doors.ids["alice"], doors.ids["red"]
    roles = {name: doors.role(name) for name in ("admin", "member")}
    refused: list[tuple[str, str, Any]] = [
        ("PUT", f"/v3/projects/{home}/users/{dan}/roles/{roles['admin']}", None),
        ("PUT", f"/v3/domains/{other}/users/{dan}/roles/{roles['admin']}", None),
        ("PUT", f"/v3/projects/{home}/users/{alice}/roles/{roles['member']}", None),
        ("PUT", f"/v3/projects/{red}/users/{dan}/roles/{roles['member']}", None),
        ("PUT", f"/v3/domains/default/users/{dan}/roles/{roles['member']}", None),
        ("PUT", f"/v3/system/users/{dan}/roles/{roles['member']}", None),
        ("PUT", f"/v3/OS-INHERIT/domains/default/users/{dan}/roles/{roles['member']}/inherited_to_projects", None),
        ("PATCH", f"/v3/users/{alice}", {"user": {"password": "x"}}),
        ("PATCH", f"/v3/domains/{other}", {"domain": {"enabled": False}}),
        ("DELETE", f"/v3/projects/{red}", None),
        ("POST", "/v3/users", {"user": {"name": "x", "domain_id": "default"}}),
        ("POST", "/v3/projects", {"project": {"name": "x", "domain_id": "default"}}),
        ("POST", "/v3/roles", {"role": {"name": "admin2"}}),
        ("GET", f"/v3/users/{alice}", None),
        ("GET", f"/v3/projects/{red}", None),
    ]
    for method, url, wish in refused:
        status, data, _ = doors.call("dan", "keystone", method, url, wish)
        assert status == 403, (role, method, url, status, data)
    for url, key in (("/v3/users", "users"), ("/v3/projects", "projects"), ("/v3/groups", "groups")):
        for text in ("", "domain_id=default", "name=alice", f"id={alice}", "parent_id=default"):
            found = doors.good("dan", "keystone", "GET", f"{url}?{text}")[key]
            assert {one["domain_id"] for one in found} <= {other}, (url, text, found)
    found = doors.good("dan", "keystone", "GET", "/v3/role_assignments?effective")["role_assignments"]
    assert {one["scope"].get("domain", {}).get("id", other) for one in found} == {other}
    assert {one["scope"].get("project", {}).get("id", home) for one in found} == {home}
    for name, url in (
        ("nova-api", "/v2.1/servers"),
        ("neutron-server", "/v2.0/networks"),
        ("glance-api", "/v2/images"),
    ):
        status, data, _ = doors.call("dan", name, "GET", url)
        assert status == 403 or not any(data.values()) or data.get("images") == [], (name, data)
