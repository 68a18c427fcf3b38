"""Every route against every kind of caller, compared with a table that is worked out from the default rules.

The table's side knows the rules' texts, who the callers are and whose things the URLs name; it reads the rule
language with a reader of its own (``tests.attacks.rules``).  Nothing is ever changed: the database refuses each
write with a status of its own, which here means that the caller was let in.  A row of the table that the cloud
answers otherwise is a difference, and there must be none (API-7).
"""

from collections.abc import Mapping

import msgspec
import pytest

from cumulet.core.policy import AUTHENTICATED, Policies, PolicyError
from tests.attacks.policy_table import BEYOND, FRONTS, RULES, Table


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    return Table(tmp_path_factory.mktemp("table"))


def defaults(table: Table) -> dict[str, Mapping[str, str]]:
    from cumulet.glance.policies import DEFAULTS as GLANCE
    from cumulet.keystone.policies import DEFAULTS as KEYSTONE
    from cumulet.neutron.policies import DEFAULTS as NEUTRON
    from cumulet.nova.policies import DEFAULTS as NOVA

    return {"keystone": KEYSTONE, "glance": GLANCE, "neutron": NEUTRON, "nova": NOVA}


def test_every_route_answers_everybody_as_the_default_rules_say(table: Table) -> None:
    found = table.differences(defaults(table))
    assert not found, "\n".join(found)


def test_the_table_sees_a_rule_that_is_not_kept(table: Table) -> None:
    """One rule of the table changed: exactly its routes differ."""
    texts = {project: dict(rules) for project, rules in defaults(table).items()}
    texts["keystone"]["identity:list_users"] = "@"
    texts["nova"]["os_compute_api:servers:show"] = "!"
    found = table.differences(texts)
    assert {line.split(" (")[1].split(")")[0] for line in found} == {
        "identity:list_users",
        "os_compute_api:servers:show",
    }
    assert any("bob may GET /v3/users " in line for line in found)
    assert any("alice may not GET /v2.1/servers/{id} " in line for line in found)


@pytest.mark.parametrize("app", FRONTS)
def test_what_an_operator_writes_counts_at_once_for_every_route(table: Table, app: str) -> None:
    """``policy.d/<project>.yaml``: every rule given to nobody, then to everybody.  Rules alone are asked about."""
    project, doors = FRONTS[app], table.doors
    file = doors.config.etc / "policy.d" / f"{project}.yaml"
    file.parent.mkdir(exist_ok=True)
    kept = doors.apps[app].policies
    mine = [
        (name, route)
        for name, route in table.routes()
        if name == app and route.policy != AUTHENTICATED and (name, f"{route.method} {route.path}") not in BEYOND
    ]
    rules = {RULES.get((name, f"{route.method} {route.path}"), route.policy) for name, route in mine}
    try:
        for text in ("!", "@"):
            file.write_bytes(msgspec.yaml.encode(dict.fromkeys(rules, text)))
            doors.apps[app].policies = doors.env.policies(project, dict(defaults(table)[project]))
            for name, route in mine:
                who = "admin" if text == "!" else "nora"
                status, data = table.knock(who, name, route)
                refused = status == 403 and any(rule in str(data) for rule in rules)
                assert refused is (text == "!") or status == 404, (text, route.method, route.path, status, data)
    finally:
        doors.apps[app].policies = kept
        file.unlink()


def test_an_override_of_a_rule_that_there_is_not_is_refused(table: Table) -> None:
    with pytest.raises(PolicyError, match="no_such_rule"):
        Policies(dict(defaults(table)["nova"]), {"no_such_rule": "@"})


def test_every_route_has_a_rule(table: Table) -> None:
    """With a text of its own among the project's defaults; none is made up at the route."""
    for app, route in table.routes():
        if route.policy != AUTHENTICATED:
            assert route.policy in defaults(table)[FRONTS[app]], (app, route.method, route.path)


def test_most_routes_are_told_apart(table: Table) -> None:
    """A body that no one's request gets by with says nothing about who was let in; few routes may be so."""
    blind = [f"{app} {route.method} {route.path}" for app, route in table.routes()
             if table.knock("admin", app, route)[0] in (400, 404)]  # fmt: skip
    assert len(blind) < len(table.routes()) / 6, blind
