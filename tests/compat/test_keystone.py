"""Who may do what where, as an administrator types it."""

import re
from pathlib import Path

import pytest

from tests.compat.story import Client, Fails, Keep, Step, Without

pytestmark = pytest.mark.compat

PROJECTS: list[Step] = [
    ("project create --description one --tag t1 p1", {"id": Keep("p1"), "name": "p1", "description": "one"}),
    ("project create p1", Fails("409|already|Conflict")),
    ("project list", ["ID", "Name"]),
    ("project list --long", {"ID": "{p1}", "Name": "p1", "Domain ID": "default", "Enabled": True}),
    (
        "project show p1",
        {"id": "{p1}", "enabled": True, "is_domain": False, "parent_id": "default", "tags": ["t1"]},
    ),
    ("project set --description d --tag t2 --disable p1", ""),
    ("project list --tags t2 --long", {"Name": "p1", "Description": "d", "Enabled": False}),
    ("project delete p1", ""),
    ("project list", Without(Name="p1")),
    ("project show p1", Fails("No Project found for p1")),
]

USERS: list[Step] = [
    ("project create p2", {"id": Keep("p2")}),
    (
        "user create --password x-12345 --project p2 --email u1@example.org u1",
        {"id": Keep("u1"), "default_project_id": "{p2}", "domain_id": "default", "email": "u1@example.org"},
    ),
    ("user list", ["ID", "Name"]),
    ("user list --long", {"ID": "{u1}", "Name": "u1", "Project": "{p2}", "Domain": "default", "Enabled": True}),
    ("user show u1", {"id": "{u1}", "enabled": True, "description": None, "password_expires_at": None}),
    ("user set --description second --password y-12345 u1", ""),
    ("user set --disable u1", ""),
    ("user show u1", {"description": "second", "enabled": False}),
    ("user password set --original-password wrong --password z-12345", Fails("password")),
    ("user delete u1", ""),
    ("user show u1", Fails("No User found for u1")),
    ("project delete p2", ""),
]

ROLES: list[Step] = [
    ("project create p3", {"id": Keep("p3")}),
    ("user create --password x-12345 u3", {"id": Keep("u3")}),
    ("role list", {"Name": "member"}),
    ("role create --description what r9", {"id": Keep("r9"), "description": "what", "domain_id": None}),
    ("role set --name r8 r9", ""),
    ("role show r8", {"id": "{r9}", "name": "r8"}),
    ("implied role create --implied-role reader r8", {"prior_role": "{r9}", "implies": ...}),
    ("implied role list", {"Prior Role Name": "r8", "Implied Role Name": "reader"}),
    ("role add --user u3 --project p3 r8", ""),
    ("role assignment list --names --project p3", {"Role": "r8", "User": "u3@Default", "Project": "p3@Default"}),
    ("role assignment list --user u3", {"Role": "{r9}", "User": "{u3}", "Project": "{p3}", "Inherited": False}),
    ("role assignment list --user u3 --effective --names", {"Role": "reader", "Project": "p3@Default"}),
    ("user list --project p3", {"ID": "{u3}"}),
    ("role remove --user u3 --project p3 r8", ""),
    ("role assignment list --user u3", ""),
    ("implied role delete --implied-role reader r8", ""),
    ("role add --user u3 --domain default reader", ""),
    ("role assignment list --user u3 --names", {"Role": "reader", "Domain": "Default"}),
    ("role add --user u3 --system all reader", ""),
    ("role assignment list --user u3 --system all --names", {"Role": "reader", "System": "all"}),
    ("role delete r8", ""),
    ("user delete u3", ""),
    ("project delete p3", ""),
    ("role show r8", Fails("No Role found for r8")),
]

GROUPS: list[Step] = [
    ("user create --password x-12345 u4", {"id": Keep("u4")}),
    ("group create --description g gg", {"id": Keep("gg"), "description": "g", "domain_id": "default"}),
    ("group add user gg u4", ""),
    ("group contains user gg u4", "u4 in group gg"),
    ("group list --long", {"ID": "{gg}", "Name": "gg", "Domain ID": "default", "Description": "g"}),
    ("group list --user u4", {"Name": "gg"}),
    ("user list --group gg", {"ID": "{u4}", "Name": "u4"}),
    ("group set --name g2 gg", ""),
    ("group show g2", {"id": "{gg}"}),
    ("role add --group g2 --project admin reader", ""),
    (
        "role assignment list --group g2 --names",
        {"Role": "reader", "Group": "g2@Default", "Project": "admin@Default"},
    ),
    ("group remove user g2 u4", ""),
    ("user list --group g2", ""),
    ("group delete g2", ""),
    ("user delete u4", ""),
]

DOMAINS: list[Step] = [
    ("domain list", {"ID": "default", "Name": "Default", "Enabled": True}),
    ("domain create --description dd d1", {"id": Keep("d1"), "name": "d1", "description": "dd", "enabled": True}),
    ("project create --domain d1 p1", {"domain_id": "{d1}", "parent_id": "{d1}"}),
    ("project list --domain d1", {"Name": "p1"}),
    ("domain delete d1", Fails("disable")),
    ("domain set --disable d1", ""),
    ("domain show d1", {"enabled": False}),
    ("domain delete d1", ""),
    ("domain show d1", Fails("No Domain found for d1")),
]

