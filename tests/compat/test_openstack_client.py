"""The unmodified ``openstack`` client as people start it: a process for each command; what is said when it fails.

What each command does is told in the tables of the other files, with one process for all of them.
"""

import json

import pytest

from tests.compat.story import Client
from tests.machine import Machine

pytestmark = pytest.mark.compat


def test_first_commands(cloud: Machine) -> None:
    token = cloud.ask("token", "issue")
    assert token["id"].startswith("gAAAA")
    catalog = cloud.ask("catalog", "list")
    assert {service["Type"] for service in catalog} >= {"identity", "image", "network", "compute"}
    (server,) = cloud.ask("server", "list", "--name", "first")
    assert (server["Name"], server["Status"], server["Image"]) == ("first", "ACTIVE", "cirros")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("server", "show", "nothing"), "No Server found for nothing"),
        (("network", "show", "nothing"), "No Network found for nothing"),
        (("image", "show", "nothing"), "No Image found for nothing"),
        (("--os-password", "wrong", "server", "list"), "The request you have made requires authentication"),
        (("--os-project-name", "nothing", "server", "list"), "401"),
    ],
)
def test_what_cannot_be(cloud: Machine, words: tuple[str, ...], expected: str) -> None:
    said = cloud.openstack(*words, check=False)
    assert expected in said
    assert "Traceback" not in said


def test_debug_tells_no_secret(cloud: Machine) -> None:
    """Neither the token nor the password; the client hides what it knows, the cloud must not repeat them."""
    said = cloud.openstack("--debug", "server", "list", check=True)
    password = cloud.run("sed", "-n", "s/^ *password: *//p", "/run/root/.config/openstack/clouds.yaml").strip(
        "\"' \n"
    )
    assert len(password) > 8
    assert password not in said
    assert "gAAAA" not in said


def test_a_list_of_servers_is_three_requests(client: Client) -> None:
    client.run("server list")
    requests = client.run("server list").requests
    assert [line.split("?")[0].rsplit("/", 2)[1:] for line in requests] == [
        ["servers", "detail"],
        ["v2", "images"],
        ["flavors", "detail"],
    ]


def test_versions_are_found_without_a_warning(client: Client) -> None:
    answer = client.run("versions show -f json")
    assert (answer.code, answer.err) == (0, "")
    assert {row["Service Type"] for row in json.loads(answer.out)} >= {"identity", "image", "network", "compute"}
