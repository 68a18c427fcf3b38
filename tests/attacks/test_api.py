"""The APIs themselves: what is private, what is bounded, what errors tell (API-1 to API-3, API-5 to API-7)."""

import asyncio
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import sqlalchemy as sa

from cumulet.core import clock
from cumulet.core.bus import LocalBus
from cumulet.core.db import Database
from cumulet.core.metrics import REGISTRY
from cumulet.nova import hosts as nova_hosts
from cumulet.nova.model import Seen
from cumulet.nova.tables import flavors, servers
from tests import databases
from tests.attacks.doors import Doors
from tests.glance.rig import ask

NOVA = "nova-api"


# ── API-2: private flavors (OSSA-2013-019, OSSA-2013-024) ────────────────────────────────────────────────────


def test_a_private_flavor_is_not_there(doors: Doors) -> None:
    secret = doors.flavor("secret", id="secret", **{"os-flavor-access:is_public": False})
    specs = {"extra_specs": {"hidden": "spec"}}
    doors.good("admin", NOVA, "POST", f"/v2.1/flavors/{secret}/os-extra_specs", specs)
    server = {"name": "x", "imageRef": doors.image(), "flavorRef": secret, "networks": "none"}

    def tried(who: str) -> list[int]:
        return [
            doors.call(who, NOVA, "GET", f"/v2.1/flavors/{secret}")[0],
            doors.call(who, NOVA, "GET", f"/v2.1/flavors/{secret}/os-extra_specs")[0],
            doors.call(who, NOVA, "GET", f"/v2.1/flavors/{secret}/os-extra_specs/hidden")[0],
            doors.call(who, NOVA, "POST", "/v2.1/servers", {"server": server})[0],
        ]

    def listed(who: str, query: str) -> str:
        status, data, _ = doors.call(who, NOVA, "GET", f"/v2.1/flavors/detail?{query}")
        assert status in (200, 400), data
        return str(data.get("flavors"))

    assert tried("alice") == [404, 404, 404, 400]
    for query in ("", "is_public=None", "is_public=false", "is_public=0", "is_public=x", "limit=1000",
                  "name=secret",
                  "flavorid=secret", "minRam=1", "sort_key=name&sort_dir=desc"):  # fmt: skip
        assert "secret" not in listed("alice", query), query
    markers = [
        doors.call("alice", NOVA, "GET", f"/v2.1/flavors?marker={name}")[:2] for name in ("secret", "nothing")
    ]
    assert markers[0][0] == markers[1][0] == 400
    assert str(markers[0][1]).replace("secret", "nothing") == str(markers[1][1])
    url = f"/v2.1/flavors/{secret}/action"
    doors.good("admin", NOVA, "POST", url, {"addTenantAccess": {"tenant": doors.ids["red"]}})
    assert tried("alice") == [200, 200, 200, 202]
    assert tried("bob") == [404, 404, 404, 400]
    assert doors.call("alice", NOVA, "GET", f"/v2.1/flavors/{secret}/os-flavor-access")[0] == 403
    doors.good("admin", NOVA, "POST", url, {"removeTenantAccess": {"tenant": doors.ids["red"]}})
    assert tried("alice") == [404, 404, 404, 400]


# ── API-3: hints that only the cloud may give (OSSA-2026-022) ────────────────────────────────────────────────


@pytest.mark.parametrize("key", ["_nova_check_type", "_nova_anything", "_", "__class__"])
@pytest.mark.parametrize("place", ["os:scheduler_hints", "OS-SCH-HNT:scheduler_hints", "inside"])
def test_internal_hints_are_refused(shared: Doors, key: str, place: str) -> None:
    shared.ids.get("image") or shared.ids.update(image=shared.image(), flavor=shared.flavor())
    server: dict[str, Any] = {
        "name": "x", "imageRef": shared.ids["image"], "flavorRef": shared.ids["flavor"], "networks": "none"
    }  # fmt: skip
    hints = {key: ["rebuild"], "group": "x"}
    body: dict[str, Any] = {"server": server, place: hints}
    if place == "inside":
        body = {"server": {**server, "os:scheduler_hints": hints}}
    assert shared.call("alice", NOVA, "POST", "/v2.1/servers", body)[0] == 400
    with shared.db.read() as tx:
        assert tx.value(sa.select(sa.func.count()).select_from(servers)) == 0


# ── API-6: filters that cost (OSSA-2014-038), requests that stay in memory (OSSA-2021-006) ───────────────────

