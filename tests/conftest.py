"""What several rings share: one real cloud on a machine of its own, made once per run."""

from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.machine import Machine

pytest_plugins = ["tests.databases"]

settings.register_profile("cumulet", deadline=None)  # how long a case takes says how busy the machine is
settings.load_profile("cumulet")


@pytest.fixture(scope="session")
def cloud() -> Iterator[Machine]:
    """A running cloud with its first server; ended with everything in it when the run ends."""
    machine = Machine()
    try:
        print(machine.cumulet("up", "--yes", seconds=900))
        yield machine
    finally:
        machine.end()
