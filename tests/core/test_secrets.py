"""The file of secrets: a controller's has the cloud's, any other node's only its own."""

from pathlib import Path

import pytest

from cumulet.core import secrets


def test_the_clouds_secrets_are_made_once_and_are_private(tmp_path: Path) -> None:
    made = secrets.ensure(tmp_path)
    assert secrets.ensure(tmp_path) == made
    assert secrets.path(tmp_path).stat().st_mode & 0o777 == 0o600
    assert made.host_secret not in repr(made)


def test_a_controllers_own_agents_derive_what_they_need(tmp_path: Path) -> None:
    cloud = secrets.ensure(tmp_path)
    own = secrets.load_host(tmp_path, "c1")
    assert own.host_token == secrets.host_token(cloud.host_secret, "c1")
    assert own.metadata_secret == cloud.metadata_secret


@pytest.mark.parametrize("metadata", [True, False])
def test_another_node_has_only_its_own(tmp_path: Path, metadata: bool) -> None:
    cloud = secrets.generate()
    own = secrets.host_secrets(cloud, "h1", metadata)
    secrets.write(tmp_path, own)
    text = secrets.path(tmp_path).read_text()
    assert secrets.path(tmp_path).stat().st_mode & 0o777 == 0o600
    assert secrets.load_host(tmp_path, "h1") == own
    assert (cloud.metadata_secret in text) is metadata
    assert not any(value in text for value in (cloud.host_secret, cloud.admin_password, cloud.registry_secret))
    assert own.host_token not in repr(own)
