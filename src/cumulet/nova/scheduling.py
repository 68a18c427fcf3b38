"""Choosing hosts.  Pure: a batch of wishes and a view of the hosts go in, a decision for each wish comes out.

The view is debited as the batch is placed, so one pass may place thousands of servers and never give the same
memory away twice.  Each wish goes to the fitting host with the most free memory.  Up to ``FULL_SCAN`` hosts all
are looked at; above, an evenly spread sample of ``SAMPLE``, and all only if nothing in the sample fits.  Equal
hosts, and the sample, turn with ``seed``: the same seed gives the same decisions, another one spreads rivals.

A server group narrows the choice: ``affinity`` to the host of its other members once there is one,
``anti-affinity`` to hosts with fewer than so many of them; with ``soft-`` in front such hosts are only tried first.

A hint narrows it to hosts where other servers are, or are not.

The filters are counted only for a wish that fits nowhere; the text names no host, so users may read it.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from cumulet.placement.model import Capacity, Resources

FULL_SCAN = 1000
SAMPLE = 100
DEFAULT_ZONE = "nova"


Filter = tuple[str, Callable[["Room"], bool], str]
Members = Mapping[str, Counter[str]]
"""Server group → host → how many of its members are there."""


@dataclass(frozen=True)
class Group:
    """A server group.  ``most``: members on one host, where its policy is anti-affinity."""

    id: str
    policy: str
    most: int = 1


@dataclass(frozen=True)
class Hint:
    """The user wants one of these hosts, or (``inside`` false) none of them."""

    name: str
    hosts: frozenset[str]
    inside: bool = True

    def lets_in(self, room: "Room") -> bool:
        return (room.host in self.hosts) is self.inside


@dataclass(frozen=True)
class Wish:
    """A server that needs a host.  ``zone`` and ``host`` are as the user asked; empty: any will do."""

    server_id: str
    need: Resources
    overhead_mb: int = 0  # memory of the machine beyond its flavor's
    zone: str = ""
    host: str = ""
    group: Group | None = None
    hints: tuple[Hint, ...] = ()

    @property
    def memory_mb(self) -> int:
        return self.need.memory_mb + self.overhead_mb

    @property
    def claim(self) -> Resources:
        """What is taken from the host: the flavor's and the overhead."""
        return Resources(self.need.vcpus, self.memory_mb, self.need.disk_gb)


class Room:
    """What is left on one host; debited while a batch is placed."""

    __slots__ = ("alive", "capacity", "disk_gb", "enabled", "host", "memory_mb", "vcpus", "zone")

    def __init__(
        self, capacity: Capacity, *, alive: bool = True, enabled: bool = True, zone: str = DEFAULT_ZONE
    ) -> None:
        free = capacity.free
        self.capacity, self.host, self.zone = capacity, capacity.host, zone
        self.alive, self.enabled = alive, enabled
        self.vcpus, self.memory_mb, self.disk_gb = free.vcpus, free.memory_mb, free.disk_gb

    def fits(self, wish: Wish) -> bool:
        need = wish.need
        return self.memory_mb >= wish.memory_mb and self.vcpus >= need.vcpus and self.disk_gb >= need.disk_gb

    def debit(self, wish: Wish) -> None:
        self.vcpus -= wish.need.vcpus
        self.memory_mb -= wish.memory_mb
        self.disk_gb -= wish.need.disk_gb


@dataclass(frozen=True)
class Decision:
    """``capacity`` is the host chosen, as it was seen; None where there is none, and ``fault`` says why."""

    wish: Wish
    capacity: Capacity | None = None
    fault: str = ""


def place(
    batch: Sequence[Wish], view: Iterable[Room], seed: int = 0, members: Members | None = None
) -> list[Decision]:
    """A host for each wish, in the batch's order.  Debits the rooms of ``view``."""
    rooms, there = list(view), _counted(members)
    turned = _turn([room for room in rooms if room.alive and room.enabled], seed)
    zones: dict[str, list[Room]] = {"": turned}
    hosts: dict[str, list[Room]] = {}
    for room in turned:
        zones.setdefault(room.zone, []).append(room)
        hosts.setdefault(room.host, []).append(room)
    decisions = []
    for number, wish in enumerate(batch):
        candidates = zones.get(wish.zone, [])
        if wish.host:
            candidates = [room for room in hosts.get(wish.host, []) if wish.zone in ("", room.zone)]
        if wish.hints:
            candidates = [room for room in candidates if all(hint.lets_in(room) for hint in wish.hints)]
        room_found = _choose(wish, candidates, seed + number, there)
        if room_found is None:
            decisions.append(Decision(wish, fault=explain(wish, rooms, there)))
        else:
            room_found.debit(wish)
            if wish.group:
                there[wish.group.id][room_found.host] += 1
            decisions.append(Decision(wish, room_found.capacity))
    return decisions


def _counted(members: Members | None) -> defaultdict[str, Counter[str]]:
    return defaultdict(Counter, {group: Counter(hosts) for group, hosts in (members or {}).items()})


