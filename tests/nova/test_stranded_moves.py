"""A destination that dies before it was let go on costs nothing; one that was let go on is waited for."""

import pytest

from cumulet.core.errors import Retry
from cumulet.nova import hosts, stranded_moves
from cumulet.nova.model import FETCHES, ServerIntent
from cumulet.nova.stranded_moves import Stranded
from tests.nova.test_moves import Moving

GONE = {"seen_at": "2020-01-01T00:00:00.000000Z"}


class Stranding(Moving):
    def __init__(self) -> None:
        super().__init__()
        self.loop = Stranded(self.db, self.config)

    def moving(self) -> tuple[str, str, str]:
        """A server that shall go to another host, with both hosts."""
        server, source, other = self.server()
        self.set_agent(source, enabled=False)
        self.act("alice", server, resize={"flavorRef": self.large})
        self.schedule()
        return server, source, other

    def fetching(self) -> tuple[str, str, str]:
        """The same, when the source has ceased; the destination fetches the disk before it is let go on."""
        server, source, other = self.moving()
        self.set_agent(other, details={FETCHES: True})
        self.says(server, source, "off")
        return server, source, other

    def reads(self, server: str, host: str) -> ServerIntent:
        """As the host itself does."""
        return hosts.read_intents(self.db, host, "secret")[server]

    def tidy(self) -> int:
        found = self.loop.read()
        for row in found.values():
            self.loop.end(row)
        return len(found)


@pytest.fixture
def cloud() -> Stranding:
    return Stranding()


def test_it_falls_back_if_its_destination_has_not_begun(cloud: Stranding) -> None:
    server, source, other = cloud.moving()
    assert cloud.reads(server, other).held
    cloud.says(server, source, "off")
    assert cloud.tidy() == 0
    cloud.set_agent(other, **GONE)
    assert cloud.tidy() == 1
    assert cloud.tidy() == 0
    assert cloud.wanted(server) == {source: "run", other: "absent"}
    assert not cloud.reads(server, source).held
    assert cloud.reads(server, other).absent
    cloud.says(server, source, "on")
    assert cloud.state(server) == ("ACTIVE", "active", None)
    assert cloud.show("alice", server)["flavor"]["ram"] == 512
    (migration,) = cloud.migrations()
    assert migration["status"] == "error"
    cloud.says(server, other, "absent")
    assert (cloud.used(source), cloud.used(other)) == (512, 0)
    assert cloud.wanted(server) == {source: "run"}


def test_it_waits_for_a_destination_that_may_have_begun(cloud: Stranding) -> None:
    server, source, other = cloud.moving()
    cloud.says(server, source, "off")
    assert not cloud.reads(server, other).held
    cloud.set_agent(other, **GONE)
    assert cloud.tidy() == 0
    assert cloud.state(server)[0] == "RESIZE"
    assert cloud.wanted(server) == {source: "keep", other: "run"}


def test_who_asks_first_wins(cloud: Stranding) -> None:
    """Between looking and giving up the destination has come back."""
    server, source, other = cloud.moving()
    cloud.says(server, source, "off")
    cloud.set_agent(other, **GONE)
    (row,) = cloud.loop.read().values()
    assert not cloud.reads(server, other).held
    with pytest.raises(Retry, match="has changed meanwhile"), cloud.db.transaction() as tx:
        stranded_moves.give_up(tx, row)
    assert cloud.tidy() == 0
    assert cloud.wanted(server) == {source: "keep", other: "run"}


def test_an_evacuation_is_not_held(cloud: Stranding) -> None:
    server, source, other = cloud.server()
    cloud.set_agent(source, **GONE)
    cloud.act("admin", server, evacuate={})
    cloud.schedule()
    assert not cloud.reads(server, other).held
    cloud.set_agent(other, **GONE)
    assert cloud.tidy() == 0


def test_a_destination_may_die_while_it_fetches_the_disk(cloud: Stranding) -> None:
    server, source, other = cloud.fetching()
    coming = cloud.reads(server, other)
    assert (coming.held, coming.fetching, coming.fetch is not None) == (True, True, True)
    cloud.says(server, other, "off", waiting="the word that it may run here")
    assert cloud.tidy() == 0
    cloud.set_agent(other, **GONE)
    assert cloud.tidy() == 1
    assert cloud.wanted(server) == {source: "run", other: "absent"}
    assert not cloud.reads(server, source).held
    cloud.says(server, source, "on")
    assert cloud.state(server) == ("ACTIVE", "active", None)
    (action, *_) = cloud.get("admin", f"/servers/{server}/os-instance-actions")["instanceActions"]
    url = f"/servers/{server}/os-instance-actions/{action['request_id']}"
    (event,) = cloud.get("admin", url)["instanceAction"]["events"]
    assert event["details"] == f"Compute service of {other} is unavailable at this time."
    assert cloud.reads(server, other).absent
    cloud.says(server, other, "absent")
    assert (cloud.used(source), cloud.used(other)) == (512, 0)


def test_it_is_let_go_on_when_it_has_the_disk(cloud: Stranding) -> None:
    server, _, other = cloud.fetching()
    cloud.says(server, other, "off", ready=True)
    coming = cloud.reads(server, other)
    assert (coming.held, coming.fetching) == (False, False)
    assert coming.seen is not None
    assert coming.seen.ready  # nothing that it would have to say again
    cloud.set_agent(other, **GONE)
    assert cloud.tidy() == 0
    cloud.says(server, other, "on")
    assert cloud.state(server) == ("VERIFY_RESIZE", "resized", None)


def test_what_is_off_has_arrived_with_its_disk(cloud: Stranding) -> None:
    server, source, other = cloud.server()
    cloud.act("alice", server, **{"os-stop": None})
    cloud.says(server, source, "off")
    cloud.set_agent(source, enabled=False)
    cloud.act("alice", server, resize={"flavorRef": cloud.large})
    cloud.schedule()
    cloud.set_agent(other, details={FETCHES: True})
    cloud.says(server, source, "off")
    assert cloud.reads(server, other).fetching
    cloud.says(server, other, "off", ready=True)
    assert cloud.state(server)[0] == "VERIFY_RESIZE"
    cloud.set_agent(other, **GONE)
    assert cloud.tidy() == 0
