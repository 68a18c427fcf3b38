"""Nothing is ever stuck and nothing leaks: glance dies before and after every lasting effect.

A child process does the work on a real database file and a real directory, and ends itself, without a word, at
the n-th effect: a commit, a file made, renamed or removed.  The kernel then drops its locks, as after a
``kill -9``.  The parent runs the loop and looks at what is left.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import sqlalchemy as sa

from cumulet.core import clock
from cumulet.core.bus import LocalBus
from cumulet.core.db import Database, Transaction
from cumulet.core.outbound import Outbound
from cumulet.glance.model import Claim
from cumulet.glance.store import Store
from cumulet.glance.tables import images
from tests import databases
from tests.glance.rig import CALLERS, Glance, make_config, make_glance

DATA = b"d" * 2_500_000
Work = Callable[[Glance, str], None]


class Fuse:
    """Ends the process at the given effect; counts them otherwise."""

    def __init__(self, at: int | None) -> None:
        self.at, self.count = at, 0

    def burn(self) -> None:
        self.count += 1
        if self.count == self.at:
            os._exit(9)


class MortalDatabase(Database):
    fuse: Fuse

    def before_commit(self, tx: Transaction) -> None:
        if tx.wrote:
            self.fuse.burn()

    def after_commit(self, tx: Transaction) -> None:
        if tx.wrote:
            self.fuse.burn()


class MortalStore(Store):
    fuse: Fuse

    def before_effect(self, what: str) -> None:
        self.fuse.burn()

    def after_effect(self, what: str) -> None:
        self.fuse.burn()


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Path]:
    """Where many databases are made and synced: in memory, where the machine has such a place."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as name:
        yield Path(name)


def glance_on_disk(directory: Path, fuse: Fuse | None = None, outbound: Outbound | None = None) -> Glance:
    bus = LocalBus()
    url = f"sqlite:///{directory}/db.sqlite"
    files = directory / "images"
    config = make_config(directory)
    if fuse is None:
        return make_glance(Database(url, bus), bus, config, Store(files), files, outbound)
    database, store = MortalDatabase(url, bus), MortalStore(files)
    glance = make_glance(database, bus, config, store, files, outbound)
    database.fuse = store.fuse = fuse
    return glance


def run_child(
    directory: Path, image_id: str, work: Work, die_at: int | None, outbound: Outbound | None = None
) -> int:
    """Do the work in a process that may die; how many effects it had, or -1 if it died."""
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            fuse = Fuse(die_at)
            work(glance_on_disk(directory, fuse, outbound), image_id)
            os.write(writable, str(fuse.count).encode())
        finally:
            os._exit(0)
    os.close(writable)
    _, status = os.waitpid(child, 0)
    told = os.read(readable, 16)
    os.close(readable)
    if os.waitstatus_to_exitcode(status) == 9:
        return -1
    return int(told)


def prepare(directory: Path) -> Glance:
    directory.mkdir()
    glance = glance_on_disk(directory)
    databases.make_tables(glance.db.engine)
    return glance


def upload(glance: Glance, image_id: str) -> None:
    assert glance.upload("alice", image_id, DATA).status == 204


def upload_bad(glance: Glance, image_id: str) -> None:
    assert glance.upload("alice", image_id, b"QFI\xfb" + DATA).status == 415


def delete(glance: Glance, image_id: str) -> None:
    assert glance.call("alice", "DELETE", f"/v2/images/{image_id}")[0] == 204
    glance.loop.run_once()


def effects(directory: Path, work: Work, active: bool) -> int:
    glance = prepare(directory)
    image = glance.active(data=DATA) if active else glance.create()
    count = run_child(directory, image["id"], work, None)
    assert count > 0
    return count


def settle(glance: Glance) -> None:
    """Three passes: whatever is left to do is done, and the last one writes nothing."""
    for _ in range(3):
        glance.clean()
    assert glance.loop.failures == {}
    assert glance.loop.reconciler.read() == {}


def test_an_upload_dies_anywhere(ground: Path) -> None:
    count = effects(ground / "count", upload, False)
    assert count == 14  # the file, the claim, three renewals, the name, the registry's word: before and after each
    outcomes = []
    for die_at in range(1, count + 1):
        directory = ground / str(die_at)
        glance = prepare(directory)
        image = glance.create()
        assert run_child(directory, image["id"], upload, die_at) == -1
        settle(glance)
        status = glance.show(image["id"])["status"]
        outcomes.append(status)
        if status == "queued":
            assert glance.files() == []
            upload(glance, image["id"])
        assert glance.download("alice", image["id"]).body == DATA
        assert len(glance.files()) == 1
    assert outcomes == ["queued"] * 13 + ["active"]