def _choose(wish: Wish, rooms: Sequence[Room], seed: int, there: Members) -> Room | None:
    """The best room that the wish's group leaves."""
    if wish.group is None:
        return choose_room(wish, rooms, seed)
    taken = there[wish.group.id]
    for level in _levels(wish.group, rooms, taken):
        found = choose_room(wish, level, seed)
        if found is not None:
            return found
    return None


def _levels(group: Group, rooms: Sequence[Room], taken: Counter[str]) -> list[list[Room]]:
    """The rooms that the group lets in, in sets, those that it likes best first."""
    if not group.policy.startswith("soft-"):
        return [[room for room in rooms if _lets_in(group, room, taken)]]
    levels: defaultdict[int, list[Room]] = defaultdict(list)
    for room in rooms:
        levels[taken[room.host]].append(room)
    return [levels[number] for number in sorted(levels, reverse=group.policy == "soft-affinity")]


def _lets_in(group: Group, room: Room, taken: Counter[str]) -> bool:
    if group.policy == "affinity":
        return not taken or taken[room.host] > 0
    return group.policy != "anti-affinity" or taken[room.host] < group.most


def choose_room(wish: Wish, rooms: Sequence[Room], seed: int = 0) -> Room | None:
    """The fitting room with the most free memory; the first of equals."""
    if len(rooms) > FULL_SCAN:
        stride = len(rooms) // SAMPLE
        found = _most_memory(wish, rooms[seed % stride :: stride])
        if found is not None:
            return found
    return _most_memory(wish, rooms)


def explain(wish: Wish, rooms: Sequence[Room], there: Members | None = None) -> str:
    """Why ``wish`` fits nowhere: how many hosts each filter left, in upstream's words and ours."""
    left, counts = list(rooms), []
    for name, keep, note in filters(wish, there):
        left = [room for room in left if keep(room)]
        counts.append(f"{len(left)} left after '{name}'{note}")
        if not left:
            break
    hosts = "1 host" if len(rooms) == 1 else f"{len(rooms)} hosts"
    return f"No valid host was found. {'; '.join([hosts, ', '.join(counts)] if rooms else [hosts])}"


@dataclass(frozen=True)
class Verdict:
    """On one host: the filter that refuses it ("" if none does), and its weight, the memory that is free on it."""

    host: str
    refused_by: str
    weight: int


def judge(wish: Wish, rooms: Iterable[Room], there: Members | None = None) -> list[Verdict]:
    """What ``place`` would think of each host."""
    checks = filters(wish, there)
    return [
        Verdict(room.host, next((name + note for name, keep, note in checks if not keep(room)), ""), room.memory_mb)
        for room in rooms
    ]


def filters(wish: Wish, there: Members | None = None) -> list[Filter]:
    """In order: name, which rooms stay, and a note on what is asked for."""
    need, group = wish.need, wish.group
    overhead = f" + {wish.overhead_mb}" if wish.overhead_mb else ""
    found: list[Filter] = [
        ("alive", lambda room: room.alive, ""),
        ("enabled", lambda room: room.enabled, ""),
    ]
    if wish.zone:
        found.append(("availability_zone", lambda room: room.zone == wish.zone, f" ({wish.zone})"))
    if wish.host:
        found.append(("host", lambda room: room.host == wish.host, f" ({wish.host})"))
    found.extend((hint.name, hint.lets_in, "") for hint in wish.hints)
    if group:
        taken = (there or {}).get(group.id, Counter())
        found.append(("server_group", lambda room: _lets_in(group, room, taken), f" ({group.policy})"))
    return [
        *found,
        ("vcpus", lambda room: room.vcpus >= need.vcpus, f" (needs {need.vcpus})"),
        ("memory_mb", lambda room: room.memory_mb >= wish.memory_mb, f" (needs {need.memory_mb}{overhead})"),
        ("disk_gb", lambda room: room.disk_gb >= need.disk_gb, f" (needs {need.disk_gb})"),
    ]


def _most_memory(wish: Wish, rooms: Sequence[Room]) -> Room | None:
    """The inner loop of placement: nothing here but comparisons."""
    best = None
    most, vcpus, disk_gb = wish.memory_mb - 1, wish.need.vcpus, wish.need.disk_gb
    for room in rooms:
        if room.memory_mb > most and room.vcpus >= vcpus and room.disk_gb >= disk_gb:
            best, most = room, room.memory_mb
    return best


def _turn(rooms: list[Room], seed: int) -> list[Room]:
    start = seed % len(rooms) if rooms else 0
    return rooms[start:] + rooms[:start]


def parse_zone(text: str | None) -> tuple[str, str]:
    """``zone``, ``zone:host`` or ``zone:host:node``, as ``availability_zone`` may say, into zone and host."""
    zone, _, rest = (text or "").partition(":")
    return zone, rest.partition(":")[0]


def room_of(
    view: Mapping[str, Capacity], host: str, *, alive: bool, enabled: bool, zone: str = DEFAULT_ZONE
) -> Room:
    """The room of a host; one that has never said what it has gives nothing."""
    capacity = view.get(host) or Capacity(host, "", 0, {})
    return Room(capacity, alive=alive, enabled=enabled, zone=zone)
