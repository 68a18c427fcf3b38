"""All routes of all services against all kinds of callers (API-7, IMG-10, TOK-6): who is let in where.

Nothing here is written down per route but the exceptions: a route that is added is attacked by the next run.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cumulet.core.http import Route
from tests.attacks.doors import Doors

PUBLIC = {
    ("keystone", "GET /"), ("keystone", "GET /v3"), ("keystone", "POST /v3/auth/tokens"),
    ("keystone", "POST /v3/users/{user_id}/password"),
    ("glance-api", "GET /"), ("glance-api", "GET /versions"), ("glance-api", "GET /{version}"),
    ("neutron-server", "GET /"), ("neutron-server", "GET /v2.0"),
    ("nova-api", "GET /"), ("nova-api", "GET /v2.1"),
    *((service, f"GET /{page}") for page in ("healthcheck", "openapi.json") for service in (
        "keystone", "glance-api", "glance-registry", "neutron-server", "nova-api", "nova-api-metadata",
        "nova-conductor", "nova-consoleauth")),
}  # fmt: skip
"""What answers without a token.  A password changes, and a token is made, by the proof in the body."""
BY_SIGNATURE = {("nova-api-metadata", f"{line}/{{path:path}}") for line in ("GET ", "POST ")}
BY_SIGNATURE |= {("nova-api-metadata", "GET /")}
READERS_WRITE = {
    ("keystone", "POST /v3/auth/tokens"), ("keystone", "POST /v3/users/{user_id}/password"),
    ("keystone", "DELETE /v3/auth/tokens"), ("nova-api", "POST /v2.1/os-keypairs"),
    ("nova-api", "DELETE /v2.1/os-keypairs/{name}"), ("keystone", "POST /v3/credentials"),
    ("keystone", "PATCH /v3/credentials/{credential_id}"),
    ("keystone", "POST /v3/users/{user_id}/application_credentials"),
}  # fmt: skip
"""Writes that anybody may do to what is their own: their token, password, keys and credentials."""
AFTER_THE_THING = {"/v2.0/{collection}/{id}/tags", "/v2.0/{collection}/{id}/tags/{tag}"}
"""Here the rule depends on what the URL names, so it is asked later: with good bodies in its own test."""
FOR_ADMINISTRATORS = ("rule:context_is_admin", "rule:admin_only", "rule:admin_required", "role:admin")
GARBAGE: tuple[bytes, ...] = (
    b"", b"{", b"null", b"[]", b"{}", b'"x"', b"\xff\xfe\x00", b'{"x": {"x": []}}', b"[" * 2000, b"1e999",
)  # fmt: skip
WRITES = ("POST", "PUT", "PATCH", "DELETE")


class Street:
    """The doors, and things of Alice's project behind them for every name that a route's path has."""

    def __init__(self, place: Path) -> None:
        self.doors = doors = Doors(place)
        doors.add_host()
        self.network, self.subnet = doors.network()
        self.server = doors.server(networks=[{"uuid": self.network}])
        doors.run(self.server)
        self.floating = self._floating()
        port = doors.good("alice", "neutron-server", "GET", f"/v2.0/ports?device_id={self.server}")["ports"][0][
            "id"
        ]
        group = doors.make("neutron-server", "alice", "/v2.0/security-groups", "security_group", name="g")
        router = doors.make("neutron-server", "alice", "/v2.0/routers", "router", name="r")["id"]
        key = doors.make("nova-api", "alice", "/v2.1/os-keypairs", "keypair", name="k", public_key=KEY)["name"]
        agent = doors.good("admin", "neutron-server", "GET", "/v2.0/agents")["agents"][0]["id"]
        self.values = {
            "host": "h1", "user_id": doors.ids["alice"], "project_id": doors.ids["red"], "domain_id": "default",
            "role_id": doors.role("member"), "prior_role_id": doors.role("member"), "region_id": "RegionOne",
            "implied_role_id": doors.role("reader"), "network_id": self.network, "subnet_id": self.subnet,
            "port_id": port, "router_id": router, "floatingip_id": self.floating, "security_group_id": group["id"],
            "rule_id": group["security_group_rules"][0]["id"], "image_id": doors.ids["image of alice"],
            "member_id": doors.ids["blue"], "name": key, "agent_id": agent, "tag": "x", "key": "k", "alias": "quotas",
            "binary": "nova-compute", "network": "net", "collection": "networks", "version": "v2",
            "request_id": "req-x", "volume_id": "x", "attempt": "x", "path:path": "openstack/latest/meta_data.json",
            **{f"{thing}_id": self._first(thing) for thing in ("service", "endpoint")},
            "group_id": doors.make("keystone", "admin", "/v3/groups", "group", name="crew")["id"],
        }  # fmt: skip

    def _first(self, thing: str) -> str:
        return str(self.doors.good("admin", "keystone", "GET", f"/v3/{thing}s")[f"{thing}s"][0]["id"])

    def _floating(self) -> str:
        public = self.doors.public_network()
        wish = {"floating_network_id": public}
        return str(self.doors.make("neutron-server", "alice", "/v2.0/floatingips", "floatingip", **wish)["id"])

    def url(self, route: Route) -> str:
        things = {"flavors": self.doors.ids["flavor"], "os-quota-sets": self.doors.ids["red"], "v2.0": self.network}
        parts = []
        for part in route.path.split("/"):
            if part == "{id}":
                parts.append(next((value for name, value in things.items() if name in parts), self.server))
            else:
                parts.append(self.values.get(part[1:-1], "x") if part.startswith("{") else part)
        return "/".join(parts)

    def knock(self, who: str, name: str, route: Route, raw: bytes, **headers: str) -> tuple[int, Any]:
        body = raw.replace(b"ACTION", route.action.encode()) if route.action else raw
        if route.until:  # a route of old microversions
            headers["OpenStack_API_Version"] = f"compute {route.until[0]}.{route.until[1]}"
        status, data, _ = self.doors.call(who, name, route.method, self.url(route), body, **headers)
        return status, data


KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl a@b"


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Street:
    return Street(tmp_path_factory.mktemp("street"))


def routes(street: Street, *methods: str) -> Iterator[tuple[str, str, Route]]:
    for name, route in street.doors.routes():
        if not methods or route.method in methods:
            yield name, f"{route.method} {route.path}", route


def rule_of(street: Street, name: str, route: Route) -> str:
    return street.doors.apps[name].policies.texts.get(route.policy, "")


def body_of(route: Route) -> bytes:
    """What gets an action to its own handler; nothing at all for the others."""
    return f'{{"{route.action}": null}}'.encode() if route.action else b""


def test_without_a_token_nothing_answers_but_the_public_pages(street: Street) -> None:
    open_to_all = set()
    for name, line, route in routes(street):
        status, data = street.knock("nobody", name, route, body_of(route))
        if status != 401:
            open_to_all.add((name, line))
        if (name, line) in BY_SIGNATURE:
            assert status in (400, 403), (line, status, data)
    assert open_to_all == PUBLIC | BY_SIGNATURE


@pytest.mark.parametrize("token", ["", " ", "ADMIN", "gAAAAABx" * 30, "null", "\x00", "é"])
def test_what_is_no_token_opens_nothing(street: Street, token: str) -> None:
    for name, line, route in routes(street):
        if (name, line) not in PUBLIC | BY_SIGNATURE:
            headers = {"X-Auth-Token": token, "X-Cumulet-Host": "h1", "X-Cumulet-Host-Token": token}
            status, data, _ = street.doors.ask(name, route.method, street.url(route), body_of(route), headers)
            assert status == 401, (name, line, data)


def test_users_have_no_hosts_doors_and_hosts_no_users(street: Street) -> None:
    """Nor has anybody the registry's: it takes what glance-api has sealed."""
    for name, line, route in routes(street):
        if (name, line) in PUBLIC | BY_SIGNATURE:
            continue
        others = ("alice", "rita", "mona", "nora", "admin")
        if route.policy != "host":
            others = ("host:h1", *(others if name == "glance-registry" else ()))
        for who in others:
            assert street.knock(who, name, route, body_of(route))[0] == 401, (who, name, line)