def test_a_refused_upload_dies_anywhere(ground: Path) -> None:
    count = effects(ground / "count", upload_bad, False)
    assert count == 14  # the file, the claim, three renewals, the release, the removal
    for die_at in range(1, count + 1):
        directory = ground / str(die_at)
        glance = prepare(directory)
        image = glance.create()
        assert run_child(directory, image["id"], upload_bad, die_at) == -1
        settle(glance)
        assert glance.show(image["id"])["status"] == "queued"
        assert glance.files() == []


def test_a_deletion_dies_anywhere(ground: Path) -> None:
    count = effects(ground / "count", delete, True)
    assert count == 6  # the order, the removal, the report
    for die_at in range(1, count + 1):
        directory = ground / str(die_at)
        glance = prepare(directory)
        image, other = glance.active(data=DATA), glance.active(data=b"another image")
        assert run_child(directory, image["id"], delete, die_at) == -1
        settle(glance)
        if die_at == 1:  # the order was never given
            assert glance.download("alice", image["id"]).body == DATA
            continue
        assert glance.call("admin", "GET", image["self"])[0] == 404
        assert glance.files() == [name for name in glance.files() if name.startswith(other["id"])]
        assert glance.download("alice", other["id"]).body == b"another image"


def test_the_loop_dies_while_it_cleans_up(ground: Path) -> None:
    """Death on death: the loop that clears a dead upload away dies at each of its own effects."""

    def clean(glance: Glance, image_id: str) -> None:
        glance.clean()

    first = prepare(ground / "count")
    image = first.create()
    assert run_child(ground / "count", image["id"], upload, 6) == -1
    count = run_child(ground / "count", image["id"], clean, None)
    assert count == 4  # the release, the removal
    for die_at in range(1, count + 1):
        directory = ground / str(die_at)
        glance = prepare(directory)
        image = glance.create()
        assert run_child(directory, image["id"], upload, 6) == -1
        assert len(glance.files()) == 1
        assert run_child(directory, image["id"], clean, die_at) == -1
        settle(glance)
        assert glance.show(image["id"])["status"] == "queued"
        assert glance.files() == []


def test_a_live_upload_is_left_alone(glance: Glance) -> None:
    image = glance.create()

    def body() -> Iterator[bytes]:
        for _ in range(3):
            glance.clean()
            assert glance.show(image["id"])["status"] == "saving"
            yield b"x" * (1 << 20)

    assert glance.upload("alice", image["id"], body()).status == 204
    settle(glance)
    assert glance.show(image["id"])["status"] == "active"


def test_a_dead_node_s_upload_ends_when_nothing_is_heard_of_it(glance: Glance) -> None:
    """Its file is not here and its lock cannot be seen, so only time tells."""
    image = glance.create()
    glance.client.claim(CALLERS["alice"], image["id"], Claim("0" * 32, "node-2", "raw"))
    glance.clean()
    assert glance.show(image["id"])["status"] == "saving"
    long_ago = clock.later(-3600)
    with glance.db.transaction() as tx:
        tx.write(sa.update(images).values(attempt_seen_at=long_ago))
    settle(glance)
    assert glance.show(image["id"])["status"] == "queued"


def test_what_is_not_ours_is_left_alone(glance: Glance) -> None:
    strange = glance.directory / "notes.txt"
    strange.write_text("of the operator")
    orphan = glance.directory / f"{'0' * 8}-0000-0000-0000-{'0' * 12}.{'0' * 32}"
    orphan.write_bytes(b"litter")
    settle(glance)
    assert glance.files() == ["notes.txt"]


def test_a_hint_starts_the_removal(glance: Glance) -> None:
    image = glance.active()
    glance.clean()
    assert glance.call("alice", "DELETE", image["self"])[0] == 204
    assert len(glance.files()) == 1
    glance.loop.run_once()
    assert glance.files() == []


def test_a_lost_hint_costs_time_only(glance: Glance) -> None:
    image = glance.active()
    glance.clean()
    glance.bus.cut = True
    assert glance.call("alice", "DELETE", image["self"])[0] == 204
    glance.loop.run_once()
    assert len(glance.files()) == 1
    glance.clean()
    assert glance.files() == []


def test_tombstones_do_not_pile_up(glance: Glance) -> None:
    old, new = glance.active(), glance.active()
    for image in (old, new):
        glance.call("alice", "DELETE", image["self"])
        glance.clean()
        with glance.db.transaction() as tx:
            tx.write(
                sa.update(images).where(images.c.gone_at.is_not(None)).values(gone_at=clock.later(-31 * 86400))
            )
    glance.client.report_gone(new["id"])
    with glance.db.read() as tx:
        assert tx.all(sa.select(images.c.id)) == []


def test_an_idle_pass_is_one_question(glance: Glance) -> None:
    for _ in range(20):
        glance.active()
    settle(glance)
    glance.transport.calls.clear()
    glance.clean()
    assert glance.transport.calls == ["POST /data"]
