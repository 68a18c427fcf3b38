"""Upstream's rule names and default rules, for what this keystone serves.

Targets have upstream's names (``target.user.domain_id``); they are filled from rows and from the URL.
"""

from cumulet.core.context import Context, Delegation
from cumulet.core.errors import Forbidden
from cumulet.core.http import Json, Request

ADMIN = "rule:admin_required"
SYSTEM_READER = "(role:reader and system_scope:all)"
ADMIN_OR_READER = f"{ADMIN} or {SYSTEM_READER}"
ANYBODY = "@"


def _domain(role: str, target: str) -> str:
    """A role on the domain that the target is in."""
    return f"(role:{role} and domain_id:%({target})s)"


def _grants(role: str) -> str:
    """A role on the one domain of both the user or group and the project or domain."""
    return " or ".join(
        f"(role:{role} and domain_id:%(target.{actor}.domain_id)s and domain_id:%({target})s)"
        for actor in ("user", "group")
        for target in ("target.project.domain_id", "target.domain.id")
    )


_ROLE_OF_DOMAIN = "(domain_id:%(target.role.domain_id)s or None:%(target.role.domain_id)s)"
_USER_READERS = f"{ADMIN_OR_READER} or {_domain('reader', 'target.user.domain_id')}"
_USER_WRITERS = f"{ADMIN} or {_domain('manager', 'target.user.domain_id')}"
_GROUP_READERS = f"{ADMIN_OR_READER} or {_domain('reader', 'target.group.domain_id')}"
_GROUP_WRITERS = f"{ADMIN} or {_domain('manager', 'target.group.domain_id')}"
_PROJECT_READERS = (
    f"{ADMIN_OR_READER} or {_domain('reader', 'target.project.domain_id')} or project_id:%(target.project.id)s"
)
_PROJECT_WRITERS = f"{ADMIN} or {_domain('manager', 'target.project.domain_id')}"
_GRANT_READERS = f"{ADMIN_OR_READER} or (({_grants('reader')}) and {_ROLE_OF_DOMAIN})"
_GRANT_WRITERS = (
    f"{ADMIN} or (({_grants('admin')}) and {_ROLE_OF_DOMAIN}) or "
    f"(({_grants('manager')}) and rule:domain_managed_target_role)"
)

_OWNER = "user_id:%(target.user.id)s"
_KEEPER = "user_id:%(target.credential.user_id)s"
_TRUSTOR = "user_id:%(target.trust.trustor_user_id)s"
_TRUSTEE = "user_id:%(target.trust.trustee_user_id)s"

