"""Live migration as clients and hosts see it: bodies, codes, texts, policies, what each host is told."""

from typing import Any

import pytest
import sqlalchemy as sa

from cumulet.core import clock
from cumulet.core.tables import notifications
from cumulet.neutron.tables import port_bindings, ports
from cumulet.nova.live_moves import Deadlines
from cumulet.nova.model import Progress, Verb
from cumulet.nova.tables import migrations
from tests.nova.test_moves import Moving

ANYWHERE = {"host": None, "block_migration": "auto"}
PROGRESS = Progress(256, 100, 156, 1 << 40, 1, 2)


class Living(Moving):
    def started(self, **wish: Any) -> tuple[str, str, str]:
        """Ordered by an administrator, and placed."""
        server, source, other = self.server()
        assert self.order(server, **wish)[0] == 202
        self.schedule()
        return server, source, other

    def sending(self) -> tuple[str, str, str]:
        """Its destination is ready."""
        server, source, other = self.started()
        self.says(server, other, "off", ready=True)
        return server, source, other

    def order(self, server: str, version: str = "2.67", user: str = "admin", **wish: Any) -> tuple[int, Any]:
        body = {"os-migrateLive": {**ANYWHERE, **wish}}
        return self.call(user, "POST", f"/servers/{server}/action", body, version)[:2]

    def on_two_of_three(self) -> tuple[str, str, str]:
        """One with a port that is on, its host, and another host."""
        server = self.running(networks=[{"uuid": self.network()}])
        (host,) = self.wanted(server)
        return server, host, min({"h1", "h2", "h3"} - {host})

    def wired(self, server: str) -> set[str]:
        """The hosts that are to wire its ports."""
        bound = sa.select(port_bindings.c.host).join(ports).where(ports.c.server_id == server)
        with self.db.read() as tx:
            return {row.host for row in tx.all(bound)}

    def verb(self, server: str, host: str) -> Verb | None:
        found = [verb for verb in self.intent(server, host).verbs if verb.name == "live-migration"]
        return found[0] if found else None

    def under_way(self, server: str, version: str = "2.80") -> list[Any]:
        found: list[Any] = self.get("admin", f"/servers/{server}/migrations", version)["migrations"]
        return found

    def url(self, server: str) -> str:
        return f"/servers/{server}/migrations/{self.migrations()[0]['id']}"

    def told(self) -> list[str]:
        with self.db.read() as tx:
            kinds = [row.event_type for row in tx.all(sa.select(notifications))]
        prefix = "compute.instance.live_migration."
        return sorted(kind.removeprefix(prefix) for kind in kinds if kind.startswith(prefix))

    def age(self) -> None:
        """Its migrations were ordered long ago."""
        with self.db.transaction() as tx:
            tx.write(
                sa.update(migrations).values(created_at=clock.later(-self.config.compute.live_migration_seconds))
            )

    def ended(self, server: str, source: str, status: str, fault: str | None) -> None:
        """It came to nothing, and the server is what and where it was."""
        assert self.migrations()[0]["status"] == status
        self.says(server, source, "on")
        assert self.state(server) == ("ACTIVE", "active", None)
        assert self.verb(server, source) is None
        for host, wanted in self.wanted(server).items():
            assert wanted == ("run" if host == source else "absent")
            if host != source:
                self.says(server, host, "absent")
        assert self.wanted(server) == {source: "run"}
        assert self.claims(server).memory_mb == 512
        assert sorted([self.used("h1"), self.used("h2")]) == [0, 512]
        actions = self.get("admin", f"/servers/{server}/os-instance-actions")["instanceActions"]
        (order,) = (one for one in actions if one["action"] == "live-migration")
        shown = self.get("admin", f"/servers/{server}/os-instance-actions/{order['request_id']}", "2.84")
        assert shown["instanceAction"]["events"][0]["details"] == fault


@pytest.fixture
def cloud() -> Living:
    return Living()


