"""What compute's API has no more, and what is left of it."""

import pytest

from tests.nova.api_cloud import Cloud


@pytest.fixture
def cloud() -> Cloud:
    cloud = Cloud()
    cloud.add_host()
    return cloud


def test_networks_are_not_injected_and_nothing_happens(cloud: Cloud) -> None:
    server = cloud.running()
    url, body = f"/servers/{server}/action", {"injectNetworkInfo": None}
    before = cloud.show("admin", server)
    for version in ("2.1", "2.100"):
        assert cloud.call("admin", "POST", url, body, version) == (202, b"")
    assert cloud.show("admin", server) == before
    assert cloud.refused("alice", "POST", url, body)[0] == 403
    assert cloud.refused("admin", "POST", "/servers/nobody/action", body)[0] == 404
    assert cloud.refused("admin", "POST", url, {"injectNetworkInfo": None, "other": None})[0] == 400


@pytest.mark.parametrize(
    ("method", "url", "body"),
    [
        ("POST", "/servers/any/action", {"resetNetwork": None}),
        ("GET", "/servers/any/consoles", None),
        ("POST", "/servers/any/consoles", None),
        ("GET", "/servers/any/consoles/1", None),
        ("DELETE", "/servers/any/consoles/1", None),
        ("GET", "/servers/any/os-virtual-interfaces", None),
    ],
)
def test_what_is_gone_says_so(cloud: Cloud, method: str, url: str, body: object) -> None:
    assert cloud.refused("alice", method, url, body)[0] == 410
    assert cloud.call("nobody", method, url, body)[0] == 401
