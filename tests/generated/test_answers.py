"""Requests that nobody thought of: what each API's ``/openapi.json`` lets in, as administrator and as member.

schemathesis makes the cases from the documents, good bodies and bad ones, the same in every run.  Names in paths
and ids in bodies are mostly of things that exist, so that a case gets further than a 404; after each case the
database is what it was before.  No answer is a 5xx, and none has a status or a form that the document does not
tell.
"""

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode, Response, checks
from schemathesis.specs.openapi import checks as forms

from tests.attacks.test_policy import FILTERS, NASTY
from tests.generated.world import Case, Operation, World

APIS = ("keystone", "glance-api", "neutron-server", "nova-api")
CHECKS = [forms.status_code_conformance, forms.content_type_conformance, forms.response_schema_conformance]
WITHOUT_A_HOST = "the host of instance"
"""What only a real host can answer: a 503 that says so.  A 501 is what the cloud will not do."""
VERSIONS = st.sampled_from(("compute 2.96", "compute 2.96", "compute 2.1", "compute 2.37", "latest"))
WORDS = st.sampled_from((*NASTY, "1", "0", "true", "x", "-1", "name:asc", "gt:1", "in:a,b")) | st.text(max_size=5)
CASES = settings(
    max_examples=8,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("generated"))


@pytest.mark.parametrize("who", ["admin", "alice"])
@pytest.mark.parametrize("name", APIS)
def test_every_answer_is_announced(world: World, name: str, who: str) -> None:
    good, operations = 0, world.operations(name)
    for operation in operations:
        statuses = attack(world, name, operation, who)
        good += any(status < 400 for status in statuses)
    assert good > len(operations) * (0.5 if who == "admin" else 0.1), "the cases no longer hit what is there"


def attack(world: World, name: str, operation: Operation, who: str) -> list[int]:
    """Send the operation's cases; the statuses of the answers."""
    statuses = []
    good = operation.as_strategy()
    bad = operation.as_strategy(GenerationMode.NEGATIVE) if operation.body else good
    queries = st.dictionaries(st.sampled_from(FILTERS[name]), WORDS, max_size=2)

    @CASES
    @given(good | good | bad, st.sampled_from((True, True, True, False)), queries, VERSIONS)
    def one_by_one(case: Case, aimed: bool, query: dict[str, str], version: str) -> None:
        if aimed:
            world.aim(case)
        if operation.method == "get":
            case.query.update(query)
        try:
            answer = case.call(headers=world.doors.headers(who, OpenStack_API_Version=version))
        finally:
            world.restore()
        check(case, answer)
        statuses.append(answer.status_code)

    one_by_one()
    return statuses


def check(case: Case, answer: Response) -> None:
    known = answer.status_code == 501 or (answer.status_code == 503 and WITHOUT_A_HOST in answer.text)
    case.validate_response(answer, checks=CHECKS if known else [*CHECKS, checks.not_a_server_error])
