"""One keystone for each test, in memory."""

from pathlib import Path

import pytest

from tests.keystone.identity import Keystone


@pytest.fixture
def keystone(tmp_path: Path) -> Keystone:
    return Keystone(tmp_path)
