"""Who asks is what the token says now, and nothing else (families TOK-6, TOK-12, TOK-13)."""

import asyncio
import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cumulet.core import run
from cumulet.core.http import App
from cumulet.glance.registry_client import seal
from tests import databases
from tests.attacks.doors import SECRETS, Doors
from tests.attacks.street import BY_SIGNATURE, KEY, PUBLIC, Street, body_of, routes

# ── TOK-6: headers that speak for a token (OSSA-2026-001) ─────────────────────────────────────────────────────


def smuggled(doors: Doors) -> dict[str, str]:
    """Every header by which a front has been told who asks, somewhere."""
    names = {
        "User-Id": doors.ids["alice"], "User-Name": "alice", "User": "alice", "Project-Id": doors.ids["red"],
        "Project-Name": "red", "Tenant-Id": doors.ids["red"], "Tenant": "red", "Tenant-Name": "red",
        "Roles": "admin", "Role": "admin", "Is-Admin": "True", "Is-Admin-Project": "True",
        "Identity-Status": "Confirmed", "Service-Identity-Status": "Confirmed", "Service-Roles": "admin,service",
        "Service-User-Id": "x", "Service-Project-Id": "x", "Service-Token": doors.tokens["admin"],
        "Domain-Id": "default", "Domain-Name": "Default", "User-Domain-Id": "default",
        "Project-Domain-Id": "default", "Service-Catalog": "[]", "Forwarded-For": "127.0.0.1",
        "Forwarded-Host": "evil", "Forwarded-Proto": "https", "Forwarded-User": "admin",
        "Forwarded-Prefix": "/evil", "Real-Ip": "127.0.0.1", "Original-Url": "/healthcheck", "Rewrite-Url": "/",
        "Http-Method-Override": "GET", "Subject-Token": doors.tokens["admin"], "Instance-Id": "x",
        "Cumulet-Host": "h1", "Cumulet-Project": doors.ids["red"], "Openstack-Nova-Api-Version": "2.1",
    }  # fmt: skip
    return {f"X-{name}": value for name, value in names.items()} | {
        "Remote-User": "admin", "REMOTE_USER": "admin", "X_AUTH_TOKEN": doors.tokens["admin"], "Host": "evil",
        "Authorization": f"Bearer {doors.tokens['admin']}", "Cookie": f"token={doors.tokens['admin']}",
        "Openstack-System-Scope": "all", "Forwarded": "for=127.0.0.1;host=evil",
    }  # fmt: skip


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Street:
    return Street(tmp_path_factory.mktemp("street"))


def test_headers_open_no_door(street: Street) -> None:
    doors = street.doors
    headers = smuggled(doors)
    for name, line, route in routes(street):
        if (name, line) in PUBLIC:
            continue
        url = f"{street.url(route)}?X-Auth-Token={doors.tokens['admin']}&token={doors.tokens['admin']}"
        status, data, _ = doors.ask(name, route.method, url, body_of(route), headers)
        assert status in ((400, 403) if (name, line) in BY_SIGNATURE else (401,)), (name, line, status, data)


@pytest.mark.parametrize("who", ["rita", "bob", "nora"])
def test_headers_add_nothing_to_a_token(street: Street, who: str) -> None:
    """The same answer with them as without, but for times, and without the host that was asked for."""
    doors = street.doors
    headers = {name: value for name, value in smuggled(doors).items() if name != "X-Subject-Token"}
    headers |= {"OpenStack-API-Version": "compute 2.100"}
    for name, line, route in routes(street):
        if route.method in ("POST", "DELETE") and (name, line) not in PUBLIC and who == "bob":
            continue  # a member: twice the same write is not the same answer
        plain = street.knock(who, name, route, body_of(route))
        asked = headers | ({"X-Auth-Token": doors.tokens[who]} if who in doors.tokens else {})
        if route.until:
            asked["OpenStack-API-Version"] = "compute {}.{}".format(*route.until)
        status, data, sent = doors.ask(name, route.method, street.url(route), body_of(route), asked)
        assert status == plain[0], (who, name, line, data)
        assert "evil" not in f"{data!r} {dict(sent)}", (name, line)
        if isinstance(data, dict) and route.method == "GET":
            assert data.keys() == plain[1].keys(), (name, line)


