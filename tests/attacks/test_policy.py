"""All routes of all services against all kinds of callers (API-7, IMG-10): who is let in where.

Nothing here is written down per route but the exceptions: a route that is added is attacked by the next run.
"""

from pathlib import Path
from urllib.parse import quote

import pytest

from tests.attacks.street import BY_SIGNATURE, PUBLIC, Street, body_of, routes, rule_of

READERS_WRITE = {
    ("keystone", "POST /v3/auth/tokens"), ("keystone", "POST /v3/users/{user_id}/password"),
    ("keystone", "DELETE /v3/auth/tokens"), ("nova-api", "POST /v2.1/os-keypairs"),
    ("nova-api", "DELETE /v2.1/os-keypairs/{name}"), ("keystone", "POST /v3/credentials"),
    ("keystone", "PATCH /v3/credentials/{credential_id}"),
    ("keystone", "POST /v3/users/{user_id}/application_credentials"), ("keystone", "POST /v3/OS-TRUST/trusts"),
}  # fmt: skip
"""Writes that anybody may do to what is their own: their token, password, keys, credentials and trusts."""
AFTER_THE_THING = {
    "/v2.0/{collection}/{id}/tags": b'{"tags": ["a"]}',
    "/v2.0/{collection}/{id}/tags/{tag}": b"",
    "/v2.1/images/{image_id}/metadata": b'{"metadata": {"k": "v"}}',
    "/v2.1/images/{image_id}/metadata/{key}": b'{"meta": {"k": "v"}}',
}
"""Here the rule depends on what the URL names, so it is asked later: with good bodies in its own test."""
FOR_MANAGERS = "rule:project_manager_or_admin"
FOR_ADMINISTRATORS = (
    FOR_MANAGERS,
    "rule:context_is_admin", "rule:admin_only", "rule:admin_required", "role:admin",
    "rule:admin_only or rule:service_api",
)  # fmt: skip
GARBAGE: tuple[bytes, ...] = (
    b"", b"{", b"null", b"[]", b"{}", b'"x"', b"\xff\xfe\x00", b'{"x": {"x": []}}', b"[" * 2000, b"1e999",
)  # fmt: skip
WRITES = ("POST", "PUT", "PATCH", "DELETE")


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Street:
    return Street(tmp_path_factory.mktemp("street"))


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
        if status not in (401, 403, 404, 410):
            let_in.add((name, line))
    if who != "bob":  # a member: of what is theirs they may write
        late = {(name, line) for name, line, route in routes(street, *WRITES) if route.path in AFTER_THE_THING}
        assert let_in <= READERS_WRITE | BY_SIGNATURE | late, let_in - READERS_WRITE - late
    for name, line, route in routes(street, *WRITES):
        if route.path in AFTER_THE_THING:
            status, data = street.knock(who, name, route, AFTER_THE_THING[route.path])
            assert status in (403, 404), (who, line, status, data)


def test_administrators_doors_are_shut_to_members_and_managers(street: Street) -> None:
    """Whatever a rule's defaults give to administrators alone is a 403 to everybody else, before the body."""
    shut = 0
    for name, line, route in routes(street):
        rule = rule_of(street, name, route)
        if rule in FOR_ADMINISTRATORS:
            for who in ("alice", "rita", "nora", *(("mona",) if rule != FOR_MANAGERS else ())):
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
    "keystone": ("limit", "marker", "sort_key", "name", "enabled", "domain_id", "parent_id", "name__contains",
                 "tags",
                 "user.id", "effective", "scope.project.id", "role.id", "is_domain", "type", "service_id"),
    "glance-api": ("limit", "marker", "sort_key", "sort_dir", "sort", "size_min", "min_ram", "created_at", "name",
                   "visibility", "member_status", "os_hidden", "tag", "protected", "status", "owner", "x",
                   "checksum"),
    "neutron-server": ("limit", "marker", "sort_key", "sort_dir", "page_reverse", "fields", "mtu",
                       "revision_number", "admin_state_up", "provider:segmentation_id", "ip_version",
                       "port_range_min", "fixed_ips",
                       "changed_since", "tags", "not-tags-any", "status", "alive", "cidr", "security_groups"),
    "nova-api": ("limit", "marker", "sort_key", "sort_dir", "sort", "minRam", "minDisk", "is_public", "name", "ip",
                 "ip6", "status", "changes-since", "changes-before", "all_tenants", "deleted", "locked",
                 "power_state", "launch_index", "vcpus", "memory_mb", "config_drive", "availability_zone",
                 "with_servers",
                 "hypervisor_hostname_pattern", "tenant_id", "user_id", "rxtx_factor", "created_at", "host"),
}  # fmt: skip


def test_no_query_is_a_server_error(street: Street) -> None:
    for name, line, route in routes(street, "GET"):
        if "{" in route.path or route.policy in ("public", "host") or name == "glance-registry":
            continue
        for field in FILTERS.get(name, ()):
            for value in NASTY:
                url = f"{route.path}?{quote(field)}={quote(value)}"
                status, data, _ = street.doors.call("admin", name, "GET", url)
                assert status < 500, (name, line, field, value, data)
