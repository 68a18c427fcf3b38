"""Shares of servers: there are none, and that is said as for volumes."""

import uuid

from tests.nova.api_cloud import Cloud


def test_no_shares() -> None:
    cloud = Cloud()
    cloud.add_host()
    server, share = cloud.running(), str(uuid.uuid4())
    url, wish = f"/servers/{server}/shares", {"share": {"share_id": share, "tag": "t"}}
    assert cloud.get("alice", url) == {"shares": []}
    assert cloud.refused("alice", "GET", url, version="2.96")[0] == 404
    missing = (404, f"Share {share} could not be found.")
    for method in ("GET", "DELETE"):
        assert cloud.refused("alice", method, f"{url}/{share}") == missing
    status, said = cloud.refused("alice", "POST", url, wish)
    assert (status, "while it is in vm_state active" in said) == (409, True)
    cloud.good("alice", "POST", f"/servers/{server}/action", {"os-stop": None})
    cloud.report(server, power="off")
    assert cloud.refused("alice", "POST", url, wish) == missing
    for wrong in ({}, {"share_id": "x"}, {"share_id": share, "tag": "a,b"}, {"share_id": share, "tag": ""}):
        assert cloud.refused("alice", "POST", url, {"share": wrong})[0] == 400
    assert cloud.refused("bob", "GET", url)[0] == 404
    assert cloud.refused("rita", "POST", url, wish)[0] == 403
