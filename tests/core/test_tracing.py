"""Tracing over nodes: the order is a row, a sign of life brings it to the host, the first answer counts."""

from typing import Any

import pytest
import sqlalchemy as sa

from cumulet.core import clock, moments, tracing
from cumulet.core.bus import LocalBus
from cumulet.core.config import Config
from cumulet.core.context import Context
from cumulet.core.controller import ControllerEnv
from cumulet.core.db import Database
from cumulet.core.heartbeat import Heartbeat
from cumulet.core.moments import Moment
from cumulet.core.secrets import Secrets, host_token
from cumulet.core.tables import trace_answers, traces
from cumulet.nova import conductor
from tests import databases

REQUEST = "req-11111111-1111-4111-8111-111111111111"


class Cloud:
    def __init__(self) -> None:
        bus = LocalBus()
        self.db = Database(databases.url(), bus)
        databases.make_tables(self.db.engine)
        env = ControllerEnv(Config(), self.db, bus, Secrets("a", "host", "m", "r"), lambda token: Context())
        self.app = conductor.build_app(env)

    def call(self, path: str, body: Any, host: str = "c1") -> tuple[int, Any]:
        headers = {"X-Cumulet-Host": host, "X-Cumulet-Host-Token": host_token("host", host)}
        return self.app.call("POST", path, body, headers)[:2]

    def beat(self, host: str = "c1") -> tuple[int, Any]:
        return self.call(f"/hosts/{host}/heartbeat/nova-compute", Heartbeat(clock.now(), {}), host)

    def order(self) -> None:
        with self.db.transaction() as tx:
            tracing.order(tx, REQUEST)

    def told(self) -> dict[str, list[str]]:
        with self.db.read() as tx:
            return {host: [one.text for one in found] for host, found in tracing.read(tx, REQUEST).items()}


@pytest.fixture
def cloud() -> Cloud:
    return Cloud()


def moment(text: str, host: str = "c1") -> Moment:
    return Moment(clock.now(), host, "nova-compute", text)


def test_a_host_answers_once_with_what_it_is_asked_for(cloud: Cloud) -> None:
    assert cloud.beat() == (204, b"")
    cloud.order()
    assert cloud.beat() == (200, {"traces": [REQUEST]})
    assert cloud.call(f"/hosts/c1/traces/{REQUEST}", [moment("started it", host="c2")]) == (204, b"")
    assert cloud.call(f"/hosts/c1/traces/{REQUEST}", [moment("again")]) == (204, b"")
    assert cloud.beat() == (204, b"")
    assert cloud.beat("c2") == (200, {"traces": [REQUEST]})
    assert cloud.call(f"/hosts/c2/traces/{REQUEST}", [], "c2") == (204, b"")
    assert cloud.told() == {"c1": ["started it"], "c2": []}
    with cloud.db.read() as tx:
        assert tracing.read(tx, REQUEST)["c1"][0].host == "c1", "no host speaks for another"
    cloud.order()
    assert cloud.beat() == (200, {"traces": [REQUEST]}), "who asks again gets what was logged since"


def test_nobody_speaks_for_another_or_of_what_nobody_asked(cloud: Cloud) -> None:
    cloud.order()
    assert cloud.call(f"/hosts/c1/traces/{REQUEST}", [], "c2")[0] == 403
    assert cloud.call("/hosts/c1/traces/req-other", [moment("unasked")]) == (204, b"")
    too_long = {"time": "", "host": "", "service": "", "text": "x" * (moments.LONGEST + 1)}
    assert cloud.call(f"/hosts/c1/traces/{REQUEST}", [too_long])[0] == 400
    assert cloud.call(f"/hosts/c1/traces/{REQUEST}", [moment("")] * (moments.MOST + 1))[0] == 400
    assert cloud.told() == {}


def test_what_was_asked_long_ago_is_forgotten(cloud: Cloud) -> None:
    cloud.order()
    cloud.call(f"/hosts/c1/traces/{REQUEST}", [moment("old")])
    with cloud.db.transaction() as tx:
        tx.write(sa.update(traces).values(asked_at=clock.later(-tracing.KEPT_SECONDS - 1)))
        tracing.forget(tx)
        assert (tx.all(sa.select(traces)), tx.all(sa.select(trace_answers))) == ([], [])
