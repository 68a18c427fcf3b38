"""The simulated cloud, one per test."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.sim.world import World


@pytest.fixture
def make_world(tmp_path: Path) -> Callable[..., World]:
    """A cloud with two hosts, a public and a private network; options are ``World``'s."""
    return lambda **options: World(tmp_path, **options)


@pytest.fixture
def world(make_world: Callable[..., Any]) -> World:
    found: World = make_world()
    return found
