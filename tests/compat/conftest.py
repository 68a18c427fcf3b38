"""One client for all the stories, and openstacksdk in the machine's network."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat.story import Client
from tests.machine import Machine


@pytest.fixture(scope="session")
def running_client(cloud: Machine) -> Iterator[Client]:
    client = Client.start(cloud)
    yield client
    client.end()


@pytest.fixture
def client(running_client: Client, tmp_path: Path) -> Client:
    """What it has kept is forgotten for each test; ``{tmp}`` is a directory that the client sees, too."""
    running_client.kept = {"tmp": str(tmp_path)}
    return running_client