def test_a_host_speaks_for_itself_only(street: Street) -> None:
    for name, line, route in routes(street):
        if route.policy == "host":
            status, data = street.knock("host:h2", name, route, b"")
            assert status == (401 if name == "nova-consoleauth" else 403), (name, line, data)  # that serves no host
            mixed = street.doors.headers("host:h2") | {"X-Cumulet-Host": "h1"}
            assert street.doors.ask(name, route.method, street.url(route), b"", mixed)[0] == 401, (name, line)


@pytest.mark.parametrize("who", ["rita", "nora", "bob"])
def test_readers_and_strangers_write_nothing(street: Street, who: str) -> None:
    """Refused before the body is read: 403, or 404 for what they may not even see; Bob's own projects aside."""
    let_in = set()
    for name, line, route in routes(street, *WRITES):
        if route.policy == "host" or name in ("glance-registry", "nova-api-metadata"):
            continue
        status, data = street.knock(who, name, route, body_of(route))
        assert status >= 400 or (name, line) in READERS_WRITE, (who, name, line, status, data)
        if status not in (401, 403, 404):
            let_in.add((name, line))
    if who != "bob":  # a member: of what is theirs they may write
        late = {(name, line) for name, line, route in routes(street, *WRITES) if route.path in AFTER_THE_THING}
        assert let_in <= READERS_WRITE | late, let_in - READERS_WRITE - late
    for name, line, route in routes(street, *WRITES):
        if route.path in AFTER_THE_THING:
            status, data = street.knock(who, name, route, b'{"tags": ["a"]}')
            assert status in (403, 404), (who, line, status, data)


