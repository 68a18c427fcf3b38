"""A cloud is broken on purpose only if it says that it may be."""

import pytest

from cumulet.cli.lab import REFERENCE, Lab
from cumulet.cli.lab_chaos import LabCampaign
from cumulet.core import topology as topologies
from cumulet.core.errors import BadRequest


def test_a_cloud_that_is_no_lab_is_left_alone() -> None:
    marked = REFERENCE.read_text()
    for text in (marked.replace("lab = true", "lab = false"), marked.replace("lab = true\n", "")):
        assert text != marked
        with pytest.raises(BadRequest, match="not marked as a lab"):
            LabCampaign(Lab("precious", topologies.parse(text)), 1)
