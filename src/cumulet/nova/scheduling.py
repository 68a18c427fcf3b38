"""Choosing hosts.  Pure: a batch of wishes and a view of the hosts go in, a decision for each wish comes out.

The view is debited as the batch is placed, so one pass may place thousands of servers and never give the same
memory away twice.  Each wish goes to the fitting host with the most free memory.  Up to ``FULL_SCAN`` hosts all
are looked at; above, an evenly spread sample of ``SAMPLE``, and all only if nothing in the sample fits.  Equal
hosts, and the sample, turn with ``seed``: the same seed gives the same decisions, another one spreads rivals.

The filters are counted only for a wish that fits nowhere; the text names no host, so users may read it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from cumulet.placement.model import Capacity, Resources

FULL_SCAN = 1000
SAMPLE = 100
DEFAULT_ZONE = "nova"


@dataclass(frozen=True)
class Wish:
    """A server that needs a host.  ``zone`` and ``host`` are as the user asked; empty: any will do."""

    server_id: str
    need: Resources
    overhead_mb: int = 0  # memory of the machine beyond its flavor's
    zone: str = ""
    host: str = ""

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


def place(batch: Sequence[Wish], view: Iterable[Room], seed: int = 0) -> list[Decision]:
    """A host for each wish, in the batch's order.  Debits the rooms of ``view``."""
    rooms = list(view)
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
        room_found = choose_room(wish, candidates, seed + number)
        if room_found is None:
            decisions.append(Decision(wish, fault=explain(wish, rooms)))
        else:
            room_found.debit(wish)
            decisions.append(Decision(wish, room_found.capacity))
    return decisions


def choose_room(wish: Wish, rooms: Sequence[Room], seed: int = 0) -> Room | None:
    """The fitting room with the most free memory; the first of equals."""
    if len(rooms) > FULL_SCAN:
        stride = len(rooms) // SAMPLE
        found = _most_memory(wish, rooms[seed % stride :: stride])
        if found is not None:
            return found
    return _most_memory(wish, rooms)


def explain(wish: Wish, rooms: Sequence[Room]) -> str:
    """Why ``wish`` fits nowhere: how many hosts each filter left, in upstream's words and ours."""
    left, counts = list(rooms), []
    for name, keep, note in _filters(wish):
        left = [room for room in left if keep(room)]
        counts.append(f"{len(left)} left after '{name}'{note}")
        if not left:
            break
    hosts = "1 host" if len(rooms) == 1 else f"{len(rooms)} hosts"
    return f"No valid host was found. {'; '.join([hosts, ', '.join(counts)] if rooms else [hosts])}"


def _filters(wish: Wish) -> list[tuple[str, Callable[[Room], bool], str]]:
    """In order: name, which rooms stay, and a note on what is asked for."""
    need = wish.need
    overhead = f" + {wish.overhead_mb}" if wish.overhead_mb else ""
    filters: list[tuple[str, Callable[[Room], bool], str]] = [
        ("alive", lambda room: room.alive, ""),
        ("enabled", lambda room: room.enabled, ""),
    ]
    if wish.zone:
        filters.append(("availability_zone", lambda room: room.zone == wish.zone, f" ({wish.zone})"))
    if wish.host:
        filters.append(("host", lambda room: room.host == wish.host, f" ({wish.host})"))
    return [
        *filters,
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


def room_of(view: Mapping[str, Capacity], host: str, *, alive: bool, enabled: bool) -> Room:
    """The room of a host; one that has never said what it has gives nothing."""
    capacity = view.get(host) or Capacity(host, "", 0, {})
    return Room(capacity, alive=alive, enabled=enabled)