def test_a_server_goes_to_another_host_as_it_runs(cloud: Living) -> None:
    server, source, other = cloud.server()
    assert cloud.order(server)[0] == 202
    assert cloud.state(server) == ("MIGRATING", "active", "migrating")
    assert cloud.under_way(server)[0]["status"] == "queued"
    cloud.schedule()
    assert cloud.wanted(server) == {source: "run", other: "keep"}
    assert (cloud.used(source), cloud.used(other)) == (512, 512)
    assert cloud.under_way(server)[0]["status"] == "preparing"
    coming, going = cloud.intent(server, other), cloud.intent(server, source)
    assert (coming.receiving, coming.kept, coming.verbs) == (True, True, ())
    assert coming.fetch is not None
    assert (coming.fetch.host, coming.fetch.ticket) == (source, going.ticket)
    assert not going.held
    cloud.says(server, other, "off", waiting="ports to be wired")
    assert cloud.verb(server, source) is None  # not before it can be received
    cloud.says(server, other, "off", ready=True)
    verb = cloud.verb(server, source)
    assert verb is not None
    assert (verb.args["host"], verb.args["ticket"]) == (other, coming.ticket)
    assert (verb.args["force"], verb.args["abort"]) == (False, False)
    assert coming.ticket not in ("", going.ticket)
    known = cloud.intent(server, other).seen
    assert known is not None
    assert known.ready
    cloud.says(server, source, "on", progress=PROGRESS)
    (shown,) = cloud.under_way(server)
    assert (shown["status"], shown["memory_total_bytes"], shown["disk_total_bytes"]) == ("running", 256, 1 << 40)
    assert shown["server_uuid"] == server
    assert cloud.get("admin", cloud.url(server), "2.80")["migration"] == shown
    assert {"uuid", "user_id"} & set(cloud.under_way(server, "2.58")[0]) == set()
    listed = cloud.migrations(version="2.23")[0]
    assert (listed["migration_type"], listed["links"][0]["rel"]) == ("live-migration", "self")
    cloud.says(server, other, "incoming", ready=True)
    cloud.says(server, source, "sent", reached=False)
    assert cloud.wanted(server) == {source: "run", other: "keep"}  # nobody knows whether all of it has arrived
    cloud.says(server, other, "paused", ready=True)
    assert cloud.wanted(server) == {source: "absent", other: "run"}
    assert cloud.state(server) == ("MIGRATING", "active", "migrating")
    assert cloud.under_way(server)[0]["status"] == "post-migrating"
    here = cloud.intent(server, other)
    assert (here.held, here.receiving, here.kept, here.launched, here.verbs) == (False, False, False, True, ())
    cloud.says(server, other, "on")
    assert cloud.state(server) == ("ACTIVE", "active", None)
    assert cloud.show("admin", server)["OS-EXT-SRV-ATTR:host"] == other
    assert (cloud.migrations()[0]["status"], cloud.under_way(server)) == ("completed", [])
    cloud.says(server, source, "absent")
    assert cloud.wanted(server) == {other: "run"}
    assert (cloud.used(source), cloud.used(other)) == (0, 512)
    assert cloud.told() == ["_post.end", "post.dest.end", "post.dest.start", "pre.end", "pre.start"]


def test_what_was_complete_is_handed_over_with_the_sources_word(cloud: Living) -> None:
    server, source, other = cloud.sending()
    cloud.says(server, other, "paused", ready=True)
    assert cloud.wanted(server) == {source: "run", other: "keep"}  # it may go on where it was
    cloud.says(server, source, "sent", reached=False)
    assert cloud.wanted(server) == {source: "absent", other: "run"}


def test_a_paused_server_arrives_paused(cloud: Living) -> None:
    server, source, other = cloud.server()
    cloud.act("alice", server, pause=None)
    cloud.says(server, source, "paused", reached=False)
    assert cloud.order(server)[0] == 202
    assert cloud.state(server) == ("MIGRATING", "paused", "migrating")
    cloud.schedule()
    cloud.says(server, other, "off", ready=True)
    cloud.says(server, source, "sent", reached=False)
    cloud.says(server, other, "paused", ready=True)
    cloud.says(server, other, "paused")
    assert cloud.state(server) == ("PAUSED", "paused", None)


