"""Clouds that begin where another one was.

To make a cloud, and to bring it to where an operation begins, costs more than the operation.  So it is done once;
each further cloud gets a copy of what outlives processes, the database and the hosts, and starts processes of its
own.  They have all looked once, and found nothing to do, when the operation begins.
"""

import sqlite3
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from cumulet.sim.world import SimHost, World

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
Prepare = Callable[[World], None]
Prepared = Callable[[Prepare, bool], World]
"""From what happens undisturbed, and whether there are hints, to a cloud."""


def nothing(world: World) -> None:
    """A cloud as it is made."""


@dataclass(frozen=True)
class Model:
    world: World  # ended
    hosts: dict[str, SimHost]
    database: bytes


class Copy(World):
    """It goes on where the model's world ended."""

    def __init__(self, model: Model, place: Path, hints: bool) -> None:
        self._model = model
        (place / "cloud.sqlite").write_bytes(model.database)
        super().__init__(place, hints=hints)

    def _furnish(self) -> None:
        was = self._model.world
        self.hosts = deepcopy(self._model.hosts, {id(was): self, id(was.effects): self.effects})
        self.base, self.now, self.console, self.dead = was.base, was.now, was.console, was.dead
        self.boot()
        before = self.db.writes
        for loop in self.loops:
            loop.run_once()
        self.now += 31
        assert self.db.writes == before, "the model's world was not at rest"


def as_after(prepare: Prepare, place: Path, hints: bool = True) -> World:
    """A cloud on which ``prepare`` was done."""
    return Copy(_model(prepare, hints), place, hints)


@cache
def _model(prepare: Prepare, hints: bool) -> Model:
    with TemporaryDirectory(dir=MEMORY) as place:
        world = World(Path(place), hints=hints) if prepare is nothing else as_after(nothing, Path(place), hints)
        prepare(world)
        for host in world.hosts.values():
            host.switch.watch(lambda: None)  # its agent ends
        database = sqlite3.connect(f"{place}/cloud.sqlite")
        model = Model(
            world, deepcopy(world.hosts, {id(world): world, id(world.effects): world.effects}), database.serialize()
        )
        database.close()
        world.loops.clear()
    return model
