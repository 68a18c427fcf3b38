"""Two controllers with one database: what is uploaded to one is to be had from the other, and is copied to it."""

import asyncio
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cumulet.core.bus import LocalBus
from cumulet.core.db import Database
from cumulet.core.secrets import host_token
from cumulet.glance.peers import Peers
from cumulet.glance.public import copy_ticket, image_ticket
from cumulet.glance.store import Store
from tests import databases
from tests.glance.rig import SECRETS, Answer, Glance, ask, make_config, make_glance
from tests.glance.test_leftovers import Fuse, MortalStore
from tests.nova.consoles import serving

DATA = os.urandom(2_500_001)
HERE, NOBODY = "127.0.0.1", "127.0.0.2"


def controller(directory: Path, node: str, peers: Peers | None = None, fuse: Fuse | None = None) -> Glance:
    """glance as ``node`` has it, with a store of its own and the database of all."""
    bus, files = LocalBus(), directory / node
    config = make_config(directory)
    config.node.name = node
    store = Store(files)
    if fuse:
        store = MortalStore(files)
        store.fuse = fuse
    return make_glance(Database(f"sqlite:///{directory}/db.sqlite", bus), bus, config, store, files, None, peers)


@dataclass
class Two:
    """``first`` listens on ``port``; ``second`` asks it, and somebody who does not answer."""

    directory: Path
    first: Glance
    port: int

    def second(self, fuse: Fuse | None = None) -> Glance:
        return controller(self.directory, "two", self.peers((NOBODY, HERE)), fuse)

    def peers(self, hosts: tuple[str, ...], secret: str = SECRETS.host_secret) -> Peers:
        return Peers(hosts, self.port, "two", secret)


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Two]:
    first = controller(tmp_path, "one")
    databases.make_tables(first.db.engine)
    with serving(first.api) as port:
        yield Two(tmp_path, first, port)


def copy(glance: Glance) -> None:
    glance.copies.resync()
    glance.copies.run_once()


def test_what_one_has_the_other_passes_on_and_then_has_itself(two: Two) -> None:
    image, second = two.first.active(data=DATA), two.second()
    assert second.download("alice", image["id"]).body == DATA
    part = second.download("alice", image["id"], Range="bytes=1000000-2000000")
    assert (part.status, part.body) == (206, DATA[1_000_000:2_000_001])
    assert second.download("alice", image["id"], "HEAD").headers["content-length"] == str(len(DATA))
    assert second.download("bob", image["id"]).status == 404
    assert second.files() == []
    copy(second)
    assert second.files() == two.first.files() != []
    assert (second.directory / second.files()[0]).read_bytes() == DATA
    second.clean()
    assert second.files() == two.first.files(), "a copy is no litter"


def test_a_copy_goes_with_its_image(two: Two) -> None:
    image, second = two.first.active(data=DATA), two.second()
    copy(second)
    assert two.first.call("alice", "DELETE", f"/v2/images/{image['id']}")[0] == 204
    two.first.clean()
    second.clean()
    assert (two.first.files(), second.files()) == ([], [])
    copy(second)
    assert second.files() == []


def test_what_nobody_has_is_waited_for(two: Two) -> None:
    image, second = two.first.active(data=DATA), two.second()
    (file,) = two.first.directory.iterdir()
    away = file.rename(two.directory / "away")
    answer = second.download("alice", image["id"])
    assert (answer.status, b"127.0.0.2 cannot be asked" in answer.body) == (503, True)
    alone = controller(two.directory, "two", two.peers((HERE, HERE)))
    assert alone.download("alice", image["id"]).status == 404
    copy(alone)
    assert "no controller has the data" in next(iter(alone.copies.failures.values())).reason
    away.write_bytes(DATA[:-1] + b"x")
    away.rename(file)
    copy(second)
    assert second.files() == []
    assert "is not its data" in next(iter(second.copies.failures.values())).reason


def test_only_a_controller_with_a_ticket_is_given_a_copy(two: Two) -> None:
    image = two.first.active(data=DATA)["id"]

    def fetch(host: str, ticket: str) -> Answer:
        token = host_token(SECRETS.host_secret, "c1")
        headers = {"X-Cumulet-Host": "c1", "X-Cumulet-Host-Token": token, "X-Image-Ticket": ticket}
        return asyncio.run(ask(two.first.api, "GET", f"/hosts/{host}/copies/{image}", b"", headers))

    assert fetch("c1", image_ticket(SECRETS.host_secret, image, "c1")).status == 401
    assert fetch("c1", copy_ticket(SECRETS.host_secret, image, "two")).status == 401
    assert fetch("two", copy_ticket(SECRETS.host_secret, image, "two")).status == 403
    assert fetch("c1", copy_ticket(SECRETS.host_secret, image, "c1")).body == DATA
    assert two.peers((HERE, HERE), "another secret").open(image) is None


def test_a_copy_survives_deaths_in_its_making(two: Two) -> None:
    two.first.active(data=DATA)
    deaths = 0
    for at in range(1, 20):
        child = os.fork()
        if not child:
            try:
                copy(two.second(Fuse(at)))
                os._exit(0)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        deaths += os.waitstatus_to_exitcode(status) == 9
        second = two.second()
        copy(second)
        assert second.files() == two.first.files()
        assert (second.directory / second.files()[0]).read_bytes() == DATA
        if not status:
            break
        (second.directory / second.files()[0]).unlink()
    assert deaths == 6  # before and after: what is left goes, the file is made, it gets its name
