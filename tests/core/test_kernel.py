"""Transactions, hints between processes, lists, logs, secrets, configuration."""

import json
import logging
import stat
import threading
from contextlib import suppress
from pathlib import Path

import pytest
import sqlalchemy as sa

from cumulet.core import config, log, secrets
from cumulet.core.bus import LocalBus, SocketBus
from cumulet.core.config import Config
from cumulet.core.context import Context, Secret
from cumulet.core.db import Database, without_secrets
from cumulet.core.errors import BadRequest, Conflict, Retry
from cumulet.core.http import App, Caller, Request
from cumulet.core.listing import Listing, list_page
from cumulet.core.policy import Policies
from cumulet.core.tables import agents, facts, notifications
from tests import databases


@pytest.fixture
def bus() -> LocalBus:
    return LocalBus()


@pytest.fixture
def db(tmp_path: Path, bus: LocalBus) -> Database:
    found = Database(databases.url(tmp_path / "test.sqlite"), bus)
    databases.make_tables(found.engine)
    return found


def test_hints_leave_after_the_commit_and_not_after_a_rollback(db: Database, bus: LocalBus) -> None:
    heard: list[str] = []
    bus.listen("things", heard.append)
    with db.transaction() as tx:
        tx.write(facts.insert(), {"name": "a", "value": "1"})
        tx.hint("things", "a")
        assert heard == []
    assert heard == ["a"]
    with pytest.raises(ZeroDivisionError), db.transaction() as tx:
        tx.write(facts.insert(), {"name": "b", "value": "1"})
        tx.hint("things", "b")
        raise ZeroDivisionError
    assert heard == ["a"]
    with db.read() as tx:
        assert tx.value(sa.select(sa.func.count()).select_from(facts)) == 1


def test_a_broken_unique_index_is_a_conflict(db: Database) -> None:
    with db.transaction() as tx:
        tx.write(facts.insert(), {"name": "a", "value": "1"})
    with pytest.raises(Conflict), db.transaction() as tx:
        tx.write(facts.insert(), {"name": "a", "value": "2"})


def test_compare_and_set_by_many_at_once_counts_right(db: Database) -> None:
    with db.transaction() as tx:
        tx.write(facts.insert(), {"name": "n", "value": "0"})

    def add() -> None:
        done = 0
        while done < 20:
            with suppress(Retry), db.transaction() as tx:
                value = int(tx.value(sa.select(facts.c.value)))
                done += tx.write(sa.update(facts).where(facts.c.value == str(value)).values(value=str(value + 1)))

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with db.read() as tx:
        assert tx.value(sa.select(facts.c.value)) == "80"


def test_notifications_are_part_of_the_change_and_hold_no_secrets(db: Database) -> None:
    context = Context(request_id="req-1", user_id="u", project_id="p")
    with db.transaction() as tx:
        tx.notify(context, "server.create", "nova.h", {"name": "x", "nested": [{"adminPass": "s", "id": 1}]})
    with db.read() as tx:
        row = tx.find(sa.select(notifications))
    assert row is not None
    assert row.payload == {"name": "x", "nested": [{"id": 1}]}
    assert row.context["project_id"] == "p"
    assert without_secrets({"token": "t"}) == {}


def test_hints_cross_processes_by_sockets_and_dead_ones_are_forgotten(tmp_path: Path) -> None:
    heard, came = [], threading.Event()

    def listener(key: str) -> None:
        heard.append(key)
        came.set()

    receiver, sender = SocketBus(tmp_path), SocketBus(tmp_path)
    receiver.listen("nova.hosts.node-1", listener)
    sender.hint("nova.hosts.node-1", "server-1")
    assert came.wait(5)
    assert heard == ["server-1"]
    dead = tmp_path / "nova.hosts.node-1" / "1-dead"
    dead.symlink_to(tmp_path / ".nobody")
    sender.hint("nova.hosts.node-1", "server-2")
    assert not dead.is_symlink()
    sender.hint("nobody.listens", "x")
    with pytest.raises(ValueError):
        sender.hint("../../etc", "x")


def list_all(db: Database, query: list[tuple[str, str]]) -> tuple[list[str], str | None]:
    listing = Listing(agents.c.id, {"binary": agents.c.binary, "host": agents.c.host, "enabled": agents.c.enabled},
                      default_sort=(("binary", "asc"),))  # fmt: skip
    app = App(
        "x", [], db=db, config=Config(), policies=Policies({}), caller=Caller(_nobody, _nobody2), render_error=_no
    )
    with db.read() as tx:
        page = list_page(tx, sa.select(agents), Request(app, "GET", "/agents", {}, query=query), listing)
    return [row.id for row in page.rows], page.next_marker


def _nobody(token: str) -> Context:
    return Context()


def _nobody2(host: str, token: str) -> Context:
    return Context()


def _no(error: Exception) -> tuple[bytes, str]:
    return b"", ""


@pytest.fixture
def filled(db: Database) -> Database:
    common = {"created_at": "t", "started_at": "t", "seen_at": "t", "details": {}}
    with db.transaction() as tx:
        for number in range(7):
            host = None if number == 3 else f"h{number // 2}"
            row = {"id": str(number), "binary": f"b{number}", "host": host or "", "enabled": number != 5}
            tx.write(agents.insert(), {**row, **common})
    return db


@pytest.mark.parametrize("direction", ["asc", "desc"])
@pytest.mark.parametrize("key", ["binary", "host", "id"])
def test_pages_cover_everything_once(filled: Database, key: str, direction: str) -> None:
    found: list[str] = []
    marker: str | None = None
    for _ in range(10):
        query = [("limit", "2"), ("sort_key", key), ("sort_dir", direction)]
        ids, marker = list_all(filled, query + ([("marker", marker)] if marker else []))
        found += ids
        if marker is None:
            break
    whole, _ = list_all(filled, [("sort_key", key), ("sort_dir", direction)])
    assert found == whole
    assert sorted(found) == [str(number) for number in range(7)]


def test_filters_and_what_is_wrong_with_them(filled: Database) -> None:
    assert list_all(filled, [("host", "h0"), ("host", "h1")])[0] == ["0", "1", "2"]
    assert list_all(filled, [("enabled", "False")])[0] == ["5"]
    for query in ([("limit", "-1")], [("marker", "x")], [("sort_key", "secret")], [("enabled", "maybe")]):
        with pytest.raises(BadRequest):
            list_all(filled, query)


def test_logs_are_one_line_each_without_secrets() -> None:
    record = logging.LogRecord(
        "x", logging.INFO, "f", 1, "name %s token gAAAAABabcdefghijklmnopqrstuvwx", ("a\nb",), None
    )
    line = log.JsonFormatter("nova-api").format(record)
    assert "\n" not in line
    message = json.loads(line)["message"]
    assert message == "name a\\nb token ***"
    assert repr(Secret("pw")) == "'***'"


def test_secrets_are_made_once_and_are_private(tmp_path: Path) -> None:
    first = secrets.ensure(tmp_path)
    assert secrets.ensure(tmp_path) == first
    assert stat.S_IMODE(secrets.path(tmp_path).stat().st_mode) == 0o600
    assert secrets.host_token("s", "h1") != secrets.host_token("s", "h2")


def test_configuration_is_checked_and_names_what_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "cumulet.toml"
    assert config.load(file).etc == tmp_path
    file.write_text('[node]\nname = "n1"\n[compute]\ncpu_ratio = 4.0\n')
    assert config.load(file).compute.cpu_ratio == 4.0
    file.write_text("[node]\nnom = 1\n")
    with pytest.raises(BadRequest, match="nom"):
        config.load(file)
