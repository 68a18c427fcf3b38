"""The dashboard asks for metrics that there are, by labels that they have."""

import json
import re
from pathlib import Path

from cumulet.core.metrics import REGISTRY

DASHBOARD = Path(__file__).parents[2] / "docs" / "grafana.json"


def test_every_metric_and_label_exists() -> None:
    known = {"cumulet_up"}
    labels = {"service", "instance", "le"}
    for metric in REGISTRY.collect():
        known |= {
            metric.name,
            f"{metric.name}_total",
            f"{metric.name}_bucket",
            f"{metric.name}_sum",
            f"{metric.name}_count",
        }
    for collector in set(REGISTRY._names_to_collectors.values()):
        labels |= set(collector._labelnames)  # type: ignore[attr-defined]
    targets = [target for panel in json.loads(DASHBOARD.read_text())["panels"] for target in panel["targets"]]
    assert len(targets) >= 8
    for target in targets:
        asked = set(re.findall(r"cumulet_\w+", target["expr"]))
        assert asked
        assert asked <= known, asked - known
        named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        assert named <= labels, named - labels
