"""Consoles (family CON): whose screen a token opens, who may use it, how often, and where it is written down.

The road is real: a browser's websocket, nova-novncproxy, nova-consoleauth, nova-compute's console endpoint; only
the screens are simulated.
"""

import http.client
import logging
import socket
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa
from websockets.exceptions import ConnectionClosed, InvalidStatus

from cumulet.core import log
from cumulet.core.errors import Unavailable
from cumulet.core.secrets import host_token, sign
from cumulet.core.tables import agents
from cumulet.nova import consoleauth, novncproxy
from cumulet.nova.compute.console import console_app
from cumulet.nova.compute.screens import Screens
from cumulet.nova.console_tokens import API, PROXY, ConsoleTokens
from cumulet.nova.tables import console_tokens
from cumulet.sim.hypervisor import SimHypervisor
from cumulet.sim.machine import Machine
from tests.attacks.doors import SECRETS, Doors
from tests.nova.consoles import greet, open_console, serving, to_consoleauth, token_of

WISH = {"remote_console": {"protocol": "vnc", "type": "novnc"}}
OURS = "http://127.0.0.1:6080"


class Road:
    """Two hosts of which ``h1`` is served, and a server of Alice's on it."""

    def __init__(self, doors: Doors) -> None:
        self.doors, self.sim = doors, SimHypervisor()
        doors.add_host("h1")
        self.move_host("127.0.0.1")
        self.server = self.running("alice")
        self.tokens = to_consoleauth(doors.apps["nova-consoleauth"], PROXY, SECRETS.host_secret)

    def running(self, who: str) -> str:
        server = self.doors.server(who)
        self.doors.run(server)
        self.sim.machines[server] = machine = Machine()
        machine.state = "on"
        return server

    def move_host(self, address: str) -> None:
        """What the host says of its address."""
        with self.doors.db.transaction() as tx:
            mine = sa.and_(agents.c.binary == "nova-compute", agents.c.host == "h1")
            details = tx.value(sa.select(agents.c.details).where(mine))
            tx.write(sa.update(agents).where(mine).values(details={**details, "address": address}))

    def url(self, who: str = "alice", server: str = "") -> str:
        path = f"/v2.1/servers/{server or self.server}/remote-consoles"
        url: str = self.doors.good(who, "nova-api", "POST", path, WISH)["remote_console"]["url"]
        return url

    def token(self, who: str = "alice", server: str = "") -> str:
        return token_of(self.url(who, server))

    def screens(self, host: str = "h1") -> Screens:
        return Screens(partial(sign, host_token(SECRETS.host_secret, host)), self.sim.open_screen)

    def shows(self, token: str, **options: object) -> str:
        """The name of the screen that a browser gets with the token; empty if it gets none."""
        try:
            with open_console(self.proxy, token, **options) as console:
                return greet(console)[2].removeprefix("sim ")
        except InvalidStatus as error:
            refusal = error.response
        assert (refusal.status_code, len(refusal.body or b"")) == (403, 0) or refusal.status_code in (400, 414)
        return ""

    proxy = compute = 0


@pytest.fixture
def road(doors: Doors) -> Iterator[Road]:
    road = Road(doors)
    compute = console_app(lambda host, token: False, road.sim.console_log, road.screens())
    with (
        serving(compute) as road.compute,
        serving(novncproxy.build_app(doors.config, road.tokens, road.compute)) as road.proxy,
    ):
        yield road


def test_a_token_opens_the_screen_it_was_made_for(road: Road) -> None:
    """CON-1: of many servers on one host each token leads to its own, also after others have come and gone."""
    servers = [road.server, *(road.running("alice") for _ in range(3)), road.running("bob")]
    tokens = {server: road.token("bob" if server == servers[-1] else "alice", server) for server in servers}
    gone = servers.pop(1)
    road.sim.machines[gone].state = "off"
    road.doors.good("alice", "nova-api", "DELETE", f"/v2.1/servers/{gone}")
    servers.append(late := road.running("alice"))
    tokens[late] = road.token("alice", late)
    for server in reversed(servers):
        assert road.shows(tokens[server]) == server
    assert road.shows(tokens[gone]) == ""


def test_others_get_no_token(road: Road) -> None:
    path = f"/v2.1/servers/{road.server}/remote-consoles"
    for who, refused in (("bob", 404), ("rita", 403), ("nora", 401), ("nobody", 401), ("host:h1", 401)):
        status, _, _ = road.doors.call(who, "nova-api", "POST", path, WISH)
        assert status == refused or (who == "nora" and status in (403, 404)), (who, status)
    with road.doors.db.read() as tx:
        assert tx.all(sa.select(console_tokens)) == []


