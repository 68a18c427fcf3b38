"""Pure parts of a guest's way to another host: what may be said to libvirtd, and definitions that move."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cumulet.core.errors import Terminal
from cumulet.nova.compute.domain_xml import Files, Marks, Traits, parse, relocate, render
from cumulet.nova.compute.rpc_gate import KEEPALIVE, PROCEDURES, REMOTE, Gate
from tests.host.hypervisor_rig import boot_sector, make_image, make_nic, make_server

ALLOWED = st.tuples(st.just(REMOTE), st.sampled_from(sorted(PROCEDURES))) | st.tuples(
    st.just(KEEPALIVE), st.just(1)
)
DEFINE, SCREENSHOT, QEMU_MONITOR = (REMOTE, 350), (REMOTE, 211), (0x20008087, 1)


def message(call: tuple[int, int], body: bytes = b"") -> bytes:
    return struct.pack(">IIIIIII", 28 + len(body), call[0], 1, call[1], 0, 0, 0) + body


@given(st.lists(st.tuples(ALLOWED, st.binary(max_size=50)), max_size=5), st.integers(1, 40), st.integers(0, 2))
def test_only_a_migration_gets_through(said: list[tuple[tuple[int, int], bytes]], size: int, end: int) -> None:
    """However the messages are cut into pieces."""
    honest = b"".join(message(call, body) for call, body in said)

    def feed(data: bytes) -> None:
        gate = Gate()
        for at in range(0, len(data), size):
            gate.check(data[at : at + size])

    feed(honest)
    with pytest.raises(Terminal, match="asks libvirtd"):
        feed(honest + message((DEFINE, SCREENSHOT, QEMU_MONITOR)[end]))


@pytest.mark.parametrize("length", [0, 15, 1 << 31])
def test_no_message_has_such_a_length(length: int) -> None:
    with pytest.raises(Terminal):
        Gate().check(struct.pack(">IIII", length, REMOTE, 1, 1))


def test_a_definition_names_the_other_hosts_files_and_forgets_what_was_under_way() -> None:
    nic = make_nic()
    server = make_server(make_image(boot_sector(polite=True))[0], nic)

    def files(host: str) -> Files:
        spares = [(f"/{host}/s/swap", "swap")]
        return Files(f"/{host}/s/disk", [(f"/{host}/c/b.raw", "raw")], f"/{host}/s/log", f"/{host}/s/iso", spares)

    def made(host: str, marks: Marks, cache: str) -> str:
        return render(server, marks, files(host), Traits("qemu", "/usr/bin/q", cache, True))

    here = made("here", Marks(3, 7, 8, restart=False, stop_by=99), "none")
    moved = relocate(here, files("here"), files("there"), "writeback", Marks(3, 7))
    assert parse(moved) == parse(made("there", Marks(3, 7), "writeback"))
    assert "/here/" not in moved
    assert sorted(moved) == sorted(made("there", Marks(3, 7), "writeback"))
