"""The story of /v2.0/rbac-policies: what is shared with one project, with all, and how it ends."""

from typing import Any

from cumulet.core.context import Context
from cumulet.neutron import public, server_security
from tests.neutron.conftest import PEOPLE, Cloud

SHARED, EXTERNAL = "access_as_shared", "access_as_external"


def policy(thing: str, target: str, kind: str = "network", action: str = SHARED) -> dict[str, Any]:
    wish = {"object_type": kind, "object_id": thing, "action": action, "target_tenant": target}
    return {"rbac_policy": wish}


def share(cloud: Cloud, who: str, *about: str) -> str:
    return str(cloud.good(who, "POST", "/rbac-policies", policy(*about))["rbac_policy"]["id"])


def test_a_network_for_one_other_project(cloud: Cloud) -> None:
    network, subnet = cloud.network()
    assert cloud.refused("bob", "GET", f"/networks/{network}")[0] == 404
    made = cloud.good("alice", "POST", "/rbac-policies", policy(network, "blue"))["rbac_policy"]
    url = f"/rbac-policies/{made['id']}"
    assert made == {"id": made["id"], "project_id": "red", "tenant_id": "red", "object_type": "network",
                    "object_id": network, "action": SHARED, "target_tenant": "blue"}  # fmt: skip
    assert cloud.get("alice", url)["rbac_policy"] == made
    assert cloud.get("alice", f"/rbac-policies?object_id={network}")["rbac_policies"] == [made]
    # the other sees it as shared, its owner as his own
    assert cloud.get("bob", f"/networks/{network}")["network"]["shared"] is True
    assert cloud.get("alice", f"/networks/{network}")["network"]["shared"] is False
    assert [n["id"] for n in cloud.get("bob", "/networks?shared=True")["networks"]] == [network]
    assert cloud.get("alice", "/networks?shared=True")["networks"] == []
    assert [s["id"] for s in cloud.get("bob", "/subnets")["subnets"]] == [subnet]
    port = cloud.create("bob", "port", network_id=network, fixed_ips=[{"subnet_id": subnet}])
    assert port["project_id"] == "blue"
    # a policy is its owner's affair
    assert cloud.refused("bob", "GET", url) == (404, "RbacPolicyNotFound")
    assert cloud.refused("bob", "DELETE", url)[0] == 404
    assert cloud.refused("rita", "DELETE", url)[0] == 403
    # used, it stays
    assert cloud.refused("alice", "DELETE", url) == (409, "RbacPolicyInUse")
    other = {"rbac_policy": {"target_tenant": "green"}}
    assert cloud.refused("alice", "PUT", url, other) == (409, "RbacPolicyInUse")
    cloud.good("bob", "DELETE", f"/ports/{port['id']}")
    assert cloud.good("alice", "PUT", url, other)["rbac_policy"]["target_tenant"] == "green"
    assert cloud.refused("bob", "GET", f"/networks/{network}")[0] == 404
    cloud.good("alice", "DELETE", url)
    assert cloud.refused("alice", "GET", url) == (404, "RbacPolicyNotFound")


def test_what_may_not_be_shared(cloud: Cloud) -> None:
    network, _ = cloud.network()
    url = "/rbac-policies"
    share(cloud, "alice", network, "blue")
    assert cloud.refused("alice", "POST", url, policy(network, "blue")) == (409, "DuplicateRbacPolicy")
    assert cloud.refused("alice", "POST", url, policy(network, "*"))[0] == 403
    assert cloud.refused("alice", "POST", url, policy(network, "blue", action=EXTERNAL))[0] == 403
    assert cloud.refused("rita", "POST", url, policy(network, "green"))[0] == 403
    # who was let in does not let others in
    assert cloud.refused("bob", "POST", url, policy(network, "green"))[0] == 400
    assert cloud.refused("alice", "POST", url, policy("nowhere", "blue")) == (404, "NetworkNotFound")
    assert cloud.refused("alice", "POST", url, policy(network, "blue", kind="router"))[0] == 400
    assert cloud.refused("alice", "POST", url, policy(network, "blue", action="x")) == (400, "InvalidActionForType")
    assert cloud.refused("alice", "POST", url, policy(network, ""))[0] == 400
    made = cloud.get("alice", url)["rbac_policies"][0]["id"]
    assert cloud.refused("alice", "PUT", f"{url}/{made}", {"rbac_policy": {"target_tenant": "*"}})[0] == 403
    cloud.good("admin", "PUT", "/quotas/red", {"quota": {"rbac_policy": 1}})
    assert cloud.refused("alice", "POST", url, policy(network, "green")) == (409, "OverQuota")


