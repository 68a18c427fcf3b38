"""nova-scheduler: every wanted server gets a host with all it needs, or a reason that its user can read."""

from collections.abc import Callable

import pytest
import sqlalchemy as sa

from cumulet.core import clock
from cumulet.neutron import public as neutron
from cumulet.neutron.tables import port_bindings
from cumulet.nova.scheduler import Scheduler
from cumulet.nova.tables import server_groups, servers
from cumulet.placement import public as placement
from cumulet.placement.model import Resources
from cumulet.placement.tables import allocations
from tests.nova.engine_cloud import FLAVOR, Cloud

LONG_AGO = clock.later(-3600)


@pytest.fixture
def cloud() -> Cloud:
    return Cloud()


def used(cloud: Cloud, host: str) -> Resources:
    with cloud.db.read() as tx:
        capacity = placement.find_capacity(tx, host)
    assert capacity is not None
    return capacity.used


def test_a_server_gets_a_host_a_claim_and_bound_ports(cloud: Cloud) -> None:
    cloud.add_host("h1")
    cloud.add_server("s1")
    cloud.bus.sent.clear()
    cloud.place()
    (row,) = cloud.hosts("s1")
    assert (row.host, row.wanted, row.seen_generation, row.seen_power) == ("h1", "run", 0, None)
    assert cloud.server("s1").placed_at
    assert used(cloud, "h1") == Resources(1, 512, 1)
    assert [row.host for row in cloud.all(sa.select(port_bindings))] == ["h1"]
    assert ("nova.hosts.h1", "s1") in cloud.bus.sent
    with cloud.db.read() as tx:
        assert [port.device_id for port in neutron.list_host_ports(tx, "h1")["s1"]] == ["s1"]


def test_what_is_placed_is_not_looked_at_again(cloud: Cloud) -> None:
    cloud.add_host("h1")
    cloud.add_server("s1")
    loop = cloud.place()
    cloud.statements.clear()
    loop.resync()
    loop.run_once()
    assert len(cloud.selects()) == 1


def test_a_batch_spreads_over_hosts_and_none_is_over_committed(cloud: Cloud) -> None:
    for name in ("h1", "h2", "h3"):
        cloud.add_host(name, memory_mb=2048)
    for number in range(14):
        cloud.add_server(f"s{number:02}", with_port=False)
    cloud.place()
    assert sorted(row.host for row in cloud.hosts()) == ["h1"] * 4 + ["h2"] * 4 + ["h3"] * 4
    assert [used(cloud, name).memory_mb for name in ("h1", "h2", "h3")] == [2048] * 3
    refused = [number for number in range(14) if cloud.server(f"s{number:02}").placement_fault]
    assert refused == [12, 13], "the oldest go first"


def test_the_number_of_statements_for_a_batch_without_ports_does_not_grow_with_hosts(cloud: Cloud) -> None:
    for number in range(20):
        cloud.add_host(f"h{number}")
    for number in range(10):
        cloud.add_server(f"s{number}", with_port=False)
    cloud.statements.clear()
    cloud.place()
    assert len(cloud.selects()) == 4 + 10  # the servers, the capacity, the agents, zones; each server's ports


def test_no_room_is_a_fault_that_says_why(cloud: Cloud) -> None:
    cloud.add_host("h1", memory_mb=256)
    cloud.add_host("h2", memory_mb=256)
    cloud.change_agent("h2", enabled=False)
    cloud.add_server("s1")
    loop = cloud.place()
    row = cloud.server("s1")
    assert row.placement_fault == (
        "No valid host was found. 2 hosts; 2 left after 'alive', 1 left after 'enabled', 1 left after 'vcpus' "
        "(needs 1), 0 left after 'memory_mb' (needs 512)"
    )
    assert row.placement_fault_at
    assert row.placed_at is None
    (action,) = cloud.actions("s1")
    assert (action.fault, bool(action.finished_at)) == (row.placement_fault, True)
    assert cloud.events() == ["compute.instance.create.error"]
    cloud.add_host("h3")
    loop.resync()
    loop.run_once()
    assert cloud.hosts("s1") == [], "a fault is final"


def test_memory_beyond_the_flavor_and_all_disks_are_claimed(cloud: Cloud) -> None:
    cloud.config.compute.overhead_memory_mb = 110
    cloud.add_host("h1")
    cloud.add_server("s1", flavor={**FLAVOR, "disk": 5, "ephemeral": 3, "swap": 1500}, root_gb=5)
    cloud.add_server("s2", root_gb=0, flavor={**FLAVOR, "disk": 0})
    cloud.place()
    with cloud.db.read() as tx:
        assert placement.list_allocations(tx, ["s1", "s2"]) == {
            "s1": Resources(1, 622, 10),
            "s2": Resources(1, 622, 1),
        }


@pytest.mark.parametrize("silent", [True, False])
def test_while_no_host_lives_servers_wait_a_minute(cloud: Cloud, silent: bool) -> None:
    if silent:
        cloud.add_host("h1")
        cloud.change_agent("h1", seen_at=LONG_AGO)
    cloud.add_server("s1")
    loop = cloud.place()
    assert cloud.server("s1").placement_fault is None
    assert (loop.failures["s1"].kind, loop.failures["s1"].reason) == ("waiting", "no nova-compute is alive")
    with cloud.db.transaction() as tx:
        tx.write(sa.update(servers).values(created_at=LONG_AGO))
    cloud.place()
    left = "1 host; 0 left after 'alive'" if silent else "0 hosts"
    assert cloud.server("s1").placement_fault == f"No valid host was found. {left}"


