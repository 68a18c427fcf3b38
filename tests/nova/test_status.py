"""A server's status: every combination of what is wanted and what was seen gives a legal one."""

from itertools import product
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from sqlalchemy.engine import Row

import cumulet.keystone.tables
import cumulet.neutron.tables  # noqa: F401
from cumulet.core import clock
from cumulet.core.bus import LocalBus
from cumulet.core.db import Database
from cumulet.nova import status
from cumulet.nova.tables import migrations, server_actions, server_hosts, servers
from tests import databases

GENERATION = 3
NOW = clock.now()
LEGAL = {
    ("building", "scheduling"): "BUILD",
    ("building", "spawning"): "BUILD",
    ("building", "deleting"): "BUILD",
    ("active", None): "ACTIVE",
    ("active", "powering-off"): "ACTIVE",
    ("active", "deleting"): "ACTIVE",
    ("active", "rebooting"): "REBOOT",
    ("active", "rebooting_hard"): "HARD_REBOOT",
    ("stopped", None): "SHUTOFF",
    ("stopped", "powering-on"): "SHUTOFF",
    ("stopped", "deleting"): "SHUTOFF",
    ("active", "pausing"): "ACTIVE",
    ("active", "suspending"): "ACTIVE",
    ("active", "rebuilding"): "REBUILD",
    ("active", "image_snapshot"): "ACTIVE",
    ("active", "image_backup"): "ACTIVE",
    ("active", "image_uploading"): "ACTIVE",
    ("stopped", "rebuilding"): "REBUILD",
    ("stopped", "image_snapshot"): "SHUTOFF",
    ("stopped", "image_backup"): "SHUTOFF",
    ("stopped", "image_uploading"): "SHUTOFF",
    ("paused", None): "PAUSED",
    ("paused", "powering-off"): "PAUSED",
    ("paused", "unpausing"): "PAUSED",
    ("paused", "suspending"): "PAUSED",
    ("paused", "deleting"): "PAUSED",
    ("paused", "image_snapshot"): "PAUSED",
    ("paused", "image_backup"): "PAUSED",
    ("paused", "image_uploading"): "PAUSED",
    ("suspended", None): "SUSPENDED",
    ("suspended", "powering-off"): "SUSPENDED",
    ("suspended", "resuming"): "SUSPENDED",
    ("suspended", "deleting"): "SUSPENDED",
    ("suspended", "image_snapshot"): "SUSPENDED",
    ("suspended", "image_backup"): "SUSPENDED",
    ("suspended", "image_uploading"): "SUSPENDED",
    ("error", None): "ERROR",
    ("error", "deleting"): "ERROR",
    ("deleted", None): "DELETED",
}
"""Upstream's function from vm_state and task_state to status, for the states that there are here."""


class Case:
    """A server in a database of its own table rows; ``row`` is what the one statement says of it."""

    def __init__(self) -> None:
        self.db = Database(databases.url(), LocalBus())
        databases.make_tables(self.db.engine)
        self.number = 0
        self.rows: dict[Any, list[dict[str, Any]]] = {
            servers: [],
            server_hosts: [],
            server_actions: [],
            migrations: [],
        }

    def add(
        self,
        *,
        host: dict[str, Any] | None = None,
        verb: str = "",
        move: dict[str, Any] | None = None,
        **changes: Any,
    ) -> str:
        """``verb``: the name of one that its host has yet to carry out; of a reboot its type."""
        self.number += 1
        server_id = f"s{self.number}"
        self.rows[servers].append({**_server(server_id), **changes})
        if host is not None:
            seen = {"seen_generation": GENERATION, "seen_power": "on", "seen_fault": None, "seen_reached": True}
            self.rows[server_hosts].append(
                {"server_id": server_id, "host": "h1", "wanted": "run", "launched_at": NOW, **seen, **host}
            )
        if move:
            text = dict.fromkeys(("user_id", "project_id"), "x") | {"source": "h1", "created_at": NOW}
            row = {"uuid": server_id, "server_id": server_id, **text, "old_flavor": {}, "new_flavor": {}, **move}
            self.rows[migrations].append(row)
        if verb:
            self.rows[server_actions].append(_verb(server_id, verb))
        return server_id

    def read(self) -> dict[str, Row[Any]]:
        with self.db.transaction() as tx:
            for table, rows in self.rows.items():
                if rows:
                    tx.write(table.insert(), rows)
                rows.clear()
        with self.db.read() as tx:
            return {row.id: row for row in tx.all(status.DETAIL)}