def test_it_fails_and_goes_on_where_it_was(cloud: Living) -> None:
    server, source, _ = cloud.sending()
    verb = cloud.verb(server, source)
    assert verb is not None
    why = "internal error: client socket is closed"
    cloud.says(server, source, "on", verbs_done=(verb.id,), verb_faults={str(verb.id): why})
    cloud.ended(server, source, "error", why)


def test_a_host_that_cannot_receive_it(cloud: Living) -> None:
    server, source, other = cloud.started()
    cloud.says(server, other, "off", fault="no space left")
    cloud.ended(server, source, "error", "no space left")


def test_what_has_not_arrived_goes_on_where_it_was(cloud: Living) -> None:
    server, source, other = cloud.sending()
    before = cloud.intent(server, other).generation
    cloud.says(server, source, "sent", reached=False)
    assert cloud.intent(server, other).generation == before + 1  # it is asked
    cloud.says(server, other, "incoming", ready=True)
    assert cloud.wanted(server) == {source: "run", other: "keep"}
    cloud.says(server, other, "off", ready=True)
    cloud.ended(server, source, "error", f"The server did not arrive on {other}.")


def test_one_that_runs_is_cancelled_by_its_source(cloud: Living) -> None:
    server, source, _ = cloud.sending()
    assert cloud.call("admin", "DELETE", cloud.url(server), version="2.24")[0] == 202
    verb = cloud.verb(server, source)
    assert verb is not None
    assert verb.args["abort"]
    assert cloud.call("admin", "DELETE", cloud.url(server), version="2.24")[0] == 202
    assert cloud.state(server)[0] == "MIGRATING"
    cloud.says(server, source, "on", verbs_done=(verb.id,), verb_faults={str(verb.id): "operation aborted"})
    cloud.ended(server, source, "cancelled", "operation aborted")
    names = [
        one["action"] for one in cloud.get("admin", f"/servers/{server}/os-instance-actions")["instanceActions"]
    ]
    assert names == ["live_migration_cancel", "live_migration_cancel", "live-migration", "create"]


@pytest.mark.parametrize("placed", [True, False])
def test_one_that_waits_is_cancelled_at_once(cloud: Living, placed: bool) -> None:
    server, source, _ = cloud.server()
    assert cloud.order(server)[0] == 202
    if placed:
        cloud.schedule()
    status, text = cloud.refused("admin", "DELETE", cloud.url(server), version="2.64")
    number, word = cloud.migrations()[0]["id"], "preparing" if placed else "queued"
    assert (status, text) == (
        400,
        f"Migration {number} state of instance {server} is {word}. Cannot abort live migration while the migration "
        "is in this state.",
    )
    assert cloud.call("admin", "DELETE", cloud.url(server), version="2.65")[0] == 202
    cloud.schedule()
    cloud.ended(server, source, "cancelled", "The live migration was cancelled.")


def test_it_is_forced_to_its_end(cloud: Living) -> None:
    server, source, other = cloud.started()
    url = cloud.url(server) + "/action"
    assert cloud.refused("admin", "POST", url, {"force_complete": None}, "2.22")[0] == 400
    cloud.says(server, other, "off", ready=True)
    assert cloud.call("admin", "POST", url, {"force_complete": None}, "2.22")[0] == 202
    verb = cloud.verb(server, source)
    assert verb is not None
    assert verb.args["force"]
    cloud.says(server, source, "sent", reached=False)
    cloud.says(server, other, "paused", ready=True)
    assert cloud.refused("admin", "POST", url, {"force_complete": None}, "2.22")[0] == 400  # it has left


