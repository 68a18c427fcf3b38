"""What tempest is told of a cloud, and what is told of its run."""

import json
from pathlib import Path
from typing import Any, cast

from cumulet.cli import tempest
from cumulet.cli.cloud import Cloud, Refused
from cumulet.cli.tempest import Outcome
from cumulet.core import secrets
from cumulet.core.config import Config

TRACEBACK = """Traceback (most recent call last):
  File "test_x.py", line 1, in test
    self.client.show()
tempest.lib.exceptions.NotFound: Object not found
Details: {'code': 404}
"""


def test_the_reason_is_the_exception_with_what_the_server_said() -> None:
    expected = "tempest.lib.exceptions.NotFound: Object not found Details: {'code': 404}"
    assert tempest.reason({"pythonlogging": "noise", "traceback": TRACEBACK}) == expected
    assert tempest.reason({"reason": "no volumes"}) == "no volumes"
    assert tempest.reason({}) == ""


def test_a_line_of_the_stream_is_an_outcome() -> None:
    line = json.dumps({"name": "a.b", "status": "fail", "details": {"traceback-1": TRACEBACK}})
    outcome = tempest.read_outcome(line)
    assert (outcome.name, outcome.status) == ("a.b", "fail")
    assert outcome.reason.startswith("tempest.lib")


def test_the_summary_counts_and_names_the_failures() -> None:
    found = [
        Outcome("good", "success"),
        Outcome("expected", "xfail"),
        Outcome("bad", "fail", "why"),
        Outcome("hung", "inprogress"),
        Outcome("absent", "skip", "no volumes"),
    ]
    text = tempest.summary(found)
    assert text.splitlines()[:3] == ["Passed: 2", "Failed: 2", "Skipped: 1"]
    assert "  bad\n      why" in text
    assert "hung" in text
    assert "absent" not in text


class FakeCloud:
    """A cloud that has all that a new one has, the action ``pause``, and application credentials' rules."""

    def get(self, service: str, path: str) -> dict[str, Any]:
        known: dict[str, dict[str, Any]] = {
            "/flavors": {"flavors": [{"name": "m1.nano", "id": "1"}, {"name": "m1.tiny", "id": "2"}]},
            "/v2.0/networks": {"networks": [{"name": "public", "id": "p"}, {"name": "private", "id": "q"}]},
            "/services": {"services": [{"type": "compute"}, {"type": "network"}]},
            "/v2/info/import": {"import-methods": {"value": []}},
            "/": {"version": {"min_version": "2.1", "version": "2.100"}},
            "/os-services?binary=nova-compute": {"services": [{}]},
            "/v2.0/extensions": {"extensions": [{"alias": "router"}, {"alias": "agent"}]},
            "/users/u/access_rules": {"access_rules": []},
        }
        if path not in known:
            raise Refused(404, f"Instance {path.split('/')[2]} could not be found.")
        return known[path]

    def post(self, service: str, path: str, body: dict[str, Any]) -> None:
        if "pause" in body:
            raise Refused(404, f"Instance {path.split('/')[2]} could not be found.")
        raise Refused(404 if path.endswith("remote-consoles") else 400, "There is no such thing")

    def find(self, service: str, path: str, name: str) -> dict[str, Any]:
        return {"id": "u"}

    def ensure(self, service: str, path: str, name: str, make: object) -> dict[str, Any]:
        return {"id": name, "status": "active"}


def test_the_configuration_claims_what_the_cloud_has(tmp_path: Path) -> None:
    secrets.ensure(tmp_path)
    config = Config(etc_dir=str(tmp_path))
    options = tempest.options(cast(Cloud, FakeCloud()), config, tmp_path, "http://192.0.2.1")
    compute, network = options["compute-feature-enabled"], options["network-feature-enabled"]
    assert {name for name in tempest.COMPUTE_ACTIONS if compute[name] == "true"} == {"pause"}
    assert compute["vnc_console"] == "false"
    assert compute["interface_attach"] == "true"
    assert network["api_extensions"] == "agent,router"
    assert network["port_security"] == "false"
    assert options["identity-feature-enabled"]["access_rules"] == "true"
    assert options["identity-feature-enabled"]["trust"] == "false"
    assert options["image"]["http_qcow2_image"] == "http://192.0.2.1/cirros.qcow2"
    assert options["compute"]["flavor_ref"] == "1"
    assert options["compute"]["max_microversion"] == "2.100"
    available = options["service_available"]
    assert {name for name, value in available.items() if value == "true"} == {"nova", "neutron"}
