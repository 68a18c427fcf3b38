"""Clouds that begin where another one was.

To make a cloud, and to bring it to where an operation begins, costs more than the operation.  So it is done once;
each further cloud gets a copy of what outlives processes, the database and the hosts, and starts processes of its
own.  They have all looked once, and found nothing to do, when the operation begins.  The model is on SQLite; the
copy may be on another database.
"""

import sqlite3
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import sqlalchemy as sa

from cumulet.core.tables import metadata
from cumulet.sim.host import SimHost
from cumulet.sim.world import World

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

    @cached_property
    def rows(self) -> list[tuple[sa.Table, list[dict[str, Any]]]]:
        """What the database holds."""
        with TemporaryDirectory(dir=MEMORY) as place:
            Path(place, "cloud.sqlite").write_bytes(self.database)
            with sa.create_engine(f"sqlite:///{place}/cloud.sqlite").connect() as connection:
                tables = metadata.sorted_tables
                found = [(table, connection.execute(sa.select(table)).mappings().all()) for table in tables]
        return [(table, [dict(row) for row in rows]) for table, rows in found if rows]


class Copy(World):
    """It goes on where the model's world ended.  ``url``: of an empty database that has its tables."""

    def __init__(self, model: Model, place: Path, hints: bool, url: str = "") -> None:
        self._model = model
        (place / "cloud.sqlite").write_bytes(model.database)
        super().__init__(place, hints=hints, url=url)

    def _furnish(self) -> None:
        was = self._model.world
        self.hosts = deepcopy(self._model.hosts, {id(was): self, id(was.effects): self.effects})
        self.base, self.now, self.console, self.dead = was.base, was.now, was.console, was.dead
        if self.db.engine.dialect.name != "sqlite":
            self._fill()
        self.boot()
        before = self.db.writes
        for loop in self.loops:
            loop.run_once()
        self.now += 31
        assert self.db.writes == before, "the model's world was not at rest"

    def _fill(self) -> None:
        with self.db.engine.begin() as connection:
            for table, rows in self._model.rows:
                connection.execute(table.insert(), rows)


def as_after(prepare: Prepare, place: Path, hints: bool = True, url: str = "") -> World:
    """A cloud on which ``prepare`` was done."""
    return Copy(_model(prepare, hints), place, hints, url)


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
