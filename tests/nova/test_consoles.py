"""VNC consoles: URLs and tokens by nova-api and nova-consoleauth, the way from a browser to a simulated screen."""

import http.client
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa
from websockets.exceptions import ConnectionClosed, InvalidStatus

from cumulet.core import clock
from cumulet.core.errors import Retry
from cumulet.core.reconcile import Loop
from cumulet.core.secrets import host_token, sign
from cumulet.nova import consoleauth, novncproxy
from cumulet.nova.compute.console import console_app
from cumulet.nova.compute.screens import MOST_SCREENS, Screens
from cumulet.nova.console_tickets import PROOF, TICKET, make_proof, make_ticket
from cumulet.nova.console_tokens import PROXY, Screen
from cumulet.nova.tables import console_tokens
from cumulet.sim.hypervisor import SimHypervisor
from cumulet.sim.machine import Machine
from tests.nova.api_cloud import SECRETS, Cloud
from tests.nova.consoles import greet, open_console, serving, to_consoleauth, token_of

NOBODY = "00000000-0000-0000-0000-000000000000"
BY_HOST = partial(sign, host_token(SECRETS.host_secret, "h1"))
WISH = {"remote_console": {"protocol": "vnc", "type": "novnc"}}


@pytest.fixture
def cloud() -> Cloud:
    cloud = Cloud()
    cloud.add_host(address="127.0.0.1")
    return cloud


def console(cloud: Cloud, server: str, who: str = "alice") -> str:
    """The token of a new console."""
    made = cloud.good(who, "POST", f"/servers/{server}/remote-consoles", WISH)["remote_console"]
    return token_of(made["url"])


def take(cloud: Cloud, token: str) -> Screen | None:
    return to_consoleauth(cloud.consoleauth, PROXY).take(token)


def kept(cloud: Cloud) -> int:
    with cloud.db.read() as tx:
        return len(tx.all(sa.select(console_tokens)))


# ── the API ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_url_for_a_server_that_is_on(cloud: Cloud) -> None:
    server = cloud.running()
    url = f"/servers/{server}/remote-consoles"
    made = cloud.good("alice", "POST", url, WISH)["remote_console"]
    token = token_of(made["url"])
    page = f"http://127.0.0.1:6080/vnc_lite.html?path=%3Ftoken%3D{token}"
    assert made == {"protocol": "vnc", "type": "novnc", "url": page}
    assert len(token) >= 40
    old = {"os-getVNCConsole": {"type": "novnc"}}
    answer = cloud.good("alice", "POST", f"/servers/{server}/action", old, "2.5")["console"]
    assert answer["type"] == "novnc"
    assert token_of(answer["url"]) != token
    assert cloud.refused("alice", "POST", url, WISH, "2.5")[0] == 404
    assert cloud.refused("alice", "POST", f"/servers/{server}/action", old, "2.6")[0] in (400, 404)
    cloud.good("admin", "POST", url, WISH)


@pytest.mark.parametrize(
    ("protocol", "kind", "message"),
    [
        ("vnc", "xvpvnc", "Invalid console type xvpvnc"),
        ("spice", "spice-html5", "Unavailable console type spice-html5."),
        ("spice", "spice-direct", "Unavailable console type spice-direct."),
        ("serial", "serial", "Unavailable console type serial."),
        ("rdp", "rdp-html5", "Unavailable console type rdp-html5."),
        ("mks", "webmks", "Unavailable console type webmks."),
        ("vnc", "x", "Invalid input"),
        ("x", "novnc", "Invalid input"),
    ],
)
def test_other_consoles_are_unavailable(cloud: Cloud, protocol: str, kind: str, message: str) -> None:
    wish = {"remote_console": {"protocol": protocol, "type": kind}}
    status, said = cloud.refused("alice", "POST", f"/servers/{cloud.running()}/remote-consoles", wish)
    assert (status, said[: len(message)]) == (400, message)