def test_shared_is_a_policy_for_all(cloud: Cloud) -> None:
    network, _ = cloud.network("admin", shared=True)
    (wild,) = cloud.get("admin", f"/rbac-policies?object_id={network}")["rbac_policies"]
    assert (wild["target_tenant"], wild["action"]) == ("*", SHARED)
    port = cloud.create("bob", "port", network_id=network)["id"]
    off = {"network": {"shared": False}}
    assert cloud.refused("admin", "PUT", f"/networks/{network}", off) == (409, "InvalidSharedSetting")
    # a policy for the one who uses it is enough
    share(cloud, "admin", network, "blue")
    assert cloud.good("admin", "PUT", f"/networks/{network}", off)["network"]["shared"] is False
    assert cloud.get("bob", f"/ports/{port}")["port"]["network_id"] == network
    assert cloud.refused("alice", "GET", f"/networks/{network}")[0] == 404
    assert cloud.update("admin", "network", network, shared=True)["shared"] is True
    cloud.good("bob", "DELETE", f"/ports/{port}")
    cloud.good("admin", "DELETE", f"/networks/{network}")
    assert cloud.get("admin", "/rbac-policies")["rbac_policies"] == []


def test_an_external_network_for_one_project(cloud: Cloud) -> None:
    network, _ = cloud.public_network()
    (wild,) = cloud.get("admin", f"/rbac-policies?object_id={network}")["rbac_policies"]
    assert (wild["target_tenant"], wild["action"]) == ("*", EXTERNAL)
    router = cloud.create("alice", "router", external_gateway_info={"network_id": network})["id"]
    fip = cloud.create("alice", "floatingip", floating_network_id=network)["id"]
    url = f"/rbac-policies/{wild['id']}"
    assert cloud.refused("admin", "DELETE", url) == (409, "RbacPolicyInUse")
    share(cloud, "admin", network, "red", "network", EXTERNAL)
    cloud.good("admin", "DELETE", url)
    assert cloud.get("alice", f"/networks/{network}")["network"]["router:external"] is True
    assert cloud.refused("bob", "GET", f"/networks/{network}")[0] == 404
    assert cloud.refused("bob", "POST", "/floatingips", {"floatingip": {"floating_network_id": network}})[0] == 404
    # a policy makes a network external
    mine, _ = cloud.network("admin", cidr="10.9.0.0/24")
    share(cloud, "admin", mine, "blue", "network", EXTERNAL)
    assert cloud.get("bob", f"/networks/{mine}")["network"]["router:external"] is True
    for thing in (f"/floatingips/{fip}", f"/routers/{router}"):
        cloud.good("alice", "DELETE", thing)
    assert cloud.update("admin", "network", network, router__external=False)["router:external"] is False
    assert cloud.get("admin", f"/rbac-policies?object_id={network}")["rbac_policies"] == []


def test_a_security_group_for_another_project(cloud: Cloud) -> None:
    group = cloud.create("alice", "security_group", name="web")["id"]
    network, _ = cloud.network("bob")
    wish = {"port": {"network_id": network, "security_groups": [group]}}
    assert cloud.refused("bob", "POST", "/ports", wish) == (404, "SecurityGroupNotFound")
    made = share(cloud, "alice", group, "blue", "security_group")
    assert cloud.get("bob", f"/security-groups/{group}")["security_group"]["shared"] is True
    assert group in [g["id"] for g in cloud.get("bob", "/security-groups?shared=True")["security_groups"]]
    port = cloud.good("bob", "POST", "/ports", wish)["port"]
    assert port["security_groups"] == [group]
    rule = {"direction": "ingress", "ethertype": "IPv4"}
    body = {"security_group_rule": {**rule, "security_group_id": group}}
    assert cloud.refused("bob", "POST", "/security-group-rules", body)[0] == 404
    own = cloud.create("bob", "security_group", name="own")["id"]
    cloud.create("bob", "security_group_rule", security_group_id=own, remote_group_id=group, **rule)
    assert cloud.refused("alice", "DELETE", f"/rbac-policies/{made}") == (409, "RbacPolicyInUse")
    assert cloud.refused("bob", "PUT", f"/security-groups/{group}", {"security_group": {"name": "x"}})[0] == 403
    cloud.good("bob", "DELETE", f"/ports/{port['id']}")
    cloud.good("alice", "DELETE", f"/rbac-policies/{made}")
    assert cloud.refused("bob", "GET", f"/security-groups/{group}")[0] == 404


def test_servers_on_what_is_shared(cloud: Cloud) -> None:
    network, _ = cloud.network()
    group = cloud.create("alice", "security_group", name="web")["id"]
    bob: Context = PEOPLE["bob"]
    with cloud.db.read() as tx:
        assert public.default_networks(tx, bob) == []
    share(cloud, "alice", network, "blue")
    share(cloud, "alice", group, "blue", "security_group")
    with cloud.db.transaction() as tx:
        assert public.default_networks(tx, bob) == [network]
        assert server_security.find_groups(tx, bob, [group]) == [group]