@pytest.mark.parametrize(
    "token",
    ["", "x", "%00", "'+or+1=1+--", "%25", "../x", "é", "a" * 50_000],
)
def test_guesses_open_nothing(road: Road, token: str) -> None:
    good = road.token()
    assert road.shows(token) == ""
    assert road.shows(f"bad{good}") == ""
    assert road.shows(good[:-1]) == ""
    assert road.shows(good.swapcase()) in ("", road.server if good == good.swapcase() else "")


def test_a_token_is_good_once_also_for_two_at_once(road: Road) -> None:
    token = road.token()
    found: list[str] = []
    browsers = [threading.Thread(target=lambda: found.append(road.shows(token))) for _ in range(8)]
    for browser in browsers:
        browser.start()
    for browser in browsers:
        browser.join()
    assert sorted(found) == [""] * 7 + [road.server]


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1", "https://127.0.0.1:6080",
                                    "http://127.0.0.1:60800", f"{OURS}.evil.example", "http://[::1]:6080", " ",
                                    ""])  # fmt: skip
def test_a_page_of_somebody_elses_opens_nothing(road: Road, origin: str) -> None:
    """CON-2: also under a name of its own that leads here, and however often it tries; nor is the token lost."""
    token = road.token()
    evil = {"Host": origin.partition("//")[2] or "evil.example"}
    for headers in ({}, evil, {"X-Forwarded-Host": origin}, {"Forwarded": f"host={origin}"}):
        assert road.shows(token, origin=origin, additional_headers=headers) == ""
    assert road.shows(token, origin=OURS, additional_headers={"Host": "whatever"}) == road.server


def test_behind_another_name_that_name_counts(road: Road) -> None:
    road.doors.config.console.url = "https://consoles.example.org/vnc/"
    try:
        with serving(novncproxy.build_app(road.doors.config, road.tokens, road.compute)) as road.proxy:
            assert road.url().startswith("https://consoles.example.org/vnc/vnc_lite.html?path=")
            assert road.shows(road.token(), origin=OURS) == ""
            assert road.shows(road.token(), origin="https://consoles.example.org") == road.server
    finally:
        road.doors.config.console.url = ""


def test_no_token_is_written_down(road: Road, tmp_path: Path) -> None:
    """CON-3: not in the log of any service at any level, nor in the database."""
    before, level = logging.getLogger().handlers[:], logging.getLogger().level
    log.setup("consoles", tmp_path, logging.DEBUG)
    try:
        used, shown, bad = road.token(), road.token(), road.token()
        assert road.shows(used) == road.server
        assert road.shows(used) == ""
        assert road.shows(bad, origin="http://evil.example") == ""
        for who in ("admin", "alice", "nobody"):
            road.doors.call(who, "nova-api", "GET", f"/v2.1/os-console-auth-tokens/{shown}")
        text = (tmp_path / "consoles.log").read_text()
    finally:
        logging.getLogger().handlers[:] = before
        logging.getLogger().setLevel(level)
    assert f"server {road.server} is shown to 127.0.0.1" in text
    assert "/v2.1/os-console-auth-tokens/{token}" in text
    for token in (used, shown, bad):
        assert token not in text
    for table in ("console_tokens", "notifications", "server_actions"):
        with road.doors.db.read() as tx:
            rows = str([tuple(row) for row in tx.all(sa.text(f"select * from {table}"))])
        assert not [token for token in (used, shown, bad) if token in rows], table


def test_the_page_takes_nobody_elsewhere(road: Road) -> None:
    """CON-4: nothing but the page's own files, and no redirect whatever the path."""
    (road.doors.place / "secret.js").write_text("secret")
    for path in (
        "//evil.example/..", "//evil.example/%2e%2e", "/\\evil.example", "/novnc", "/novnc/", "/novnc/core", "//",
        "/../../../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/novnc/../../../../etc/passwd", "/console_page/",
        f"/novnc/{road.doors.place}/secret.js", f"/{road.doors.place}/secret.js", "/novncproxy.py", "/%00", "/.",
        "http://evil.example/", "/websockify", "/vnc_lite.html/", "/vnc_lite.html/..", "/healthcheck/",
    ):  # fmt: skip
        connection = http.client.HTTPConnection("127.0.0.1", road.proxy)
        connection.putrequest("GET", path, skip_host=True)
        connection.putheader("Host", "evil.example")
        connection.endheaders()
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        assert answer.status in (400, 404) or answer.headers.get("Location", "").startswith(
            ("http://evil.example/vnc_lite.html", "http://evil.example/healthcheck")
        ), (path, answer.status)
        assert b"root:" not in body, path
        assert b"secret" not in body, path


