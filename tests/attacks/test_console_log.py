"""A guest writes what it likes to its serial console, and without end (family CON-6, OSSA-2013-026)."""

import os
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from cumulet.core.secrets import host_token, same
from cumulet.nova.compute.console import console_app
from cumulet.nova.compute.screens import Screens
from cumulet.nova.compute.server_files import ServerFiles
from cumulet.sim.hypervisor import SimHypervisor
from tests.nova.api_cloud import SECRETS, Cloud
from tests.nova.consoles import serving

TOKEN = host_token(SECRETS.host_secret, "h1")


@pytest.mark.parametrize(
    ("log", "shown"),
    [
        (b"x" * 1_000_000, "x" * 1_000_000),
        (b"\x1b]0;owned\x07\x1b[2J\0\x08<script>", "]0;owned[2J<script>"),
        (b"\xff\xfe\xc0\x80\r\n", "\ufffd\ufffd\ufffd\ufffd\n"),
        (b"\n" * 200_000, "\n" * 200_000),
    ],
    ids=["a line of a megabyte", "controls", "no text", "only lines"],
)
def test_any_log_is_shown_as_text(log: bytes, shown: str) -> None:
    served = console_app(
        lambda host, token: same(token, TOKEN),
        lambda server: log,
        Screens(lambda *_: "", SimHypervisor().open_screen),
    )
    with serving(served) as port:
        cloud = Cloud(console_port=port)
        cloud.add_host("h1", address="127.0.0.1")
        url = f"/servers/{cloud.running()}/action"
        assert cloud.good("alice", "POST", url, {"os-getConsoleOutput": {}}) == {"output": shown}
        last = cloud.good("alice", "POST", url, {"os-getConsoleOutput": {"length": 1}})["output"]
        assert len(last) <= len(shown)


@pytest.mark.host
def test_a_flood_is_cut_and_a_link_is_not_followed(tmp_path: Path) -> None:
    """QEMU's user could be a guest's by now: what it puts in the log's place is not read, nor written to."""
    files, server = ServerFiles(tmp_path / "servers", "root"), "11111111-1111-4111-8111-111111111111"
    files.ensure_directory(server, {})
    log, secret = files.directory / server / "console.log", tmp_path / "secret"
    log.write_bytes(b"flood\n" * 100_000)
    files.bound_console_log(server, 6_000)
    assert log.read_bytes() == b"flood\n" * 1_000
    secret.write_bytes(b"s" * 100_000)
    for put in (partial(os.symlink, secret, log), partial(os.mkfifo, log)):
        log.unlink()
        put()
        with suppress(OSError):
            assert files.console_tail(server, 100) == b""
        with suppress(OSError):
            files.bound_console_log(server, 100)
        assert secret.read_bytes() == b"s" * 100_000