CATALOG: list[Step] = [
    ("catalog list", {"Name": "nova", "Type": "compute"}),
    ("catalog show network", {"name": "neutron", "type": "network", "endpoints": ...}),
    ("service list --long", ["ID", "Name", "Type", "Description", "Enabled"]),
    ("service create --name x --description s xt", {"id": Keep("x"), "type": "xt", "enabled": True}),
    ("service set --name y x", ""),
    ("service show y", {"id": "{x}", "description": "s"}),
    ("region create --description r R2", {"region": "R2", "description": "r", "parent_region": None}),
    ("region list", {"Region": "R2", "Description": "r"}),
    ("region set --description rr R2", ""),
    ("region show R2", {"description": "rr"}),
    (
        "endpoint create --region R2 y public http://127.0.0.1/v1",
        {"id": Keep("endpoint"), "interface": "public", "url": "http://127.0.0.1/v1", "service_id": "{x}"},
    ),
    ("endpoint set --url http://127.0.0.1/v2 {endpoint}", ""),
    (
        "endpoint list --service y",
        {"ID": "{endpoint}", "Region": "R2", "Service Type": "xt", "URL": "http://127.0.0.1/v2"},
    ),
    ("endpoint delete {endpoint}", ""),
    ("region delete R2", ""),
    ("service delete y", ""),
    ("endpoint list", {"Service Name": "keystone", "Interface": "public", "URL": re.compile("5000/v3$")}),
]

CREDENTIALS: list[Step] = [
    ("ec2 credentials create", {"access": Keep("access"), "secret": ..., "project_id": ..., "user_id": ...}),
    ("ec2 credentials list", {"Access": "{access}", "Secret": ..., "Project ID": ..., "User ID": ...}),
    ("ec2 credentials show {access}", {"access": "{access}", "trust_id": None}),
    ("ec2 credentials delete {access}", ""),
    ("ec2 credentials show {access}", Fails("404")),
    ("credential create --type cert admin blob", {"id": Keep("cert"), "type": "cert", "blob": "blob"}),
    ("credential list", {"ID": "{cert}", "Type": "cert", "User ID": ..., "Data": "blob"}),
    ("credential show {cert}", {"blob": "blob"}),
    ("credential delete {cert}", ""),
]

APPLICATION_CREDENTIALS: list[Step] = [
    (
        "application credential create --role reader --description d ac1",
        {"ID": Keep("ac1"), "Name": "ac1", "Secret": ..., "Roles": re.compile("reader"), "Unrestricted": False},
    ),
    ("application credential list", {"ID": "{ac1}", "Name": "ac1", "Description": "d"}),
    ("application credential show ac1", {"ID": "{ac1}", "Roles": re.compile("reader"), "Expires At": None}),
    ("application credential delete ac1", ""),
    ("application credential list", Without(Name="ac1")),
]

TRUSTS: list[Step] = [
    ("user create --password x-12345 u5", {"id": Keep("u5")}),
    (
        "trust create --project admin --role member --impersonate --expiration 2099-01-01T00:00:00 admin u5",
        {"id": Keep("trust"), "trustee_user_id": "{u5}", "is_impersonation": True, "roles": re.compile("member")},
    ),
    ("trust list", {"ID": "{trust}", "Impersonation": True, "Trustee User ID": "{u5}", "Expires At": ...}),
    ("trust show {trust}", {"id": "{trust}", "expires_at": re.compile("^2099-01-01")}),
    ("trust delete {trust}", ""),
    ("trust list", Without(ID="{trust}")),
    ("user delete u5", ""),
]

STORED_POLICIES: list[Step] = [
    (
        "policy create --type text/plain {tmp}/policy",
        {"id": Keep("policy"), "type": "text/plain", "rules": "rule"},
    ),
    ("policy list --long", {"ID": "{policy}", "Type": "text/plain", "Rules": "rule"}),
    ("policy show {policy}", {"id": "{policy}"}),
    ("policy delete {policy}", ""),
    ("policy show {policy}", Fails("404|Could not find")),
]

TOKENS: list[Step] = [
    ("token issue", {"id": Keep("token"), "expires": ..., "project_id": ..., "user_id": ...}),
    ("token revoke {token}", ""),
    ("token revoke abc", Fails("token")),
    ("access rule list", ""),
]

AFTER = {
    "projects": ["project delete p1"],
    "users": ["user delete u1", "project delete p2"],
    "roles": ["user delete u3", "project delete p3", "role delete r8", "role delete r9"],
    "groups": ["group delete gg", "group delete g2", "user delete u4"],
    "domains": ["domain set --disable d1", "domain delete d1"],
    "catalog": ["service delete x", "service delete y", "region delete R2"],
    "trusts": ["user delete u5"],
    "application credentials": ["application credential delete ac1"],
}
STORIES = {
    "projects": PROJECTS,
    "users": USERS,
    "roles": ROLES,
    "groups": GROUPS,
    "domains": DOMAINS,
    "catalog": CATALOG,
    "credentials": CREDENTIALS,
    "application credentials": APPLICATION_CREDENTIALS,
    "trusts": TRUSTS,
    "stored policies": STORED_POLICIES,
    "tokens": TOKENS,
}


@pytest.mark.parametrize("story", STORIES)
def test_stories(client: Client, tmp_path: Path, story: str) -> None:
    (tmp_path / "policy").write_text("rule\n")
    client.tell(STORIES[story], AFTER.get(story, ()))
