"""Another station with our own hardware address is heard, and nobody else is; with real devices."""

import os
import queue
import shutil
import uuid
from collections.abc import Iterator

import pytest

from cumulet.host import arp, netns
from cumulet.host.ears import Ears, Place
from cumulet.host.netlink import Netlink

pytestmark = [
    pytest.mark.host,
    pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("ip"), reason="needs root"),
]
MAC, OTHER = "fa:16:3e:00:00:01", "fa:16:3e:00:00:02"


@pytest.fixture
def cable() -> Iterator[tuple[str, str]]:
    """Two namespaces; ``a`` in the first one leads to ``b`` in the second."""
    tag = uuid.uuid4().hex[:6]
    here, there = f"cumtest-{tag}-a", f"cumtest-{tag}-b"
    try:
        netns.create(here)
        netns.create(there)
        with netns.enter(here), Netlink() as link:
            link.ensure_veth("a", "b", there, mac=MAC)
            link.set_up("a")
        with netns.enter(there), Netlink() as link:
            link.set_up("b")
        yield here, there
    finally:
        netns.delete(here)
        netns.delete(there)


def place(namespace: str) -> Place:
    with netns.enter(namespace), Netlink() as link:
        return Place(namespace, "a", link.links()["a"].index, MAC)


def say(namespace: str, device: str, mac: str) -> None:
    with netns.enter(namespace):
        arp.announce(device, "10.0.0.1", mac)


def test_only_who_has_our_address_is_a_rival(cable: tuple[str, str]) -> None:
    here, there = cable
    heard: queue.Queue[str] = queue.Queue()
    ears = Ears(heard.put)
    try:
        ears.listen({"r1": place(here)})
        say(there, "b", OTHER)
        say(here, "a", MAC)  # our own
        say(there, "b", MAC)
        assert heard.get(timeout=10) == "r1"
        with netns.enter(here), Netlink() as link:
            link.delete_link("a")
            link.ensure_veth("a", "b", there, mac=MAC)
            link.set_up("a")
        with netns.enter(there), Netlink() as link:
            link.set_up("b")
        ears.listen({"r2": place(here), "gone": Place("cumtest-none", "a", 1, MAC)})
        say(there, "b", MAC)
        assert heard.get(timeout=10) == "r2"
        ears.listen({})
        say(there, "b", MAC)
    finally:
        ears.close()
    assert heard.empty()
