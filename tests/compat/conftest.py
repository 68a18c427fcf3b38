"""One client for all the stories, and openstacksdk in the machine's network."""

import os
from collections.abc import Iterator
from pathlib import Path

import openstack
import pytest
import yaml
from openstack.connection import Connection

from cumulet.host import netns
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


@pytest.fixture(scope="session")
def clouds(cloud: Machine) -> str:
    """The file clouds.yaml of who is logged in on the machine."""
    return cloud.run("cat", "/run/root/.config/openstack/clouds.yaml")


@pytest.fixture
def connection(cloud: Machine, clouds: str) -> Iterator[Connection]:
    """openstacksdk as the administrator; while it is there, this process is in the machine's network."""
    known = yaml.safe_load(clouds)["clouds"]["cumulet"]
    network = os.open(f"/proc/{cloud.process_id}/ns/net", os.O_RDONLY)
    try:
        with (
            netns.enter_fd(network),
            openstack.connect(load_yaml_config=False, load_envvars=False, **known) as connection,
        ):
            yield connection
    finally:
        os.close(network)
