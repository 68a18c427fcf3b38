"""Open vSwitch's database (RFC 7047): one look at the whole switch, changes in one transaction.

    ovsdb = Ovsdb("/run/openvswitch/db.sock")
    with ovsdb.change() as change:
        change.ensure_bridge("br-int", datapath_type="netdev")
        change.ensure_port("br-int", "tap0", tag=3)

A change compares with what is there and sends only the difference. It then waits until ovs-vswitchd has
applied it (next_cfg, cur_cfg), so that the port numbers exist afterwards.

Why it is written by hand: the published bindings replicate the database in memory and cost seconds of import;
this is one select over three tables, about a millisecond.

What may fail: the server is away (OvsdbLost), vswitchd is away or busy (OvsdbTimeout: the change itself is
made), libvirt changed a row between look and change (OvsdbError). All of them are cured by the next pass.
Rows that others made (libvirt's external_ids) are kept: maps are merged, never replaced.
"""

import threading
import time
from typing import Any, Self

from cumulet.host.jsonrpc import (
    DATABASE,
    Connection,
    OvsdbError,
    OvsdbLost,
    OvsdbTimeout,
    process_identity,
    sibling,
)
from cumulet.host.ovsdb_change import Change
from cumulet.host.ovsdb_rows import Bridge, Op, PortRow, Switch, look_ops, read_switch, select

__all__ = ["Bridge", "Change", "Ovsdb", "OvsdbError", "OvsdbLost", "OvsdbTimeout", "PortRow", "Switch"]

VSWITCHD_PIDFILE = "ovs-vswitchd.pid"


class Ovsdb:
    """A client of one OVSDB server; connects when needed and again when the server came back. Safe for threads."""

    def __init__(self, path: str, timeout_seconds: float = 10.0) -> None:
        self.path = path
        self._timeout = timeout_seconds
        self._lock = threading.Lock()
        self._connection: Connection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        with self._lock:
            self._drop()

    def look(self) -> Switch:
        """The whole switch in one round trip."""
        identity = process_identity(sibling(self.path, VSWITCHD_PIDFILE))
        results = self.transact(look_ops(), wait=False)
        return read_switch(identity, *(result["rows"] for result in results))

    def bridges(self) -> dict[str, Bridge]:
        return dict(self.look().bridges)

    def ports(self, bridge: str) -> dict[str, PortRow]:
        """The bridge's ports by name. Raises OvsdbError when there is no such bridge."""
        found = self.look().bridges.get(bridge)
        if found is None:
            raise OvsdbError(f"no bridge {bridge} in {self.path}")
        return dict(found.ports)

    def change(self, wait: bool = True) -> Change:
        """A builder for one transaction, made on leaving the `with`; `wait` for vswitchd to apply it."""
        return Change(self.look(), lambda ops: self.transact(ops, wait=wait))

    def settle(self, timeout_seconds: float | None = None) -> None:
        """Wait until the running vswitchd has applied everything; after its restart, until it is ready."""
        self.transact([], wait=True, timeout_seconds=timeout_seconds)

    def transact(
        self, ops: list[Op], wait: bool = True, timeout_seconds: float | None = None
    ) -> list[dict[str, Any]]:
        """The results of one transaction of RFC 7047 operations; `wait` for vswitchd to have applied it."""
        limit = self._timeout if timeout_seconds is None else timeout_seconds
        if not wait:
            return self._transact(ops, limit)
        deadline = time.monotonic() + limit
        bump: list[Op] = [
            {"op": "mutate", "table": "Open_vSwitch", "where": [], "mutations": [["next_cfg", "+=", 1]]},
            select("Open_vSwitch", [], ["next_cfg", "cur_cfg"]),
        ]
        results = self._transact([*ops, *bump], limit)
        row = results[-1]["rows"][0]
        self._await(row["next_cfg"], row["cur_cfg"], deadline)
        return results[: len(ops)]

    def _await(self, wanted: int, seen: int, deadline: float) -> None:
        """Wait for cur_cfg to reach `wanted`, sleeping in the server (the `wait` operation)."""
        while seen < wanted:
            left = deadline - time.monotonic()
            if left <= 0:
                raise OvsdbTimeout(f"ovs-vswitchd of {self.path} has not applied configuration {wanted} in time")
            wait = {
                "op": "wait",
                "table": "Open_vSwitch",
                "where": [],
                "columns": ["cur_cfg"],
                "until": "!=",
                "rows": [{"cur_cfg": seen}],
                "timeout": int(left * 1000) + 1,
            }
            try:
                seen = self._transact([wait, select("Open_vSwitch", [], ["cur_cfg"])], left + 1)[1]["rows"][0][
                    "cur_cfg"
                ]
            except OvsdbError as error:
                if isinstance(error, OvsdbLost) or "timed out" not in str(error):
                    raise

    def _transact(self, ops: list[Op], timeout_seconds: float) -> list[dict[str, Any]]:
        with self._lock:
            if self._connection is not None and not self._connection.alive():
                self._drop()
            if self._connection is None:
                self._connection = Connection(self.path, self._timeout)
            try:
                results = self._connection.call("transact", [DATABASE, *ops], timeout_seconds)
            except (OvsdbLost, OvsdbTimeout):
                self._drop()
                raise
        for result in results:
            if result and "error" in result:
                raise OvsdbError(f"{self.path}: {result['error']}: {result.get('details', '')}")
        return list(results)

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
