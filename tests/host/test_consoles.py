"""The VNC console of a real server: a websocket, the proxy, nova-compute, QEMU; and each of them killed."""

import json
import re
import subprocess
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.machine import BIN, Machine, wait_for

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("first_server")]
LOOK = """
import sys
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
try:
    with connect(sys.argv[1], subprotocols=["binary"], proxy=None, compression=None) as console:
        print(console.recv(60).decode(), end="", flush=True)
        try:
            console.recv(300)
        except ConnectionClosed:
            print("closed")
except InvalidStatus as refused:
    print(refused.response.status_code)
"""
"""The screen's first words; then, when the connection ends, that it did."""


def console_url(cloud: Machine, server: str = "first") -> str:
    url: str = cloud.ask("console", "url", "show", "--novnc", server)["url"]
    return url


def websocket(url: str) -> str:
    """Where the page would connect to."""
    parts = urlsplit(url)
    (path,) = parse_qs(parts.query)["path"]
    return f"ws://{parts.netloc}/{path}"


def look(cloud: Machine, url: str) -> str:
    """Until the screen's first words, or a refusal."""
    viewer = start(cloud, url)
    assert viewer.stdout
    words = viewer.stdout.readline()
    viewer.terminate()
    viewer.wait()
    return words.strip()


def start(cloud: Machine, url: str) -> subprocess.Popen[str]:
    return cloud.start(str(BIN / "python"), "-c", LOOK, websocket(url))


def looking(cloud: Machine) -> subprocess.Popen[str]:
    """A console that is open."""
    viewer = start(cloud, console_url(cloud))
    assert viewer.stdout
    assert viewer.stdout.readline() == "RFB 003.008\n"
    return viewer


def ended(viewer: subprocess.Popen[str]) -> bool:
    said, _ = viewer.communicate(timeout=60)
    return said == "closed\n"


def kill(cloud: Machine, service: str) -> None:
    lines = json.loads(cloud.cumulet("where", "--json", check=False))
    cloud.run("kill", "-9", next(str(line["pid"]) for line in lines if line["name"] == service))


def test_a_screen_in_the_browser(cloud: Machine) -> None:
    url = console_url(cloud)
    page = cloud.run("curl", "-sf", url)
    assert "noVNC" in page
    base = url.partition("/vnc_lite.html")[0]
    for script in set(re.findall(r'src="([\w./]+)"', page)) | {"novnc/core/rfb.js"}:
        assert cloud.run("curl", "-sf", f"{base}/{script}")
    assert look(cloud, url) == "RFB 003.008"
    assert look(cloud, url) == "403"  # once


def test_nobody_finds_the_screen_without_the_proxy(cloud: Machine) -> None:
    """QEMU's VNC listens nowhere; what nova-compute serves wants a ticket."""
    listening = cloud.run("ss", "-lntx")
    assert ":5900" not in listening
    assert "vnc.sock" not in listening
    server = cloud.ask("server", "show", "first")["id"]
    upgrade = ("-H", "Connection: Upgrade", "-H", "Upgrade: websocket", "-H", "Sec-WebSocket-Version: 13", "-H",
               "Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==")  # fmt: skip
    code = ("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}")
    assert cloud.run(*code, *upgrade, f"http://127.0.0.1:8784/servers/{server}/screen") == "403"


@pytest.mark.parametrize("service", ["nova-novncproxy", "nova-compute"])
def test_a_killed_end_ends_the_console_and_nothing_else(cloud: Machine, service: str) -> None:
    viewer = looking(cloud)
    kill(cloud, service)
    assert ended(viewer)
    wait_for(lambda: "DOWN" not in cloud.cumulet("where", check=False), 30, "healthy services")
    assert look(cloud, console_url(cloud)) == "RFB 003.008"
    assert cloud.ask("server", "show", "first")["status"] == "ACTIVE"


def test_without_nova_consoleauth_open_consoles_go_on(cloud: Machine) -> None:
    viewer, unused = looking(cloud), console_url(cloud)
    kill(cloud, "nova-consoleauth")
    assert look(cloud, unused) == "RFB 003.008"  # as soon as it is back
    assert viewer.poll() is None
    viewer.terminate()
    viewer.wait()


def test_stopped_ends_the_console(cloud: Machine) -> None:
    viewer, unused = looking(cloud), console_url(cloud)
    cloud.openstack("server", "stop", "first")
    assert ended(viewer)
    assert look(cloud, unused) == "403"
    cloud.openstack("server", "start", "first")
    wait_for(lambda: cloud.ask("server", "show", "first")["status"] == "ACTIVE" or None, 60, "first server")
    assert look(cloud, console_url(cloud)) == "RFB 003.008"


def test_no_token_is_in_any_log(cloud: Machine) -> None:
    url = console_url(cloud)
    look(cloud, url)
    token = url.rpartition("%3D")[2]
    assert len(token) > 40
    assert cloud.run("grep", "-rl", token, "/var/log/cumulet", "/var/lib/cumulet/db", check=False) == ""