def test_administrators_doors_are_shut_to_members_and_managers(street: Street) -> None:
    """Whatever a rule's defaults give to administrators alone is a 403 to everybody else, before the body."""
    shut = 0
    for name, line, route in routes(street):
        if rule_of(street, name, route) in FOR_ADMINISTRATORS:
            for who in ("alice", "mona", "rita", "nora"):
                status, data = street.knock(who, name, route, body_of(route))
                assert status == 403, (who, name, line, status, data)
            shut += 1
    assert shut > 40


@pytest.mark.parametrize("who", ["nobody", "nora", "rita", "host:h1", "alice", "mona", "admin"])
def test_no_body_is_a_server_error(tmp_path: Path, who: str) -> None:
    """On a cloud of its own, for administrators' deletions delete; what deletes goes last."""
    street = Street(tmp_path)
    for name, line, route in sorted(routes(street, *WRITES), key=lambda found: found[2].method == "DELETE"):
        for raw in GARBAGE + ((b'{"ACTION": null}', b'{"ACTION": []}') if route.action else ()):
            status, data = street.knock(who, name, route, raw, Content_Type="application/octet-stream")
            assert status < 500 or (name, status) == ("nova-api", 503), (who, name, line, raw, status, data)


NASTY = ("\u00b2", "--5", "9" * 30, "\0(", "")
FILTERS = {
    "keystone": ("limit", "marker", "sort_key", "name", "enabled", "domain_id", "parent_id", "name__contains", "tags",
                 "user.id", "effective", "scope.project.id", "role.id", "is_domain", "type", "service_id"),
    "glance-api": ("limit", "marker", "sort_key", "sort_dir", "sort", "size_min", "min_ram", "created_at", "name",
                   "visibility", "member_status", "os_hidden", "tag", "protected", "status", "owner", "x", "checksum"),
    "neutron-server": ("limit", "marker", "sort_key", "sort_dir", "page_reverse", "fields", "mtu", "revision_number",
                       "admin_state_up", "provider:segmentation_id", "ip_version", "port_range_min", "fixed_ips",
                       "changed_since", "tags", "not-tags-any", "status", "alive", "cidr", "security_groups"),
    "nova-api": ("limit", "marker", "sort_key", "sort_dir", "sort", "minRam", "minDisk", "is_public", "name", "ip",
                 "ip6", "status", "changes-since", "changes-before", "all_tenants", "deleted", "locked", "power_state",
                 "launch_index", "vcpus", "memory_mb", "config_drive", "availability_zone", "with_servers",
                 "hypervisor_hostname_pattern", "tenant_id", "user_id", "rxtx_factor", "created_at", "host"),
}  # fmt: skip


def test_no_query_is_a_server_error(street: Street) -> None:
    from urllib.parse import quote

    for name, line, route in routes(street, "GET"):
        if "{" in route.path or route.policy in ("public", "host") or name == "glance-registry":
            continue
        for field in FILTERS.get(name, ()):
            for value in NASTY:
                url = f"{route.path}?{quote(field)}={quote(value)}"
                status, data, _ = street.doors.call("admin", name, "GET", url)
                assert status < 500, (name, line, field, value, data)
