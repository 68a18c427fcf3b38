"""A quota is a quota, however many ask at once and whatever happens on the way (families QUO-1 and QUO-2)."""

import asyncio
import json
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from cumulet.nova.tables import quota_guards, servers
from tests import databases
from tests.attacks.doors import Doors
from tests.attacks.street import KEY
from tests.glance.rig import ask

NOVA, NEUTRON = "nova-api", "neutron-server"
CALLERS, QUOTA = 50, 7


@pytest.fixture
def crowd(memory: Path) -> Doors:
    """On a file, so that each caller has a connection of their own, as in the real cloud."""
    doors = Doors(memory, url=databases.url(memory / "cloud.sqlite"))
    doors.add_host()
    return doors


def at_once(calls: Iterable[Callable[[], int]]) -> Counter[int]:
    """Everybody waits for everybody, then all call; how often each status came."""
    work = list(calls)
    ready, statuses = threading.Barrier(len(work)), Counter[int]()

    def one(call: Callable[[], int]) -> None:
        ready.wait()
        statuses[call()] += 1

    threads = [threading.Thread(target=one, args=(call,)) for call in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return statuses


def limit(doors: Doors, **bounds: int) -> None:
    if "instances" in bounds or "key_pairs" in bounds:
        doors.good("admin", NOVA, "PUT", f"/v2.1/os-quota-sets/{doors.ids['red']}", {"quota_set": bounds})
    else:
        doors.good("admin", NEUTRON, "PUT", f"/v2.0/quotas/{doors.ids['red']}", {"quota": bounds})


@pytest.mark.parametrize("kind", ["network", "port", "floatingip", "router", "security_group", "subnet"])
def test_fifty_at_once_make_no_more_networks_than_they_may(crowd: Doors, kind: str) -> None:
    network, _ = crowd.network()
    public = crowd.public_network()
    url = f"/v2.0/{kind.replace('_', '-')}s"
    before = crowd.good("alice", NEUTRON, "GET", url)[f"{kind}s"]
    mine = sum(one["project_id"] == crowd.ids["red"] for one in before)
    limit(crowd, **{kind: QUOTA})
    wishes: dict[str, Callable[[int], dict[str, Any]]] = {
        "port": lambda n: {"network_id": network}, "floatingip": lambda n: {"floating_network_id": public},
        "subnet": lambda n: {"network_id": network, "ip_version": 4, "cidr": f"10.9.{n}.0/24"},
    }  # fmt: skip
    wish: Callable[[int], Any] = wishes.get(kind, lambda n: {"name": f"x{n}"})

    def create(n: int) -> Callable[[], int]:
        return lambda: crowd.call("alice", NEUTRON, "POST", url, {kind: wish(n)})[0]

    statuses = at_once(create(n) for n in range(CALLERS))
    assert set(statuses) <= {201, 409, 503}, statuses
    after = [one for one in crowd.good("alice", NEUTRON, "GET", url)[f"{kind}s"]]
    assert sum(one["project_id"] == crowd.ids["red"] for one in after) == QUOTA
    assert statuses[201] == QUOTA - mine


def test_fifty_at_once_make_no_more_servers_than_they_may(crowd: Doors) -> None:
    """Alone and several in one request; with what they take of ports, processors and memory."""
    network, _ = crowd.network()
    image, flavor = crowd.image(), crowd.flavor()
    limit(crowd, instances=QUOTA, cores=QUOTA, ram=512 * QUOTA)
    wish = {"name": "x", "imageRef": image, "flavorRef": flavor, "networks": [{"uuid": network}]}

    def create(n: int) -> Callable[[], int]:
        more = {"min_count": 2, "max_count": 3} if n % 5 == 0 else {}
        body = {"server": {**wish, **more}}
        return lambda: crowd.call("alice", NOVA, "POST", "/v2.1/servers", body)[0]

    statuses = at_once(create(n) for n in range(CALLERS))
    assert set(statuses) <= {202, 403, 503}, statuses
    listed = crowd.good("alice", NOVA, "GET", "/v2.1/servers")["servers"]
    assert len(listed) == QUOTA
    ports = crowd.good("alice", NEUTRON, "GET", f"/v2.0/ports?network_id={network}")["ports"]
    assert sum(port["device_owner"] == "compute:nova" for port in ports) == QUOTA
    used = crowd.good("alice", NOVA, "GET", "/v2.1/limits")["limits"]["absolute"]
    assert (used["totalInstancesUsed"], used["totalCoresUsed"], used["totalRAMUsed"]) == (QUOTA, QUOTA, 512 * QUOTA)


def test_fifty_at_once_make_no_more_keys_than_they_may(crowd: Doors) -> None:
    limit(crowd, key_pairs=QUOTA)

    def create(n: int) -> Callable[[], int]:
        body = {"keypair": {"name": f"k{n}", "public_key": KEY}}
        return lambda: crowd.call("alice", NOVA, "POST", "/v2.1/os-keypairs", body)[0]

    statuses = at_once(create(n) for n in range(CALLERS))
    assert statuses == {201: QUOTA, 403: CALLERS - QUOTA}
    with crowd.db.read() as tx:
        guard = sa.select(quota_guards.c.generation).where(quota_guards.c.project_id == crowd.ids["alice"])
        assert tx.value(guard) >= QUOTA, "counted under a lock that every database has"


def test_one_port_goes_to_one_server(crowd: Doors) -> None:
    """And one address to one port: 30 who want the same."""
    network, _ = crowd.network()
    port = crowd.port("alice", network)
    image, flavor = crowd.image(), crowd.flavor()
    body = {"server": {"name": "x", "imageRef": image, "flavorRef": flavor, "networks": [{"port": port}]}}
    statuses = at_once([lambda: crowd.call("alice", NOVA, "POST", "/v2.1/servers", body)[0]] * 30)
    assert statuses[202] == 1, statuses
    assert len(crowd.good("alice", NOVA, "GET", "/v2.1/servers")["servers"]) == 1
    wish = {"port": {"network_id": network, "fixed_ips": [{"ip_address": "10.0.0.200"}]}}
    statuses = at_once([lambda: crowd.call("alice", NEUTRON, "POST", "/v2.0/ports", wish)[0]] * 30)
    assert statuses[201] == 1, statuses


def test_what_fails_takes_nothing(doors: Doors) -> None:
    """No room for the ports: no server, no claim, no history, and the same room as before."""
    network, _ = doors.network()
    limit(doors, port=2)
    for wish in ({"networks": [{"uuid": network}] * 3}, {"networks": [{"uuid": network}], "min_count": 3}):
        body = {"name": "x", "imageRef": doors.image(), "flavorRef": doors.flavor(f"f{len(wish)}"), **wish}
        status, data, _ = doors.call("alice", NOVA, "POST", "/v2.1/servers", {"server": body})
        assert status == 403, data
    with doors.db.read() as tx:
        assert tx.value(sa.select(sa.func.count()).select_from(servers)) == 0
    used = doors.good("alice", NOVA, "GET", "/v2.1/limits")["limits"]["absolute"]
    assert used["totalInstancesUsed"] == used["totalCoresUsed"] == 0
    assert doors.good("alice", NEUTRON, "GET", f"/v2.0/ports?network_id={network}")["ports"] == []
    doors.port("alice", network)
    doors.port("alice", network)


def test_what_is_ordered_away_counts_until_it_is_gone(doors: Doors) -> None:
    """Create and delete in turn: as long as a host has it, it takes its place in the quota."""
    doors.add_host()
    limit(doors, instances=2)
    for _ in range(2):
        server = doors.server()
        doors.run(server)
        doors.good("alice", NOVA, "DELETE", f"/v2.1/servers/{server}")
    body = {
        "name": "x",
        "imageRef": doors.ids["image of alice"],
        "flavorRef": doors.ids["flavor"],
        "networks": "none",
    }
    assert doors.call("alice", NOVA, "POST", "/v2.1/servers", {"server": body})[0] == 403


def test_quotas_are_not_set_by_those_they_bind(doors: Doors) -> None:
    for who in ("alice", "mona", "rita"):
        for project in ("red", "blue"):
            url = f"/v2.1/os-quota-sets/{doors.ids[project]}"
            assert doors.call(who, NOVA, "PUT", url, {"quota_set": {"cores": -1}})[0] == 403
            assert doors.call(who, NOVA, "DELETE", url)[0] == 403
            url = f"/v2.0/quotas/{doors.ids[project]}"
            assert doors.call(who, NEUTRON, "PUT", url, {"quota": {"port": -1}})[0] == 403
            assert doors.call(who, NEUTRON, "DELETE", url)[0] == 403
    values: tuple[Any, ...] = (-2, 2**31, 1.5, "many", None, [], True)
    for value in values:
        url = f"/v2.1/os-quota-sets/{doors.ids['red']}"
        assert doors.call("admin", NOVA, "PUT", url, {"quota_set": {"cores": value}})[0] == 400, value
        url = f"/v2.0/quotas/{doors.ids['red']}"
        assert doors.call("admin", NEUTRON, "PUT", url, {"quota": {"port": value}})[0] == 400, value


# ── QUO-2: uploads that lose what they stand on (OSSA-2015-003, OSSA-2015-020) ───────────────────────────────


@pytest.mark.parametrize("event", ["deleted", "token ended", "project disabled", "client gone"])
def test_an_upload_whose_ground_goes_away_leaves_nothing_or_an_image(crowd: Doors, event: str) -> None:
    kept = os.listdir(crowd.config.state / "images")
    wish = {"name": "x", "disk_format": "raw", "container_format": "bare"}
    image = crowd.good("alice", "glance-api", "POST", "/v2/images", wish)["id"]
    headers = crowd.headers("alice", Content_Type="application/octet-stream")

    def data() -> Iterable[bytes]:
        yield b"x" * 100_000
        if event == "deleted":
            crowd.good("alice", "glance-api", "DELETE", f"/v2/images/{image}")
        elif event == "token ended":
            mine = crowd.tokens["alice"]
            crowd.good("alice", "keystone", "DELETE", "/v3/auth/tokens", X_Subject_Token=mine)
        elif event == "project disabled":
            change = {"project": {"enabled": False}}
            crowd.good("admin", "keystone", "PATCH", f"/v3/projects/{crowd.ids['red']}", change)
        yield b"y" * 100_000

    url, gone = f"/v2/images/{image}/file", event == "client gone"
    answer = asyncio.run(ask(crowd.apps["glance-api"], "PUT", url, data(), headers, disconnect=gone))
    files = set(os.listdir(crowd.config.state / "images")) - set(kept)
    if event == "deleted":
        assert (answer.status, files) == (410, set())
    elif gone:
        assert files == set()
        assert crowd.good("admin", "glance-api", "GET", f"/v2/images/{image}")["status"] == "queued"
    else:
        shown = crowd.good("admin", "glance-api", "GET", f"/v2/images/{image}")
        assert (shown["status"], len(files)) == (("active", 1) if answer.status == 204 else ("queued", 0))


def test_several_controllers_make_no_more_than_they_may(crowd: Doors) -> None:
    """Processes that share nothing but the database: servers with their ports, one quota, one small network."""
    network, _ = crowd.network()
    limit(crowd, instances=QUOTA, cores=QUOTA)
    wish = {"imageRef": crowd.image(), "flavorRef": crowd.flavor(), "networks": [{"uuid": network}]}

    def create(n: int) -> Callable[[], int]:
        body = {"server": {**wish, "name": f"x{n}"}}
        return lambda: crowd.call("alice", NOVA, "POST", "/v2.1/servers", body)[0]

    children = [in_a_process(crowd, lambda: at_once(create(n) for n in range(10))) for _ in range(3)]
    statuses = sum((Counter(json.loads(told())) for told in children), Counter[str]())
    assert set(statuses) <= {"202", "403", "503"}, statuses
    assert statuses["202"] == QUOTA
    assert len(crowd.good("alice", NOVA, "GET", "/v2.1/servers")["servers"]) == QUOTA
    ports = crowd.good("alice", NEUTRON, "GET", f"/v2.0/ports?network_id={network}")["ports"]
    ports = [port for port in ports if port["device_owner"] == "compute:nova"]
    assert len({port["fixed_ips"][0]["ip_address"] for port in ports}) == len(ports) == QUOTA


def in_a_process(doors: Doors, work: Callable[[], Counter[int]]) -> Callable[[], str]:
    """Begin the work in a child; a function that waits for what it tells."""
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            doors.db.dispose()
            os.write(writable, json.dumps(work()).encode())
        finally:
            os._exit(0)
    os.close(writable)

    def told() -> str:
        os.waitpid(child, 0)
        with os.fdopen(readable) as pipe:
            return pipe.read()

    return told