def test_links_and_projects_follow_the_token(street: Street) -> None:
    doors = street.doors
    headers = smuggled(doors) | {"X-Auth-Token": doors.tokens["bob"]}
    for name, url, key in (
        ("nova-api", "/v2.1/servers/detail", "servers"),
        ("nova-api", "/v2.1/os-keypairs", "keypairs"),
        ("neutron-server", "/v2.0/routers", "routers"),
        ("glance-api", "/v2/images", "images"),
    ):
        assert doors.ask(name, "GET", url, None, headers)[1][key] == [], url
    made = doors.ask("neutron-server", "POST", "/v2.0/networks", {"network": {"name": "n"}}, headers)[1]["network"]
    assert made["project_id"] == doors.ids["blue"]


def test_the_registry_takes_nothing_but_a_fresh_envelope(street: Street) -> None:
    """Not a user's token, not an envelope of another secret, not one that was changed, not one from yesterday."""
    doors = street.doors
    context = doors.env.authenticate(doors.tokens["admin"])
    good = seal(SECRETS.registry_secret, context)
    payload, _, signature = good.partition(".")
    changed = chr(ord(signature[0]) ^ 1) + signature[1:]
    assert doors.ask("glance-registry", "GET", "/images", None, {"X-Auth-Token": good})[0] == 200
    for text in (
        doors.tokens["admin"], seal("another", context), seal(SECRETS.host_secret, context), payload, f"{payload}.",
        f".{signature}", f"{payload}A.{signature}", f"{payload}.{changed}", f"{payload}.{signature}.x",
        "é.é",
    ):  # fmt: skip
        for method, url in (("GET", "/images"), ("POST", "/data"), ("DELETE", "/images/x")):
            assert doors.ask("glance-registry", method, url, None, {"X-Auth-Token": text})[0] == 401, text


# ── TOK-13: nothing is cached that could be stale ────────────────────────────────────────────────────────────

FRONTS = (
    ("keystone", "/v3/auth/projects"), ("glance-api", "/v2/images"), ("neutron-server", "/v2.0/networks"),
    ("nova-api", "/v2.1/servers"),
)  # fmt: skip


@pytest.mark.parametrize("end", ["role", "logout", "disabled", "password", "project"])
def test_a_token_ends_at_every_front_at_once(doors: Doors, end: str) -> None:
    """Each front has just let it in, many times; the next request after the change is refused by each."""
    for name, url in FRONTS * 3:
        assert doors.call("alice", name, "GET", url)[0] == 200
    alice, red = doors.ids["alice"], doors.ids["red"]
    ends: dict[str, tuple[str, str, Any]] = {
        "role": ("DELETE", f"/v3/projects/{red}/users/{alice}/roles/{doors.role('member')}", None),
        "logout": ("DELETE", "/v3/auth/tokens", None),
        "disabled": ("PATCH", f"/v3/users/{alice}", {"user": {"enabled": False}}),
        "password": ("PATCH", f"/v3/users/{alice}", {"user": {"password": "another"}}),
        "project": ("PATCH", f"/v3/projects/{red}", {"project": {"enabled": False}}),
    }
    method, url, body = ends[end]
    doors.good("admin", "keystone", method, url, body, X_Subject_Token=doors.tokens["alice"])
    for name, url in FRONTS:
        assert doors.call("alice", name, "GET", url)[0] == 401, (name, end)


def test_a_new_role_counts_at_once_and_a_lost_one_no_more(doors: Doors) -> None:
    grant = f"/v3/projects/{doors.ids['red']}/users/{doors.ids['rita']}/roles/{doors.role('admin')}"
    for verb, expected in (("GET", 403), ("PUT", 200), ("DELETE", 403)):
        if verb != "GET":
            doors.good("admin", "keystone", verb, grant)
        for name, url in (
            ("keystone", "/v3/users"), ("nova-api", "/v2.1/os-services"),
        ):  # fmt: skip
            assert doors.call("rita", name, "GET", url)[0] == expected, (name, verb)


def test_answers_may_not_be_kept_for_others(doors: Doors) -> None:
    """A token is in the answer's headers: no cache on the way may serve it to the next one."""
    user = {"name": "alice", "domain": {"id": "default"}, "password": "p4ssword-canary"}
    body = {"auth": {"identity": {"methods": ["password"], "password": {"user": user}}}}
    _, _, headers = doors.apps["keystone"].call("POST", "/v3/auth/tokens", body)
    assert "X-Auth-Token" in headers["Vary"]