def test_bad_wishes(cloud: Cloud) -> None:
    server = cloud.running()
    url = f"/servers/{server}/remote-consoles"
    good = WISH["remote_console"]
    wishes: list[Any] = [
        {},
        {"remote_console": {}},
        {"remote_console": {**good, "host": "h2"}},
        {"remote_console": 5},
    ]
    for bad in wishes:
        assert cloud.refused("alice", "POST", url, bad)[0] == 400
    mks = {"remote_console": {"protocol": "mks", "type": "webmks"}}
    assert "is not one of" in cloud.refused("alice", "POST", url, mks, "2.7")[1]
    old = {"os-getVNCConsole": {"type": "spice-html5"}}
    assert cloud.refused("alice", "POST", f"/servers/{server}/action", old, "2.1")[0] == 400


def test_only_members_of_its_project_get_one(cloud: Cloud) -> None:
    server = cloud.running()
    url = f"/servers/{server}/remote-consoles"
    assert cloud.refused("bob", "POST", url, WISH)[0] == 404
    assert cloud.refused("rita", "POST", url, WISH)[0] == 403
    assert cloud.refused("alice", "POST", f"/servers/{NOBODY}/remote-consoles", WISH)[0] == 404
    assert kept(cloud) == 0


def test_a_server_that_is_not_on_has_none(cloud: Cloud) -> None:
    new = cloud.create()
    not_ready = (409, f"Instance {new} is not ready")
    assert cloud.refused("alice", "POST", f"/servers/{new}/remote-consoles", WISH) == not_ready
    cloud.place()
    assert cloud.refused("alice", "POST", f"/servers/{new}/remote-consoles", WISH) == not_ready
    cloud.report(new, "on")
    console(cloud, new)
    cloud.act("alice", new, os_stop=None)
    assert cloud.refused("alice", "POST", f"/servers/{new}/remote-consoles", WISH) == not_ready


def test_without_nova_consoleauth_it_is_unavailable(cloud: Cloud) -> None:
    server = cloud.running()
    cloud.app.extras.console_tokens._controller._app = consoleauth.build_app(  # of another cloud: knows nobody
        Cloud().env_with("another secret")
    )
    status, message = cloud.refused("alice", "POST", f"/servers/{server}/remote-consoles", WISH)
    assert (status, message) == (503, "nova-consoleauth does not answer, try again later")


def test_where_a_token_leads_to(cloud: Cloud) -> None:
    server = cloud.running()
    token = console(cloud, server)
    url = f"/os-console-auth-tokens/{token}"
    for _ in range(2):  # looking does not use it up
        assert cloud.get("admin", url)["console"] == {
            "instance_uuid": server,
            "host": "127.0.0.1",
            "port": 8784,
            "internal_access_path": f"/servers/{server}/screen",
        }
    assert cloud.refused("admin", "GET", url, version="2.30") == (
        400,
        "The requested console type details are not accessible",
    )
    assert cloud.refused("admin", "GET", url + "x") == (404, "Token not found")
    assert cloud.refused("alice", "GET", url)[0] == 403
    assert take(cloud, token)
    assert cloud.refused("admin", "GET", url)[0] == 404


# ── tokens ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_token_is_good_once(cloud: Cloud) -> None:
    server = cloud.running()
    token = console(cloud, server)
    screen = take(cloud, token)
    assert screen
    assert (screen.server_id, screen.address, screen.path) == (server, "127.0.0.1", f"/servers/{server}/screen")
    assert take(cloud, token) is None
    assert take(cloud, "x") is None
    assert kept(cloud) == 0


def tidy(cloud: Cloud) -> int:
    """A pass of the loop; how many tokens are left."""
    Loop(consoleauth.Tidier(cloud.db, 30).reconciler()).run_once()
    return kept(cloud)


