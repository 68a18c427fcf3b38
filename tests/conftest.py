"""What several rings share: one real cloud on a machine of its own, made once per run."""

import gc
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.machine import Machine

pytest_plugins = ["tests.databases"]

settings.register_profile("cumulet", deadline=None)  # how long a case takes says how busy the machine is
settings.load_profile("cumulet")


GARBAGE = 10_000
"""How many new objects make the collector look: it is a fifth of the run's time at Python's own 700."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Who is on the one cloud is marked as such, and may run beside the others that have real parts."""
    for item in items:
        if isinstance(item, pytest.Function) and "cloud" in item.fixturenames and _is_real(item):
            item.add_marker("cloud")


def _is_real(item: pytest.Item) -> bool:
    return any(item.get_closest_marker(ring) for ring in ("host", "compat"))


def pytest_collection_finish() -> None:
    """What was imported stays to the end; the collector need not look at it again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE, 5, 5)


@pytest.fixture(scope="session")
def cloud() -> Iterator[Machine]:
    """A running cloud with its first server; ended with everything in it when the run ends."""
    machine = Machine()
    try:
        print(machine.cumulet("up", "--yes", seconds=900))
        yield machine
    finally:
        machine.end()