def test_a_host_that_names_another_address_gets_nothing_there(road: Road) -> None:
    """CON-5: what answers there has no token of the host, so it can give no proof."""
    token = road.token()
    other = console_app(lambda host, token: False, road.sim.console_log, road.screens("h2"))
    with serving(other) as port, serving(novncproxy.build_app(road.doors.config, road.tokens, port)) as road.proxy:
        assert road.shows(token) == ""


def test_what_answers_without_a_proof_hears_and_says_nothing(road: Road) -> None:
    from websockets.sync.server import ServerConnection, serve

    heard: list[object] = []

    def listen(connection: ServerConnection) -> None:
        connection.send(b"RFB 003.008\n")
        heard.extend(connection)

    with serve(listen, "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever).start()
        port = server.socket.getsockname()[1]
        with serving(novncproxy.build_app(road.doors.config, road.tokens, port)) as road.proxy:
            assert road.shows(road.token()) == ""
        server.shutdown()
    assert heard == []


@pytest.mark.parametrize(
    "address", ["", "127.0.0.1:22", "localhost/x", "[::1]", "no.such.name.invalid", "a b", "@"]
)
def test_an_address_that_is_none_is_no_trouble(road: Road, address: str) -> None:
    token = road.token()
    road.move_host(address)
    assert road.shows(token) == ""
    road.move_host("127.0.0.1")
    assert road.shows(road.token()) == road.server


def test_only_the_proxy_takes_and_only_the_api_issues(road: Road) -> None:
    token, app = road.token(), road.doors.apps["nova-consoleauth"]
    api, proxy = (to_consoleauth(app, name, SECRETS.host_secret) for name in (API, PROXY))
    strangers = [to_consoleauth(app, name, secret) for name in (API, PROXY, "h1") for secret in ("", "guess")]
    strangers.append(to_consoleauth(app, "h1", SECRETS.host_secret))

    def refused(tokens: ConsoleTokens, *operations: str) -> None:
        for operation in operations:
            with pytest.raises(Unavailable):
                getattr(tokens, operation)(road.server if operation == "issue" else token)

    refused(api, "take")
    refused(proxy, "issue", "find")
    for stranger in strangers:
        refused(stranger, "issue", "find", "take")
    host = {"X-Cumulet-Host": "nova-api", "X-Cumulet-Host-Token": host_token(SECRETS.host_secret, "nova-api")}
    assert road.doors.ask("nova-consoleauth", "POST", "/tokens/take", {"token": token}, host)[0] == 401
    assert road.shows(token) == road.server


def test_a_browser_that_misbehaves_ends_its_own_console_only(road: Road) -> None:
    """Text, a message that is too long, an end without a good-bye."""
    other = road.token(server=(second := road.running("alice")))
    with open_console(road.proxy, other) as calm:
        assert greet(calm)[2] == f"sim {second}"
        for message in ("text", b"x" * ((1 << 20) + 1), b""):
            with open_console(road.proxy, road.token()) as console:
                greet(console)
                console.send(message)
                with pytest.raises(ConnectionClosed):
                    console.recv(10)
        with open_console(road.proxy, road.token()) as console:
            greet(console)
            console.socket.shutdown(socket.SHUT_RDWR)
        calm.send(b"\x03\x00" + bytes(8))
        assert calm.recv(10)


def test_a_lost_console_frees_its_place(road: Road, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(30):
        with open_console(road.proxy, road.token()) as console:
            console.socket.shutdown(socket.SHUT_RDWR)
    assert road.shows(road.token()) == road.server


def test_stopped_or_deleted_ends_the_console(road: Road) -> None:
    for how in ("stop", "delete"):
        server = road.running("alice")
        unused = road.token(server=server)
        with open_console(road.proxy, road.token(server=server)) as console:
            greet(console)
            if how == "stop":
                body = {"os-stop": None}
                road.doors.good("alice", "nova-api", "POST", f"/v2.1/servers/{server}/action", body)
            else:
                road.doors.good("alice", "nova-api", "DELETE", f"/v2.1/servers/{server}")
            road.sim.machines[server].state = "off"
            with pytest.raises(ConnectionClosed):
                console.recv(10)
        assert road.shows(unused) == ""


def test_tokens_do_not_pile_up(road: Road) -> None:
    for _ in range(3 * consoleauth.MOST_TOKENS):
        road.token()
    with road.doors.db.read() as tx:
        assert len(tx.all(sa.select(console_tokens))) == consoleauth.MOST_TOKENS