def test_a_host_that_never_said_what_it_has_is_waited_for(cloud: Cloud) -> None:
    cloud.add_host("h1")
    with cloud.db.transaction() as tx:
        for table in ("inventories", "providers"):
            tx.write(sa.text(f"delete from {table}"))
    cloud.add_server("s1")
    assert cloud.place().failures["s1"].kind == "waiting"


def test_an_administrator_may_name_the_host(cloud: Cloud) -> None:
    cloud.add_host("small", memory_mb=512)
    cloud.add_host("big", memory_mb=4096)
    cloud.add_server("s1", availability_zone="nova:small")
    cloud.add_server("s2", availability_zone="nova")
    cloud.add_server("s3", availability_zone="nova:other")
    cloud.place()
    assert [row.host for row in cloud.hosts("s1")] == ["small"]
    assert [row.host for row in cloud.hosts("s2")] == ["big"]
    assert cloud.server("s3").placement_fault.endswith("0 left after 'host' (other)")


def interrupt_after_reads(cloud: Cloud, reads: int, interrupt: Callable[[], None]) -> None:
    """Let something happen right after the next reads: the scheduler has looked, but not written yet."""

    def count() -> None:
        nonlocal reads
        reads -= 1
        if reads == 0:
            interrupt()

    cloud.db.after_read = count


def test_a_lost_race_takes_a_fresh_look(cloud: Cloud) -> None:
    """A rival claims between the look and the write; all are placed in the end, nothing is taken twice."""
    for name in ("h1", "h2"):
        cloud.add_host(name, memory_mb=1024)
    cloud.add_server("s1")
    cloud.add_server("s2")

    def rival() -> None:
        with cloud.db.transaction() as tx:
            for capacity in placement.list_capacity(tx):
                placement.claim(tx, f"rival on {capacity.host}", capacity, Resources(1, 512, 1))

    interrupt_after_reads(cloud, 2, rival)
    loop = cloud.place()
    assert loop.failures == {}
    assert sorted(row.host for row in cloud.hosts()) == ["h1", "h2"]
    assert used(cloud, "h1").memory_mb == used(cloud, "h2").memory_mb == 1024


def test_who_loses_every_race_waits_for_the_next_turn(cloud: Cloud) -> None:
    cloud.add_host("h1")
    cloud.add_server("s1")

    def rival() -> None:
        with cloud.db.transaction() as tx:
            (capacity,) = placement.list_capacity(tx)
            placement.claim(tx, f"rival {capacity.generation}", capacity, Resources())

    cloud.db.after_read = rival
    loop = cloud.place()
    assert "h1 has changed" in loop.failures["s1"].reason
    assert cloud.hosts() == []
    assert cloud.server("s1").placed_at is None


@pytest.mark.parametrize("rival", ["delete", "place"])
def test_who_was_deleted_or_placed_meanwhile_is_left_out(cloud: Cloud, rival: str) -> None:
    cloud.add_host("h1")
    cloud.add_server("s1")
    cloud.add_server("s2")

    def interrupt() -> None:
        values = {"deleted_at": clock.now()} if rival == "delete" else {"placed_at": clock.now()}
        with cloud.db.transaction() as tx:
            tx.write(sa.update(servers).where(servers.c.id == "s1").values(values))

    interrupt_after_reads(cloud, 2, interrupt)
    cloud.place()
    assert [row.server_id for row in cloud.hosts()] == ["s2"]
    assert {row.consumer_id for row in cloud.all(sa.select(allocations))} == {"s2"}


def test_one_bad_server_does_not_hold_up_the_batch(cloud: Cloud) -> None:
    """s2's claim is there already, so its batch breaks a unique index."""
    cloud.add_host("h1")
    for name in ("s1", "s2", "s3"):
        cloud.add_server(name)
    with cloud.db.transaction() as tx:
        (capacity,) = placement.list_capacity(tx)
        placement.claim(tx, "s2", capacity, Resources(1, 512, 1))
    loop = cloud.place()
    assert [row.server_id for row in cloud.hosts()] == ["s1", "s3"]
    assert "cannot be placed" in loop.failures["s2"].reason
    assert used(cloud, "h1").memory_mb == 3 * 512


def test_large_backlogs_are_placed_in_batches(cloud: Cloud) -> None:
    for number in range(3):
        cloud.add_host(f"h{number}", vcpus=40, memory_mb=200_000, disk_gb=1000)
    for number in range(250):
        cloud.add_server(f"s{number:03}", with_port=False)
    commits: list[int] = []
    cloud.db.after_write = lambda: commits.append(1)
    cloud.place()
    assert len(cloud.hosts()) == 250
    assert len(commits) == 3


def test_two_schedulers_do_not_part_a_group(cloud: Cloud) -> None:
    """The slower one's view is out of date although its host is not: it looks again."""
    for host in ("h1", "h2"):
        cloud.add_host(host)
    row = {"id": "g", "project_id": "p1", "user_id": "u", "name": "g", "policy": "affinity", "created_at": LONG_AGO}
    with cloud.db.transaction() as tx:
        tx.write(server_groups.insert(), row)
    cloud.add_server("s1", server_group_id="g", with_port=False, availability_zone="nova:h1")
    cloud.add_server("s2", server_group_id="g", with_port=False)
    slow, quick = (Scheduler(cloud.db, cloud.config, seed) for seed in (1, 2))
    (first, second) = (slow.read()[name] for name in ("s1", "s2"))

    def interfere() -> None:
        cloud.db.after_read = None
        assert quick.place_all({"s1": first}) == {}

    cloud.db.after_read = interfere
    assert slow.place_all({"s2": second}) == {}
    assert {row.host for row in cloud.hosts()} == {"h1"}
