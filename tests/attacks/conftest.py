"""What the attacks share."""

from pathlib import Path

import pytest

from tests.attacks.doors import Doors


@pytest.fixture
def doors(tmp_path: Path) -> Doors:
    return Doors(tmp_path)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Doors:
    """One cloud for a whole file, for tests that leave it as it was."""
    return Doors(tmp_path_factory.mktemp("shared"))