DEFAULTS: dict[str, str] = {
    "admin_required": "role:admin",
    "service_role": "role:service",
    "owner": "user_id:%(user_id)s",
    "token_subject": "user_id:%(target.token.user_id)s",
    "domain_managed_target_role": " or ".join(
        f"'{role}':%(target.role.name)s" for role in ("manager", "member", "reader")
    ),
    # tokens and the scopes that a user may take
    "identity:validate_token": f"{ADMIN_OR_READER} or rule:service_role or rule:token_subject",
    "identity:check_token": f"{ADMIN_OR_READER} or rule:token_subject",
    "identity:revoke_token": f"{ADMIN} or rule:token_subject",
    "identity:get_auth_catalog": ANYBODY,
    "identity:get_auth_projects": ANYBODY,
    "identity:get_auth_domains": ANYBODY,
    "identity:get_auth_system": ANYBODY,
    # users and groups
    "identity:get_user": f"{_USER_READERS} or user_id:%(target.user.id)s",
    "identity:list_users": f"{ADMIN_OR_READER} or {_domain('reader', 'target.domain_id')}",
    "identity:create_user": _USER_WRITERS,
    "identity:update_user": _USER_WRITERS,
    "identity:delete_user": _USER_WRITERS,
    "identity:list_user_projects": f"{_USER_READERS} or user_id:%(target.user.id)s",
    "identity:get_group": _GROUP_READERS,
    "identity:list_groups": _GROUP_READERS,
    "identity:list_groups_for_user": f"{_USER_READERS} or user_id:%(user_id)s",
    "identity:create_group": _GROUP_WRITERS,
    "identity:update_group": _GROUP_WRITERS,
    "identity:delete_group": _GROUP_WRITERS,
    "identity:list_users_in_group": _GROUP_READERS,
    "identity:check_user_in_group": f"{ADMIN_OR_READER} or (role:reader and "
    "domain_id:%(target.group.domain_id)s and domain_id:%(target.user.domain_id)s)",
    **{
        f"identity:{verb}_group": f"{ADMIN} or (role:manager and "
        "domain_id:%(target.group.domain_id)s and domain_id:%(target.user.domain_id)s)"
        for verb in ("add_user_to", "remove_user_from")
    },
    # what acts for a user: application credentials and stored secrets
    "identity:get_application_credential": f"{ADMIN_OR_READER} or rule:owner",
    "identity:list_application_credentials": f"{ADMIN_OR_READER} or rule:owner",
    "identity:create_application_credential": "rule:owner",
    "identity:delete_application_credential": f"{ADMIN} or rule:owner",
    "identity:get_access_rule": f"{SYSTEM_READER} or {_OWNER}",
    "identity:list_access_rules": f"{SYSTEM_READER} or {_OWNER}",
    "identity:delete_access_rule": f"(role:admin and system_scope:all) or {_OWNER}",
    "identity:get_credential": f"{ADMIN_OR_READER} or {_KEEPER}",
    "identity:list_credentials": f"{ADMIN_OR_READER} or {_KEEPER}",
    "identity:create_credential": f"{ADMIN} or {_KEEPER}",
    "identity:update_credential": f"{ADMIN} or {_KEEPER}",
    "identity:delete_credential": f"{ADMIN} or {_KEEPER}",
    "identity:ec2_get_credential": f"{ADMIN_OR_READER} or {_KEEPER}",
    "identity:ec2_list_credentials": f"{ADMIN_OR_READER} or rule:owner",
    "identity:ec2_create_credential": f"{ADMIN} or (role:member and {_KEEPER})",
    "identity:ec2_delete_credential": f"{ADMIN} or (role:member and {_KEEPER})",
    "identity:create_trust": _TRUSTOR,
    "identity:list_trusts": ADMIN_OR_READER,
    "identity:list_trusts_for_trustor": f"{ADMIN_OR_READER} or {_TRUSTOR}",
    "identity:list_trusts_for_trustee": f"{ADMIN_OR_READER} or {_TRUSTEE}",
    "identity:list_roles_for_trust": f"{ADMIN_OR_READER} or {_TRUSTOR} or {_TRUSTEE}",
    "identity:get_role_for_trust": f"{ADMIN_OR_READER} or {_TRUSTOR} or {_TRUSTEE}",
    "identity:delete_trust": f"{ADMIN} or {_TRUSTOR}",
    "identity:get_trust": f"{ADMIN_OR_READER} or {_TRUSTOR} or {_TRUSTEE}",
    # projects and their tags
    "identity:get_project": _PROJECT_READERS,
    "identity:list_projects": f"{ADMIN_OR_READER} or {_domain('reader', 'target.domain_id')}",
    "identity:create_project": _PROJECT_WRITERS,
    "identity:update_project": _PROJECT_WRITERS,
    "identity:delete_project": _PROJECT_WRITERS,
    "identity:list_project_tags": _PROJECT_READERS,
    "identity:get_project_tag": _PROJECT_READERS,
    "identity:update_project_tags": _PROJECT_WRITERS,
    "identity:create_project_tag": _PROJECT_WRITERS,
    "identity:delete_project_tags": _PROJECT_WRITERS,
    "identity:delete_project_tag": _PROJECT_WRITERS,
    # domains
    "identity:get_domain": f"{ADMIN_OR_READER} or token.domain.id:%(target.domain.id)s or "
    "token.project.domain.id:%(target.domain.id)s",
    "identity:list_domains": f"{ADMIN_OR_READER} or {_domain('reader', 'target.domain.id')}",
    "identity:create_domain": ADMIN,
    "identity:update_domain": ADMIN,
    "identity:delete_domain": ADMIN,
    # roles and what they imply
    "identity:get_role": f"{ADMIN_OR_READER} or (role:manager and rule:domain_managed_target_role)",
    "identity:list_roles": f"{ADMIN_OR_READER} or (role:manager and not domain_id:None)",
    "identity:create_role": ADMIN,
    "identity:update_role": ADMIN,
    "identity:delete_role": ADMIN,
    "identity:get_domain_role": ADMIN_OR_READER,
    "identity:list_domain_roles": ADMIN_OR_READER,
    "identity:create_domain_role": ADMIN,
    "identity:update_domain_role": ADMIN,
    "identity:delete_domain_role": ADMIN,
    "identity:get_implied_role": ADMIN_OR_READER,
    "identity:list_implied_roles": ADMIN_OR_READER,
    "identity:create_implied_role": ADMIN,
    "identity:delete_implied_role": ADMIN,
    "identity:list_role_inference_rules": ADMIN_OR_READER,
    "identity:check_implied_role": ADMIN_OR_READER,
    # who has which role where
    "identity:check_grant": _GRANT_READERS,
    "identity:list_grants": f"{ADMIN_OR_READER} or {_grants('reader')}",
    "identity:create_grant": _GRANT_WRITERS,
    "identity:revoke_grant": _GRANT_WRITERS,
    **{
        f"identity:{verb}_system_{noun}_for_{actor}": ADMIN_OR_READER if verb in ("list", "check") else ADMIN
        for verb, noun in (("list", "grants"), ("check", "grant"), ("create", "grant"), ("revoke", "grant"))
        for actor in ("user", "group")
    },
    "identity:list_role_assignments": f"{ADMIN_OR_READER} or {_domain('reader', 'target.domain_id')}",
    "identity:list_role_assignments_for_tree": f"{ADMIN_OR_READER} or {_domain('reader', 'target.domain_id')}",
    # the catalogue
    **{
        f"identity:{verb}_{noun}": ADMIN
        for verb in ("create", "update", "delete")
        for noun in ("service", "endpoint")
    },
    **{f"identity:{verb}_policy": ADMIN for verb in ("create", "update", "delete")},
    "identity:get_policy": ADMIN_OR_READER,
    "identity:list_policies": ADMIN_OR_READER,
    **{f"identity:{verb}_region": ADMIN for verb in ("create", "update", "delete")},
    **{
        f"identity:{name}": ADMIN_OR_READER
        for name in ("get_service", "list_services", "get_endpoint", "list_endpoints")
    },
    # limits
    **{f"identity:{verb}_registered_limit": ADMIN for verb in ("update", "delete")},
    "identity:create_registered_limits": ADMIN,
    "identity:get_registered_limit": ANYBODY,
    "identity:list_registered_limits": ANYBODY,
    **{f"identity:{name}": ADMIN for name in ("create_limits", "update_limit", "delete_limit")},
    "identity:get_limit": f"{ADMIN_OR_READER} or domain_id:%(target.limit.domain.id)s or "
    "domain_id:%(target.limit.project.domain_id)s or "
    "(project_id:%(target.limit.project_id)s and not None:%(target.limit.project_id)s)",
    "identity:list_limits": ANYBODY,
    "identity:get_limit_model": ANYBODY,
    "identity:get_region": ANYBODY,
    "identity:list_regions": ANYBODY,
}