def test_a_deadline_and_a_dead_destination(cloud: Living) -> None:
    server, source, other = cloud.started()
    deadlines = Deadlines(cloud.db, cloud.config)
    assert deadlines.read() == {}
    cloud.set_agent(other, forced_down=True)
    for row in deadlines.read().values():
        deadlines.end(row)
        with pytest.raises(KeyError):
            deadlines.read()[row.id]
        deadlines.end(row)
    cloud.ended(server, source, "error", f"Compute service of {other} is unavailable at this time.")
    cloud.set_agent(other, forced_down=False)
    assert cloud.order(server)[0] == 202
    cloud.schedule()
    cloud.says(server, other, "off", ready=True)
    assert deadlines.read() == {}
    cloud.age()
    for row in deadlines.read().values():
        deadlines.end(row)
    assert cloud.migrations()[0]["status"] == "error"
    assert cloud.wanted(server) == {source: "run", other: "absent"}


def test_the_late_word_of_a_host_that_it_was_evacuated_from_takes_no_wire_away(cloud: Living) -> None:
    cloud.add_host("h3")
    server, dead, other = cloud.on_two_of_three()
    cloud.set_agent(dead, forced_down=True)
    cloud.good("admin", "POST", f"/servers/{server}/action", {"evacuate": {"host": other}}, "2.67")
    cloud.schedule()
    cloud.says(server, other, "on")
    assert cloud.order(server)[0] == 202
    cloud.schedule()
    (third,) = {"h1", "h2", "h3"} - {dead, other}
    assert cloud.wired(server) == {other, third}
    cloud.says(server, dead, "absent")
    assert cloud.wanted(server) == {other: "run", third: "keep"}
    assert cloud.wired(server) == {other, third}


def test_deleted_on_its_way(cloud: Living) -> None:
    server, source, other = cloud.sending()
    cloud.call("alice", "DELETE", f"/servers/{server}")
    assert cloud.intent(server, source).absent
    assert cloud.intent(server, other).absent
    cloud.says(server, source, "absent")
    cloud.says(server, other, "absent")
    assert cloud.call("alice", "GET", f"/servers/{server}")[0] == 404
    assert (cloud.used(source), cloud.used(other)) == (0, 0)


def test_an_administrator_takes_it_back(cloud: Living) -> None:
    """At any moment before it is handed over; afterwards it stays where it is."""
    server, source, other = cloud.sending()
    cloud.act("admin", server, **{"os-resetState": {"state": "active"}})
    cloud.ended(server, source, "error", "An administrator has reset the state of the server.")
    assert cloud.order(server)[0] == 202
    cloud.schedule()
    cloud.says(server, other, "off", ready=True)
    cloud.says(server, source, "sent", reached=False)
    cloud.says(server, other, "paused", ready=True)
    cloud.act("admin", server, **{"os-resetState": {"state": "active"}})
    assert cloud.wanted(server) == {source: "absent", other: "run"}


def test_a_liar_ends_nothing(cloud: Living) -> None:
    """A source that says it is done, or a destination that says it runs, is not believed alone."""
    server, source, other = cloud.started()
    cloud.says(server, source, "sent", reached=False)  # before it was let go
    cloud.says(server, other, "paused", ready=True)
    assert cloud.wanted(server) == {source: "run", other: "keep"}
    cloud.says(server, source, "on")
    verb = cloud.verb(server, source)
    assert verb is not None
    cloud.says(server, source, "on", verbs_done=(verb.id,))
    cloud.says(server, other, "on", ready=True)
    assert cloud.wanted(server) == {source: "run", other: "keep"}
    assert cloud.state(server)[0] == "MIGRATING"


@pytest.mark.parametrize(
    ("body", "version", "text"),
    [
        ({"host": None, "block_migration": True}, "2.24", "'disk_over_commit' is a required property"),
        ({"host": None, "block_migration": "auto", "disk_over_commit": False}, "2.24", "is not a boolean"),
        ({**ANYWHERE, "disk_over_commit": False}, "2.25", "'disk_over_commit' was unexpected"),
        ({**ANYWHERE, "force": True}, "2.29", "'force' was unexpected"),
        ({**ANYWHERE, "force": True}, "2.30", "Can't force to a non-provided destination"),
        ({**ANYWHERE, "force": True}, "2.68", "'force' was unexpected"),
        ({"block_migration": "auto"}, "2.30", "host"),
        ({**ANYWHERE, "host": "nowhere"}, "2.30", "Compute host nowhere could not be found."),
        ({**ANYWHERE, "block_migration": False}, "2.33", "is not on shared storage: Shared storage live-migration"),
        ({**ANYWHERE, "host": "{source}"}, "2.33", "Unable to migrate instance ({server}) to current host"),
    ],
)
def test_what_is_refused(cloud: Living, body: dict[str, Any], version: str, text: str) -> None:
    server, source, _ = cloud.server()
    if body.get("host") == "{source}":
        body = {**body, "host": source}
    status, said = cloud.refused(
        "admin", "POST", f"/servers/{server}/action", {"os-migrateLive": body}, version=version
    )
    assert status == 400
    assert text.replace("{server}", server) in said
    assert cloud.state(server)[0] == "ACTIVE"