def test_tokens_expire(cloud: Cloud) -> None:
    server = cloud.running()
    cloud.config.console.token_seconds = 0
    late = console(cloud, server)
    cloud.config.console.token_seconds = 600
    good = console(cloud, server)
    assert take(cloud, late) is None
    assert tidy(cloud) == 1
    assert take(cloud, good)


@pytest.mark.parametrize("how", ["stop", "suspend", "delete", "went off", "moved"])
def test_a_server_that_goes_takes_its_tokens_along(cloud: Cloud, how: str) -> None:
    server, other = cloud.running(), cloud.running()
    tokens = [console(cloud, one) for one in (server, server, other)]
    cloud.hints.clear()
    match how:
        case "stop":
            cloud.act("alice", server, os_stop=None)
        case "suspend":
            cloud.act("alice", server, suspend=None)
        case "delete":
            cloud.good("alice", "DELETE", f"/servers/{server}")
        case "went off":
            cloud.report(server, "off", reached=True)
        case "moved":
            with cloud.db.transaction() as tx:
                of_it = console_tokens.c.server_id == server
                tx.write(sa.update(console_tokens).where(of_it).values(host="h0"))
    assert take(cloud, tokens[0]) is None
    assert how in ("went off", "moved") or ("nova.servers", server) in cloud.hints
    assert tidy(cloud) == 1
    assert take(cloud, tokens[2])


def test_a_server_has_so_many_tokens_and_no_more(cloud: Cloud) -> None:
    server = cloud.running()
    first = console(cloud, server)
    for _ in range(consoleauth.MOST_TOKENS + 5):
        last = console(cloud, server)
    assert kept(cloud) == consoleauth.MOST_TOKENS
    assert take(cloud, first) is None
    assert take(cloud, last)


def test_gone_servers_are_forgotten_with_their_tokens(cloud: Cloud) -> None:
    from cumulet.nova import conductor

    server = cloud.running()
    console(cloud, server)
    cloud.good("alice", "DELETE", f"/servers/{server}")
    cloud.report(server, "absent")
    with cloud.db.transaction() as tx:
        conductor.forget_servers(tx, clock.later(60))
    assert kept(cloud) == 0


# ── from the browser to the screen ───────────────────────────────────────────────────────────────────────────


@dataclass
class Road:
    cloud: Cloud
    sim: SimHypervisor
    proxy: int = 0
    compute: int = 0
    shows: list[str] = field(default_factory=list)

    def running(self) -> str:
        server = self.cloud.running()
        self.sim.machines[server] = machine = Machine()
        machine.state = "on"
        return server


@pytest.fixture
def road(cloud: Cloud) -> Iterator[Road]:
    road = Road(cloud, SimHypervisor())
    screens = Screens(BY_HOST, road.sim.open_screen)
    with serving(console_app(lambda host, token: False, road.sim.console_log, screens)) as road.compute:
        tokens = to_consoleauth(cloud.consoleauth, PROXY)
        with serving(novncproxy.build_app(cloud.config, tokens, road.compute)) as road.proxy:
            yield road


def test_a_browser_sees_the_screen(road: Road) -> None:
    server = road.running()
    with open_console(road.proxy, console(road.cloud, server), subprotocols=["binary"]) as screen:
        assert screen.subprotocol == "binary"
        assert greet(screen) == (8, 4, f"sim {server}")
        screen.send(b"\x03\x00" + bytes(8))
        assert screen.recv(10)[:4] == b"\x00\x00\x00\x01"
    with open_console(road.proxy, console(road.cloud, server)) as screen:
        assert screen.subprotocol is None
        assert greet(screen)[2] == f"sim {server}"


@pytest.mark.parametrize("state", ["off", "suspended", "crashed"])
def test_the_console_ends_with_its_guest(road: Road, state: str) -> None:
    server = road.running()
    with open_console(road.proxy, console(road.cloud, server)) as screen:
        greet(screen)
        road.sim.machines[server].state = state
        with pytest.raises(ConnectionClosed):
            screen.recv(10)


