"""What the run directory says is believed of living processes only."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import setproctitle

from cumulet.cli import record
from cumulet.cli.record import Member
from cumulet.core.config import Config, Node
from cumulet.host import process


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(node=Node(run_dir=str(tmp_path)))


@pytest.fixture
def titled() -> Iterator[None]:
    before = setproctitle.getproctitle()
    setproctitle.setproctitle(record.TITLE)
    yield
    setproctitle.setproctitle(before)


def member(pid: int, ticks: int) -> Member:
    return Member("keystone", pid, ticks, "2026-11-22T13:08:40.123456Z", 1, False)


def test_a_parent_that_lives(config: Config, titled: None) -> None:
    record.write_parent(config)
    record.write_state(config, [member(1, 1)])
    parent = record.find_parent(config)
    assert parent is not None
    assert parent.pid == os.getpid()
    assert list(record.members(config)) == ["keystone"]
    record.forget(config)
    assert record.members(config) == {}


def test_a_recycled_number_fools_nobody(config: Config, titled: None) -> None:
    """The number is a living process's, but not that of the one that was written down."""
    own = process.look(os.getpid())
    assert own
    record.write_state(config, [])
    record.parent_file(config).write_text(f"{own.pid} {own.started - 1}\n")
    assert record.find_parent(config) is None
    assert record.members(config) == {}
    assert not record.lives(member(own.pid, own.started - 1))
    assert record.lives(member(own.pid, own.started))


def test_a_stranger_with_that_number_fools_nobody(config: Config) -> None:
    """Pid files without a start time, or of another program."""
    own = process.look(os.getpid())
    assert own
    for text in (f"{own.pid}\n", f"{own.pid} {own.started}\n", "", "x\n", "99999999 1\n"):
        record.parent_file(config).write_text(text)
        assert record.find_parent(config) is None


def test_a_dead_parents_record_says_nothing_of_now(config: Config) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    record.parent_file(config).write_text(f"{gone.pid} 1\n")
    record.write_state(config, [member(os.getpid(), 1)])
    assert record.members(config) == {}
    state = record.read_state(config)
    assert state is not None
    assert [one.name for one in state.members] == ["keystone"]


@pytest.mark.parametrize("raw", [b"", b"{", b'{"pid": 1}', b'{"pid": 1, "members": [{"name": "x", "pid": 3}]}'])
def test_a_broken_record_counts_as_none(config: Config, raw: bytes) -> None:
    record.state_file(config).write_bytes(raw)
    assert record.read_state(config) is None
