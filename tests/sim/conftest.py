"""The simulated cloud, one per test."""

from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from cumulet.sim.world import World
from tests import databases
from tests.sim.copies import MEMORY, Prepared, as_after


@pytest.fixture
def make_world() -> Iterator[Callable[..., World]]:
    """A cloud with two hosts, a public and a private network; options are ``World``'s.  Its disk is memory."""
    with TemporaryDirectory(dir=MEMORY) as place:
        yield lambda **options: World(Path(place), url=databases.url(Path(place) / "cloud.sqlite"), **options)


@pytest.fixture
def world(make_world: Callable[..., Any]) -> World:
    found: World = make_world()
    return found


@pytest.fixture
def prepared() -> Iterator[Prepared]:
    """A copy of a cloud to which something has happened."""
    with TemporaryDirectory(dir=MEMORY) as place:
        yield lambda prepare, hints: as_after(
            prepare, Path(place), hints, databases.url(Path(place) / "cloud.sqlite")
        )