def test_disks_that_hosts_share_are_not_sent(cloud: Living) -> None:
    server, source, other = cloud.server()
    cloud.add_host("h3")
    cloud.share(source, other)
    for wish, text in (
        ({"block_migration": True}, f"{source} is not on local storage"),
        ({"host": "h3"}, f"{source} is not on shared storage"),
    ):
        status, said = cloud.order(server, "2.33", **wish)
        assert (status, text in said["badRequest"]["message"]) == (400, True)
    cloud.set_agent(other, enabled=False)
    assert cloud.order(server, "2.33")[0] == 400, "nobody else has the disk"
    cloud.set_agent(other, enabled=True)
    assert cloud.order(server, "2.33", block_migration=False)[0] == 202
    cloud.schedule()
    assert cloud.wanted(server)[other] != "absent"


def test_no_host(cloud: Living) -> None:
    """A 400 until 2.33, a failed migration since."""
    server, _, other = cloud.server()
    cloud.set_agent(other, enabled=False)
    status, said = cloud.order(server, "2.33")
    assert (status, said["badRequest"]["message"][:24]) == (400, "No valid host was found.")
    assert cloud.migrations() == []
    assert cloud.order(server, "2.34")[0] == 202
    cloud.schedule()
    assert cloud.migrations()[0]["status"] == "error"
    assert cloud.state(server) == ("ACTIVE", "active", None)
    assert cloud.order(server, "2.34", block_migration=False)[0] == 202
    assert [one["status"] for one in cloud.migrations()] == ["error", "error"]
    assert cloud.order(server, "2.67", host=other)[0] == 202  # named, and checked all the same
    cloud.schedule()
    assert cloud.migrations()[0]["status"] == "error"


def test_who_may(cloud: Living) -> None:
    server, _, _ = cloud.server()
    assert cloud.order(server, user="alice")[0] == 403
    assert cloud.order(server)[0] == 202
    assert cloud.order(server)[0] == 409
    for action in (
        {"os-stop": None},
        {"reboot": {"type": "HARD"}},
        {"migrate": None},
        {"createImage": {"name": "x"}},
    ):
        assert cloud.call("admin", "POST", f"/servers/{server}/action", action)[0] == 409
    assert cloud.call("alice", "DELETE", cloud.url(server), version="2.65")[0] == 403
    assert cloud.call("alice", "GET", f"/servers/{server}/migrations", version="2.23")[0] == 403
    assert cloud.call("alice", "POST", cloud.url(server) + "/action", {"force_complete": None}, "2.22")[0] == 403
    assert cloud.call("admin", "GET", f"/servers/{server}/migrations/77", version="2.23")[0] == 404
    assert cloud.call("admin", "DELETE", f"/servers/{server}/migrations/77", version="2.24")[0] == 404
    assert cloud.call("admin", "DELETE", cloud.url(server), version="2.65")[0] == 202
    status, text = cloud.refused("admin", "DELETE", cloud.url(server), version="2.65")
    assert (status, text) == (
        409,
        f"Cannot 'abort live migration' instance {server} while it is in task_state None",
    )
    status, text = cloud.refused("admin", "GET", cloud.url(server), version="2.65")
    assert (status, text.rsplit(" ", 3)[1:]) == (404, ["not", "in", "progress."])