def own_target(context: Context) -> Json:
    """A thing of the caller's own, or in the domain they act on: what a route's rule is first asked about."""
    domain_id = context.domain_id or None
    return {
        "user_id": context.user_id,
        "project_id": context.project_id,
        "domain_id": domain_id,
        "target.token.user_id": context.user_id,
        "target.user.id": context.user_id,
        "target.credential.user_id": context.user_id,
        "target.trust.trustor_user_id": context.user_id,
        "target.trust.trustee_user_id": context.user_id,
        "target.user.domain_id": domain_id,
        "target.group.domain_id": domain_id,
        "target.project.id": context.project_id,
        "target.project.domain_id": domain_id,
        "target.domain.id": domain_id or context.project_domain_id,
        "target.domain_id": domain_id,
        "target.limit.project_id": context.project_id or None,
        "target.limit.domain.id": domain_id,
        "target.limit.project.domain_id": domain_id,
        "target.role.name": "member",
        "target.role.domain_id": None,
    }


def refuse_delegated(request: Request, what: str) -> None:
    """Forbidden for a token that was lent: it must not make, see or end what lets others act for its user.

    ``unrestricted`` lifts this, but never for a token that is bounded by access rules: what it made would not be.
    """
    delegation = request.context.delegation
    if delegation and (not delegation.unrestricted or delegation.rules is not None):
        raise _lent(delegation, f"managing additional {what}")


def refuse_lent(request: Request, what: str) -> None:
    """Forbidden for a token that was lent, even if that is unrestricted."""
    if request.context.delegation:
        raise _lent(request.context.delegation, f"managing {what}")


def _lent(delegation: Delegation, what: str) -> Forbidden:
    return Forbidden(
        f"You are not authorized to perform the requested action: Using method '{delegation.method}' is not "
        f"allowed for {what}."
    )