def test_the_screen_is_let_go_when_the_browser_goes(road: Road) -> None:
    server = road.running()
    for _ in range(2 * MOST_SCREENS):  # one after another
        with open_console(road.proxy, console(road.cloud, server)) as screen:
            greet(screen)


def test_a_screen_is_shown_to_so_many_and_no_more(road: Road) -> None:
    server = road.running()
    looking = [open_console(road.proxy, console(road.cloud, server)) for _ in range(MOST_SCREENS)]
    with pytest.raises(InvalidStatus):
        open_console(road.proxy, console(road.cloud, server))
    for screen in looking:
        greet(screen)
        screen.close()


def test_the_page_and_its_scripts(road: Road) -> None:
    def get(path: str) -> tuple[int, str, http.client.HTTPMessage]:
        connection = http.client.HTTPConnection("127.0.0.1", road.proxy)
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read().decode()
        connection.close()
        return answer.status, body, answer.headers

    for path in ("/vnc_lite.html?path=%3Ftoken%3Dx", "/vnc_auto.html"):
        status, body, headers = get(path)
        assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        assert "noVNC" in body
        assert '<script type="module" src="console.js">' in body
        assert headers["Referrer-Policy"] == "no-referrer"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
    status, body, headers = get("/console.js")
    assert (status, headers["Content-Type"].split(";")[0]) == (200, "text/javascript")
    assert get("/console.css")[0] == 200
    assert get("/healthcheck")[:2] == (200, "OK")
    assert get("/")[0] == 404


def test_the_page_shows_novnc_if_it_is_installed(tmp_path: pytest.TempPathFactory) -> None:
    found = novncproxy.find_novnc()
    files = novncproxy.list_files(found)
    assert ("/novnc/core/rfb.js" in files) == (found is not None)
    assert set(novncproxy.list_files(None)) == {
        "/vnc_lite.html",
        "/vnc_auto.html",
        "/console.js",
        "/console.css",
    }


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("http://cloud.example.org:6080", "http://cloud.example.org:6080"),
        ("https://cloud.example.org:443/consoles", "https://cloud.example.org"),
        ("http://[2001:db8::1]:6080", "http://[2001:db8::1]:6080"),
        ("http://cloud:80", "http://cloud"),
    ],
)
def test_origins(url: str, origin: str) -> None:
    assert novncproxy.origin_of(url) == origin


# ── nova-compute's end ───────────────────────────────────────────────────────────────────────────────────────


def test_a_ticket_opens_one_screen_of_one_host_for_a_while(road: Road) -> None:
    import time

    from websockets.sync.client import connect

    server, other = road.running(), road.running()
    now = time.time()
    by_other_host = partial(sign, host_token(SECRETS.host_secret, "h2"))
    good = make_ticket(BY_HOST, server, now)
    url = f"ws://127.0.0.1:{road.compute}/servers/{server}/screen"
    for bad in (
        "", "x", "1.x", "é.é", f"{int(now) + 10}.x", good[:-1], make_ticket(BY_HOST, other, now),
        make_ticket(BY_HOST, server, now - 100), make_ticket(BY_HOST, server, now + 1000),
        make_ticket(by_other_host, server, now), host_token(SECRETS.host_secret, "h1"),
    ):  # fmt: skip
        with pytest.raises(InvalidStatus):
            connect(url, additional_headers={TICKET: bad.encode().decode("latin-1")}, proxy=None)
    with connect(url, additional_headers={TICKET: good}, proxy=None, compression=None) as screen:
        assert screen.response
        assert screen.response.headers[PROOF] == make_proof(BY_HOST, good)
        assert greet(screen)[2] == f"sim {server}"
    road.sim.machines[server].state = "off"
    with pytest.raises(InvalidStatus):
        connect(url, additional_headers={TICKET: good}, proxy=None)


def test_there_is_no_screen_of_a_server_that_is_off() -> None:
    sim = SimHypervisor()
    with pytest.raises(Retry):
        sim.open_screen("nobody")