BOMBS = [
    "a?" * 80 + "a" * 80, "(a|a)" * 40 + "b", "(a+)+b", "(a*)*b", "(a|aa)+b", "(.*)(.*)(.*)b", ".*.*.*b", "a*a*a*b",
    "(?=a)", "(?P<x>a)(?P=x)", "(a)\\1", "a{1,200}a{1,200}a{1,200}b", "(a{1,99}){1,99}", "a" * 5000, "(" * 200, "[",
    "a**", "a{99999999999}", "\\", "(?i)a", "a??" * 60, "((a?)?)?b", "x|" * 100, "(a|b|ab)(c|bcd|b)(d*)b" * 5,
    "a*" + "a?" * 20 + "b", ".?" * 9 + "b", ".*.*b", "a+a+b", ".*a?b", "a{0,255}a{0,255}b",
]  # fmt: skip


@pytest.fixture(scope="module")
def long_named(tmp_path_factory: pytest.TempPathFactory) -> Doors:
    """Alice has as many servers as she may, with names and addresses that take long to search."""
    doors = Doors(tmp_path_factory.mktemp("long"))
    network, _ = doors.network()
    for _ in range(10):
        doors.server(name="a" * 255, networks=[{"uuid": network}])
    return doors


@pytest.mark.parametrize("field", ["name", "ip", "ip6"])
def test_regular_expressions_are_bounded(long_named: Doors, field: str) -> None:
    """Each is refused, or is done at once."""
    refused = 0
    for bomb in BOMBS:
        started = time.process_time()
        status, data, _ = long_named.call("alice", NOVA, "GET", f"/v2.1/servers?{field}={quote(bomb)}")
        assert status in (200, 400), (bomb, data)
        assert time.process_time() - started < 20, bomb  # for ever, if it is not bounded
        refused += status == 400
    assert refused > 15


@pytest.mark.parametrize(
    "good", ["^a", "a+$", ".*aaa.*", "(web|aaa)", "^web-?[0-9]+|a$", "a.a", "\\Aa", "[a-c]{3}"]
)
def test_expressions_of_every_day_work(long_named: Doors, good: str) -> None:
    found = long_named.good("alice", NOVA, "GET", f"/v2.1/servers?name={quote(good)}")["servers"]
    assert len(found) == 10


def test_pages_are_bounded(doors: Doors) -> None:
    """However large a page is asked for, and whoever asks."""
    row = {"vcpus": 1, "memory_mb": 1, "root_gb": 0, "created_at": clock.now()}
    with doors.db.transaction() as tx:
        tx.write(flavors.insert(), [{"id": f"f{n:04}", "name": f"f{n:04}", **row} for n in range(1100)])
    for query in ("", "limit=999999999", "limit=1000", "limit=0"):
        for who in ("alice", "admin"):
            assert len(doors.good(who, NOVA, "GET", f"/v2.1/flavors?{query}")["flavors"]) <= 1000, query
    for text in ("-1", "x", "1e3", "9" * 12, "0x10", "", "\u0661", " 1"):
        assert doors.call("alice", NOVA, "GET", f"/v2.1/flavors?limit={quote(text)}")[0] == 400, text
    for text in ("x" * 5000, "\0", "'", "%", "../x"):
        assert doors.call("alice", NOVA, "GET", f"/v2.1/flavors?marker={quote(text)}")[0] == 400, text


@pytest.mark.parametrize(("text", "expected"), [
    *((word, 403) for word in ("1", "true", "True", "", "yes", "on", "t", "y", "0&all_tenants=1")),
    *((word, 200) for word in ("0", "false", "no", "1&all_tenants=0")), ("2", 400), ("x", 400), ("\u00b9", 400),
])  # fmt: skip
def test_all_tenants_by_any_word(long_named: Doors, text: str, expected: int) -> None:
    for url in ("/v2.1/servers", "/v2.1/servers/detail"):
        status, data, _ = long_named.call("bob", NOVA, "GET", f"{url}?all_tenants={quote(text, safe='&=')}")
        assert status == expected, data
        assert data.get("servers", []) == []


def test_paths_that_do_not_exist_leave_nothing_in_memory(shared: Doors) -> None:
    def series() -> int:
        return sum(len(metric.samples) for metric in REGISTRY.collect())

    for n in range(3):
        for name, app in shared.apps.items():
            if name != "nova-api-metadata":
                asyncio.run(ask(app, "GET", f"/warm/{n}"))
    before = series()
    for n in range(300):
        for name, app in shared.apps.items():
            if name != "nova-api-metadata":
                app.call("GET", f"/no/such/{n}")
                app.call(f"METHOD{n}", "/healthcheck")
                app.call("GET", f"/v2.1/servers/{n}")
    for n in range(20):
        asyncio.run(ask(shared.apps[NOVA], "GET", f"/v2.1/no/{n}"))
        asyncio.run(ask(shared.apps[NOVA], f"METHOD{n}", "/"))
    assert series() - before < 40


# ── API-5: errors tell what is wrong with the request, not what is inside (OSSA-2019-003) ────────────────────