def _server(server_id: str) -> dict[str, Any]:
    text = dict.fromkeys(("project_id", "user_id", "name", "hostname", "reservation_id", "request_id"), "x")
    return {
        "id": server_id, **text, "created_at": NOW, "updated_at": NOW, "flavor": {}, "vcpus": 1, "memory_mb": 1,
        "root_gb": 1, "power": "on", "generation": GENERATION, "deleted_at": None, "gone_at": None,
        "placement_fault": None, "forced_error": False,
    }  # fmt: skip


def _verb(server_id: str, name: str) -> dict[str, Any]:
    action, params = ("reboot", {"type": name}) if name in ("SOFT", "HARD") else (name, {})
    text = dict.fromkeys(("request_id", "user_id", "project_id"), "x")
    return {
        "server_id": server_id, "action": action, **text, "started_at": NOW, "generation": GENERATION,
        "verb": True, "params": params,
    }  # fmt: skip


def test_every_combination_is_legal() -> None:
    case = Case()
    powers, verbs = (
        ("on", "off", "paused", "suspended"),
        ("", "SOFT", "HARD", "rebuild", "createImage", "createBackup"),
    )
    for power, deleted, fault, verb in product(powers, range(3), (None, "none", "forced"), verbs):
        wish: dict[str, Any] = {
            "power": power,
            "deleted_at": NOW if deleted else None,
            "gone_at": NOW if deleted == 2 else None,
            "placement_fault": fault if fault == "none" else None,
            "forced_error": fault == "forced",
            "verb": verb,
        }
        case.add(**wish)
        for generation, seen, broken, launched, reached in product(
            (GENERATION - 1, GENERATION),
            (None, "on", "off", "paused", "suspended", "crashed", "absent"),
            (None, "the disk is full"),
            (None, NOW),
            (True, False),
        ):
            host = {
                "seen_generation": generation,
                "seen_power": seen,
                "seen_fault": broken,
                "launched_at": launched,
                "seen_reached": reached,
            }
            case.add(host=host, **wish)
    rows = case.read()
    assert len(rows) == 216 * 113
    for row in rows.values():
        assert LEGAL[row.vm_state, row.task_state] == row.status, row
        assert row.power_state in (0, 1, 3, 4, 6)
        assert (row.task_state == "deleting") == (row.deleted_at is not None and row.gone_at is None)
        assert row.status in status.STATUSES
        assert row.vm_state in status.VM_STATES
    assert {row.status for row in rows.values()} == set(status.STATUSES) - {
        "RESIZE",
        "VERIFY_RESIZE",
        "REVERT_RESIZE",
        "MIGRATING",
    }
    assert {(row.vm_state, row.task_state) for row in rows.values()} == set(LEGAL)


MOVING = {
    ("active", "resize_prep"): "RESIZE",
    ("active", "resize_migrating"): "RESIZE",
    ("active", "resize_finish"): "RESIZE",
    ("stopped", "resize_prep"): "RESIZE",
    ("stopped", "resize_migrating"): "RESIZE",
    ("stopped", "resize_finish"): "RESIZE",
    ("resized", None): "VERIFY_RESIZE",
    ("resized", "resize_reverting"): "REVERT_RESIZE",
    ("resized", "deleting"): "ACTIVE",
    ("active", "migrating"): "MIGRATING",
    ("paused", "migrating"): "MIGRATING",
}


def test_every_combination_of_a_move_is_legal() -> None:
    case, found = Case(), set()
    kinds = ("resize", "migration", "evacuation", "live-migration")
    wishes, arrivals = ("move", "revert"), (None, NOW)
    for kind, wanted, arrived, to, deleted in product(kinds, wishes, arrivals, (None, "h2"), (None, NOW)):
        if (arrived and (to is None or kind == "evacuation")) or (wanted == "revert" and not arrived):
            continue
        move = {"type": kind, "wanted": wanted, "arrived_at": arrived, "destination": to}
        for power, seen, fault in product(
            ("on", "off", *["paused"] * (kind == "live-migration")),
            (None, "on", "off", "crashed", "sent"),
            (None, "the disk is full"),
        ):
            host = {"seen_power": seen, "seen_fault": fault}
            case.add(power=power, deleted_at=deleted, host=host, move=move)
    for row in case.read().values():
        state = (row.vm_state, row.task_state)
        found.add(state)
        if state == ("resized", "deleting"):
            assert row.status in ("ACTIVE", "SHUTOFF")
        else:
            assert (LEGAL | MOVING)[state] == row.status, row
    assert set(MOVING) <= found


