"""What is told of a run of tempest."""

import json

from cumulet.cli import tempest
from cumulet.cli.tempest import Outcome

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