FAULTS = [
    ("Disk cannot be made: qemu-img: /var/lib/cumulet/servers/x/disk.new: Could not open '/etc/shadow': Denied",
     ["/var/lib", "/etc/"]),
    ("glance-api refuses /hosts/h1/images/x/file: 400 no", ["/hosts", "h1"]),
    ("qemu-system-x86_64: -drive file=/srv/a/b.img: no", ["/srv"]),
    ("x" * 5000, ["x" * 300]),
]  # fmt: skip


@pytest.mark.parametrize(("fault", "hidden"), FAULTS)
def test_a_hosts_words_are_cut_for_users(tmp_path: Path, fault: str, hidden: list[str]) -> None:
    doors = Doors(tmp_path)
    doors.add_host()
    server = doors.server()
    doors.run(server)
    with doors.db.transaction() as tx:
        generation = nova_hosts.list_intents(tx, "h1", "")[server].generation
        nova_hosts.record(tx, "h1", {server: Seen(generation, "off", fault=fault)})
    for url in (f"/v2.1/servers/{server}", "/v2.1/servers/detail", f"/v2.1/servers/{server}/os-instance-actions"):
        said = str(doors.good("alice", NOVA, "GET", url))
        for text in hidden:
            assert text not in said, (url, said)
    shown = doors.good("alice", NOVA, "GET", f"/v2.1/servers/{server}")["server"]
    assert shown["status"] == "ERROR"
    assert shown["fault"].keys() == {"code", "created", "message"}
    for_admin = doors.good("admin", NOVA, "GET", f"/v2.1/servers/{server}")["server"]["fault"]
    assert for_admin["details"] == fault[:4000]


@pytest.mark.parametrize("table", ["servers", "networks", "images", "users", "server_actions", "port_addresses"])
def test_a_broken_database_says_nothing_of_itself(memory: Path, table: str) -> None:
    """Whatever fails below: 503 or 500 in the API's own form; no SQL, no column, no path (``Doors`` looks)."""
    doors = Doors(memory, url=databases.url(memory / "cloud.sqlite"))
    headers = doors.headers("alice")
    databases.damage(doors.db.engine, f"drop table {table}")
    network = {"network": {"name": "n"}}
    for name, method, url, body in (
        (NOVA, "GET", "/v2.1/servers/detail", None), ("neutron-server", "GET", "/v2.0/networks", None),
        ("neutron-server", "POST", "/v2.0/networks", network), ("glance-api", "GET", "/v2/images", None),
        ("glance-api", "POST", "/v2/images", {"name": "x"}), ("keystone", "GET", "/v3/auth/projects", None),
        ("neutron-server", "GET", "/v2.0/ports", None),
    ):  # fmt: skip
        status, data, sent = doors.apps[name].call(method, url, body, headers)
        said = f"{data!r} {dict(sent)!r}"
        assert status in (200, 201, 500, 503), said
        for word in ("no such table", table if status >= 500 else "sqlite", "SELECT", "sqlalchemy", str(memory)):
            assert word not in said, said


def test_conflicts_name_no_columns(doors: Doors) -> None:
    """Two of one name, one id, one address: upstream's words, and never the database's."""
    image = "11111111-1111-4111-8111-111111111111"
    network, _ = doors.network()
    fixed = {"fixed_ips": [{"ip_address": "10.0.0.77"}], "mac_address": "fa:16:3e:00:00:01"}
    twice: list[tuple[str, str, str, Any]] = [
        ("admin", "keystone", "/v3/users", {"user": {"name": "twin"}}),
        ("admin", "keystone", "/v3/projects", {"project": {"name": "twin"}}),
        ("admin", "keystone", "/v3/roles", {"role": {"name": "twin"}}),
        ("admin", "keystone", "/v3/domains", {"domain": {"name": "twin"}}),
        ("admin", "keystone", "/v3/regions", {"region": {"id": "twin"}}),
        ("admin", NOVA, "/v2.1/flavors", {"flavor": {"name": "twin", "ram": 1, "vcpus": 1, "disk": 1, "id": "1"}}),
        ("alice", "glance-api", "/v2/images", {"id": image, "name": "x"}),
        ("alice", "neutron-server", "/v2.0/ports", {"port": {"network_id": network, **fixed}}),
    ]
    for who, name, url, body in twice:
        doors.good(who, name, "POST", url, body)
        status, data, _ = doors.call(who, name, "POST", url, body)
        assert status == 409, (url, data)
        assert "constraint" not in str(data).lower(), data
        assert "UNIQUE" not in str(data), data


def test_tracebacks_carry_no_values() -> None:
    """A statement that fails is logged with its traceback; what it was given stays out of it."""
    db = Database(databases.url(), LocalBus())
    with pytest.raises(Exception) as caught, db.read() as tx:
        tx.all(sa.text("select :user_data from nothing"), {"user_data": "canary"})
    chain: BaseException | None = caught.value
    while chain:
        assert "canary" not in str(chain)
        chain = chain.__cause__ or chain.__context__
