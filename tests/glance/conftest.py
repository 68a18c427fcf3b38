"""The fixture that glance's tests share."""

from pathlib import Path

import pytest

from tests.glance.rig import Glance, glance_in


@pytest.fixture
def glance(tmp_path: Path) -> Glance:
    return glance_in(tmp_path)
