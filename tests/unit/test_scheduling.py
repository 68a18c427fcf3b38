"""Choosing hosts: never over-committed, deterministic, and a failure that says why."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from cumulet.nova.scheduling import SAMPLE, Decision, Group, Room, Wish, parse_zone, place
from cumulet.placement.model import DISK_GB, MEMORY_MB, VCPU, Capacity, Inventory, Resources


def capacity(host: str, vcpus: int = 4, memory_mb: int = 8192, disk_gb: int = 100, used: int = 0) -> Capacity:
    stock = {VCPU: Inventory(vcpus), MEMORY_MB: Inventory(memory_mb, used=used), DISK_GB: Inventory(disk_gb)}
    return Capacity(host, f"id of {host}", 1, stock)


capacities = st.lists(
    st.builds(
        capacity,
        st.sampled_from([f"h{n}" for n in range(12)]),
        st.integers(0, 8),
        st.integers(0, 16),
        st.integers(0, 40),
        st.integers(0, 20),
    ),
    max_size=12,
    unique_by=lambda c: c.host,
)
wishes = st.lists(
    st.builds(
        Wish,
        st.uuids().map(str),
        st.builds(Resources, st.integers(0, 4), st.integers(0, 8), st.integers(0, 20)),
        st.integers(0, 2),
        st.sampled_from(["", "nova", "mars"]),
        st.sampled_from(["", "", "h1", "h99"]),
    ),
    max_size=30,
)
states = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=12, max_size=12)


def rooms(hosts: list[Capacity], flags: list[tuple[bool, bool]]) -> list[Room]:
    return [Room(host, alive=alive, enabled=enabled) for host, (alive, enabled) in zip(hosts, flags, strict=False)]


@settings(max_examples=500)
@given(wishes, capacities, states, st.integers(0, 1 << 32))
def test_never_over_committed_and_always_as_asked(
    batch: list[Wish], hosts: list[Capacity], flags: list[tuple[bool, bool]], seed: int
) -> None:
    taken: dict[str, Resources] = {}
    good = {host.host for host, flag in zip(hosts, flags, strict=False) if flag == (True, True)}
    for decision in place(batch, rooms(hosts, flags), seed):
        if decision.capacity is None:
            assert decision.fault.startswith("No valid host was found. ")
            continue
        host = decision.capacity
        taken[host.host] = taken.get(host.host, Resources()) + decision.wish.claim
        assert host.host in good
        assert decision.wish.host in ("", host.host)
        assert decision.wish.zone != "mars"
    for host in hosts:
        used = taken.get(host.host)
        if used:
            assert used.vcpus <= host.free.vcpus
            assert used.memory_mb <= host.free.memory_mb
            assert used.disk_gb <= host.free.disk_gb


@given(wishes, capacities, states, st.integers(0, 1 << 32))
def test_the_same_seed_gives_the_same_decisions(
    batch: list[Wish], hosts: list[Capacity], flags: list[tuple[bool, bool]], seed: int
) -> None:
    assert place(batch, rooms(hosts, flags), seed) == place(batch, rooms(hosts, flags), seed)


@given(wishes, capacities, st.integers(0, 1 << 32))
def test_refused_only_if_it_fits_nowhere(batch: list[Wish], hosts: list[Capacity], seed: int) -> None:
    view = [Room(host) for host in hosts]
    for wish in batch:
        (decision,) = place([wish], view, seed)
        fitting = [
            room for room in view if room.fits(wish) and wish.host in ("", room.host) and wish.zone != "mars"
        ]
        if decision.capacity is None:
            assert fitting == []


def test_the_most_free_memory_wins_and_a_batch_spreads() -> None:
    view = [Room(capacity("small", memory_mb=2048)), Room(capacity("big", vcpus=9, memory_mb=8192))]
    batch = [Wish(str(number), Resources(1, 1024, 1)) for number in range(9)]
    chosen = [host(decision) for decision in place(batch, view)]
    assert chosen[:6] == ["big"] * 6
    assert sorted(chosen) == ["big"] * 7 + ["small"] * 2


def host(decision: Decision) -> str:
    return decision.capacity.host if decision.capacity else decision.fault


def test_another_seed_spreads_equal_hosts() -> None:
    hosts = [capacity(f"h{number}") for number in range(10)]
    wish = Wish("s", Resources(1, 1, 1))
    assert len({host(place([wish], [Room(h) for h in hosts], seed)[0]) for seed in range(10)}) == 10


def test_the_text_says_how_many_hosts_each_filter_left() -> None:
    view = [Room(capacity(f"h{number}"), alive=number > 0) for number in range(4)]
    (decision,) = place([Wish("s", Resources(1, 9000, 1), overhead_mb=110)], view)
    assert decision.fault == (
        "No valid host was found. 4 hosts; 3 left after 'alive', 3 left after 'enabled', 3 left after 'vcpus' "
        "(needs 1), 0 left after 'memory_mb' (needs 9000 + 110)"
    )
    (decision,) = place([Wish("s", Resources(1, 1, 1), zone="mars")], view)
    assert decision.fault.endswith("3 left after 'enabled', 0 left after 'availability_zone' (mars)")
    (decision,) = place([Wish("s", Resources(1, 1, 1), host="h0", zone="nova")], view)
    assert decision.fault.endswith("3 left after 'availability_zone' (nova), 0 left after 'host' (h0)")
    (decision,) = place([Wish("s", Resources(1, 1, 1))], [])
    assert decision.fault == "No valid host was found. 0 hosts"


def test_above_a_thousand_hosts_a_sample_is_looked_at_and_all_if_nothing_in_it_fits() -> None:
    hosts = [capacity(f"h{number:04}", memory_mb=1000) for number in range(3000)]
    hosts[1234] = capacity("h1234", memory_mb=64000)
    wish = Wish("s", Resources(1, 500, 1))
    found = {host(place([wish], [Room(h) for h in hosts], seed)[0]) for seed in range(40)}
    assert len(found) > SAMPLE // 10
    big = Wish("s", Resources(1, 32000, 1))
    assert {host(place([big], [Room(h) for h in hosts], seed)[0]) for seed in range(40)} == {"h1234"}


def test_a_host_that_has_shrunk_below_its_use_gets_nothing() -> None:
    (decision,) = place([Wish("s", Resources(0, 1, 0))], [Room(capacity("h", memory_mb=10, used=12))])
    assert "0 left after 'memory_mb'" in decision.fault


def test_the_zone_may_name_a_host() -> None:
    assert parse_zone(None) == ("", "")
    assert parse_zone("nova") == ("nova", "")
    assert parse_zone("nova:h1") == ("nova", "h1")
    assert parse_zone("nova:h1:h1") == ("nova", "h1")
    assert parse_zone(":h1") == ("", "h1")


policies = st.sampled_from(["affinity", "anti-affinity", "soft-affinity", "soft-anti-affinity"])
SMALL = Resources(1, 1, 1)


@given(policies, st.integers(1, 3), st.integers(1, 12), capacities, st.sampled_from([None, "h1"]))
def test_a_group_is_kept_together_or_apart(
    policy: str, most: int, number: int, hosts: list[Capacity], before: str | None
) -> None:
    group = Group("g", policy, most)
    batch = [Wish(str(n), SMALL, group=group) for n in range(number)]
    there = {"g": Counter({before: 1} if before else {})}
    decisions = place(batch, [Room(host) for host in hosts], 7, there)
    placed = Counter(one.capacity.host for one in decisions if one.capacity)
    together = placed + there["g"]
    refused = [one for one in decisions if one.capacity is None]
    if policy == "affinity":
        assert len(together) <= 1
    if policy == "anti-affinity":
        assert all(count <= most for count in together.values())
    if policy.startswith("soft-"):
        alone = place([Wish(str(n), SMALL) for n in range(number)], [Room(host) for host in hosts], 7)
        assert len(refused) == len([one for one in alone if one.capacity is None]), "a wish, not a condition"
    assert there == {"g": Counter({before: 1} if before else {})}, "what is given is not changed"


def test_soft_policies_are_kept_while_there_is_room() -> None:
    hosts = [capacity(name, vcpus=2) for name in ("a", "b", "c")]

    def spread(policy: str) -> list[int]:
        batch = [Wish(str(n), SMALL, group=Group("g", policy)) for n in range(3)]
        found = place(batch, [Room(host) for host in hosts])
        return sorted(Counter(one.capacity.host for one in found if one.capacity).values())

    assert spread("soft-affinity") == [1, 2]
    assert spread("soft-anti-affinity") == [1, 1, 1]


def test_why_a_group_lets_nobody_in() -> None:
    batch = [Wish(str(n), SMALL, group=Group("g", "anti-affinity")) for n in range(2)]
    assert place(batch, [Room(capacity("a"))])[1].fault == (
        "No valid host was found. 1 host; 1 left after 'alive', 1 left after 'enabled', "
        "0 left after 'server_group' (anti-affinity)"
    )