# ── TOK-12: nobody gets another's answer, whatever is under way beside it (OSSA-2014-007) ────────────────────


@contextmanager
def serving(apps: dict[str, App]) -> Iterator[dict[str, int]]:
    """The apps on sockets of their own, as the cloud serves them: their ports."""
    sockets = {name: socket.create_server(("127.0.0.1", 0)) for name in apps}
    servers = [(run._server(app, False), sockets[name]) for name, app in apps.items()]

    loops: list[asyncio.AbstractEventLoop] = []

    async def serve() -> None:
        loops.append(asyncio.get_running_loop())
        await asyncio.gather(*(server.serve([one]) for server, one in servers))

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        yield {name: one.getsockname()[1] for name, one in sockets.items()}
    finally:
        for server, _ in servers:
            loops[0].call_soon_threadsafe(server.end)
        thread.join(20)


def _ids(found: Any, *names: str) -> set[str]:
    """The values of these fields, at any depth."""
    if isinstance(found, dict):
        mine = {value for name, value in found.items() if name in names and isinstance(value, str)}
        return mine.union(*(_ids(value, *names) for value in found.values()))
    return set().union(*(_ids(one, *names) for one in found)) if isinstance(found, list) else set()


URLS: tuple[tuple[str, str], ...] = (
    ("nova-api", "/v2.1/servers/detail"), ("nova-api", "/v2.1/os-keypairs"), ("neutron-server", "/v2.0/networks"),
    ("neutron-server", "/v2.0/ports"), ("glance-api", "/v2/images"), ("keystone", "/v3/auth/projects"),
    ("neutron-server", "/v2.0/quotas/tenant"), ("nova-api", "/v2.1/servers/nothing"),
)  # fmt: skip
ROUNDS = 20  # of 8 requests by each of 4 callers: 640 requests


def only(doors: Doors, who: str, project: str) -> Callable[[Any], bool]:
    """Whether an answer holds nothing but what is that user's."""
    mine = {doors.ids[project]}
    keys = {"alice": {"alice"}, "bob": {"bob"}}.get(who, set())

    def check(data: Any) -> bool:
        projects = _ids(data, "tenant_id", "project_id", "owner")
        named = {one["keypair"]["name"] for one in data.get("keypairs", ())}
        homes = {one["id"] for one in data.get("projects", ())}
        return projects <= mine and homes <= mine and named == (keys if "keypairs" in data else set())

    return check


def test_two_users_at_once_each_get_their_own(memory: Path) -> None:
    doors = Doors(memory, url=databases.url(memory / "cloud.sqlite"))
    doors.add_person("carl", "blue", "member")
    for who in ("alice", "bob"):
        network, _ = doors.network(who)
        doors.server(who, networks=[{"uuid": network}])
        doors.make("nova-api", who, "/v2.1/os-keypairs", "keypair", name=who, public_key=KEY)
    wrong: list[Any] = []
    seen: list[str] = []

    def hammer(who: str, check: Callable[[Any], bool], ports: dict[str, int]) -> None:
        headers = doors.headers(who)
        connections = {name: http.client.HTTPConnection("127.0.0.1", port) for name, port in ports.items()}
        for _ in range(ROUNDS):
            for name, url in URLS:
                connections[name].request("GET", url, headers=headers)
                answer = connections[name].getresponse()
                data = json.loads(answer.read())
                seen.append(answer.headers["X-Openstack-Request-Id"])
                if answer.status != (404 if url.endswith("nothing") else 200) or not check(data):
                    wrong.append((who, url, answer.status, data))
        for connection in connections.values():
            connection.close()

    fronts = {name: doors.apps[name] for name, _ in URLS}
    with serving(fronts) as ports:
        people = (("alice", "red"), ("bob", "blue"), ("alice", "red"), ("carl", "blue"))
        threads = [
            threading.Thread(target=hammer, args=(who, only(doors, who, where), ports)) for who, where in people
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong, wrong[:3]
    assert len(seen) == len(set(seen)) == ROUNDS * len(URLS) * 4