OFF = {"seen_power": "off", "seen_reached": False}
NEW = {"launched_at": None, "seen_generation": 0}
BEHIND = {"seen_generation": GENERATION - 1}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ("BUILD", "building", "scheduling", 0)),
        ({"host": {**NEW, "seen_power": None}}, ("BUILD", "building", "spawning", 0)),
        ({"host": {**OFF, "launched_at": None}}, ("BUILD", "building", "spawning", 0)),
        ({"host": {"launched_at": None}}, ("ACTIVE", "active", None, 1)),
        ({"host": {}}, ("ACTIVE", "active", None, 1)),
        ({"placement_fault": "No valid host was found."}, ("ERROR", "error", None, 0)),
        ({"placement_fault": "before", "host": {}}, ("ACTIVE", "active", None, 1)),
        ({"host": {"seen_fault": "bad image", "launched_at": None, **OFF}}, ("ERROR", "error", None, 0)),
        ({"host": {"seen_fault": "bad image", **BEHIND}}, ("ACTIVE", "active", None, 1)),
        ({"power": "off", "host": BEHIND}, ("ACTIVE", "active", "powering-off", 1)),
        ({"power": "off", "host": OFF}, ("SHUTOFF", "stopped", None, 4)),
        ({"host": {**OFF, **BEHIND}}, ("SHUTOFF", "stopped", "powering-on", 4)),
        ({"host": OFF}, ("SHUTOFF", "stopped", "powering-on", 4)),
        ({"host": {"seen_power": "off", "seen_reached": True}}, ("SHUTOFF", "stopped", None, 4)),
        ({"host": {"seen_power": "crashed", "seen_reached": True}}, ("SHUTOFF", "stopped", None, 6)),
        ({"host": {"seen_power": "paused"}}, ("PAUSED", "paused", None, 3)),
        ({"host": {"seen_power": "paused", "seen_reached": False}}, ("PAUSED", "paused", "unpausing", 3)),
        ({"power": "paused", "host": BEHIND}, ("ACTIVE", "active", "pausing", 1)),
        ({"power": "paused", "host": {**OFF, "seen_power": "paused"}}, ("PAUSED", "paused", None, 3)),
        ({"power": "paused", "host": OFF}, ("SHUTOFF", "stopped", None, 4)),
        ({"power": "suspended", "host": BEHIND}, ("ACTIVE", "active", "suspending", 1)),
        ({"power": "suspended", "host": {**OFF, "seen_power": "suspended"}}, ("SUSPENDED", "suspended", None, 4)),
        ({"host": {**OFF, **BEHIND, "seen_power": "suspended"}}, ("SUSPENDED", "suspended", "resuming", 4)),
        ({"forced_error": True, "host": {}}, ("ERROR", "error", None, 1)),
        ({"host": BEHIND, "verb": "rebuild"}, ("REBUILD", "active", "rebuilding", 1)),
        ({"host": {**OFF, **BEHIND}, "power": "off", "verb": "rebuild"}, ("REBUILD", "stopped", "rebuilding", 4)),
        ({"host": BEHIND, "verb": "createImage"}, ("ACTIVE", "active", "image_snapshot", 1)),
        ({"host": BEHIND, "verb": "createBackup"}, ("ACTIVE", "active", "image_backup", 1)),
        ({"host": {}, "verb": "createImage"}, ("ACTIVE", "active", "image_uploading", 1)),
        ({"host": BEHIND, "verb": "SOFT"}, ("REBOOT", "active", "rebooting", 1)),
        ({"host": {**OFF, **BEHIND}, "verb": "HARD"}, ("HARD_REBOOT", "active", "rebooting_hard", 4)),
        ({"host": BEHIND, "deleted_at": NOW}, ("ACTIVE", "active", "deleting", 1)),
        ({"host": {"seen_fault": "bad", **BEHIND, **OFF}, "deleted_at": NOW}, ("ERROR", "error", "deleting", 4)),
        ({"deleted_at": NOW}, ("BUILD", "building", "deleting", 0)),
        ({"deleted_at": NOW, "gone_at": NOW}, ("DELETED", "deleted", None, 0)),
    ],
)  # fmt: skip
def test_status(given: dict[str, Any], expected: tuple[str, str, str | None, int]) -> None:
    case = Case()
    server = case.add(**given)
    row = case.read()[server]
    assert (row.status, row.vm_state, row.task_state, row.power_state) == expected


def test_the_statement_is_sql_for_mariadb_too() -> None:
    text = str(status.DETAIL.compile(dialect=mysql.dialect()))
    assert "LEFT OUTER JOIN" in text
    assert "JSON_EXTRACT" in text
    assert sa.select(status.status).select_from(status.STATES).compile(dialect=mysql.dialect()) is not None
