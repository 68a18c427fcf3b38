"""nova's policy rules: upstream's names and upstream's default rules.

A rule guards the URL with the caller's own project as target; handlers ask again with the row's project.
"""

MEMBER = "rule:project_member_or_admin"
READER = "rule:project_reader_or_admin"
ADMIN = "rule:context_is_admin"
ANYBODY = "@"
OWN_KEYS = "(rule:context_is_admin) or user_id:%(user_id)s"

_BASES = {
    "context_is_admin": "role:admin",
    "project_manager_api": "role:manager and project_id:%(project_id)s",
    "project_member_api": "role:member and project_id:%(project_id)s",
    "project_reader_api": "role:reader and project_id:%(project_id)s",
    "service_api": "role:service",
    "project_manager_or_admin": "rule:project_manager_api or rule:context_is_admin",
    "project_member_or_admin": "rule:project_member_api or rule:context_is_admin",
    "project_reader_or_admin": "rule:project_reader_api or rule:context_is_admin",
    "service_or_admin": "rule:service_api or rule:context_is_admin",
}

_SERVERS = {
    "index": READER,
    "detail": READER,
    "index:get_all_tenants": ADMIN,
    "detail:get_all_tenants": ADMIN,
    "allow_all_filters": ADMIN,
    "show": READER,
    "show:flavor-extra-specs": READER,
    "show:host_status": ADMIN,
    "show:host_status:unknown-only": ADMIN,
    "create": MEMBER,
    "create:forced_host": ADMIN,
    "create:attach_volume": MEMBER,
    "create:attach_network": MEMBER,
    "create:trusted_certs": MEMBER,
    "create:zero_disk_flavor": ADMIN,
    "delete": MEMBER,
    "update": MEMBER,
    "reboot": MEMBER,
    "start": MEMBER,
    "stop": MEMBER,
}

_OTHERS = {
    "extensions": ANYBODY,
    "ips:index": READER,
    "ips:show": READER,
    "limits": ANYBODY,
    "limits:other_project": ADMIN,
    "os-attach-interfaces:list": READER,
    "os-attach-interfaces:show": READER,
    "os-attach-interfaces:create": MEMBER,
    "os-attach-interfaces:delete": MEMBER,
    "os-availability-zone:list": ANYBODY,
    "os-availability-zone:detail": ADMIN,
    "os-console-output": MEMBER,
    "os-extended-server-attributes": ADMIN,
    "os-flavor-access": ADMIN,
    "os-flavor-access:add_tenant_access": ADMIN,
    "os-flavor-access:remove_tenant_access": ADMIN,
    "os-flavor-extra-specs:index": READER,
    "os-flavor-extra-specs:show": READER,
    "os-flavor-extra-specs:create": ADMIN,
    "os-flavor-extra-specs:update": ADMIN,
    "os-flavor-extra-specs:delete": ADMIN,
    "os-flavor-manage:create": ADMIN,
    "os-flavor-manage:update": ADMIN,
    "os-flavor-manage:delete": ADMIN,
    "os-hypervisors:list": ADMIN,
    "os-hypervisors:list-detail": ADMIN,
    "os-hypervisors:show": ADMIN,
    "os-hypervisors:statistics": ADMIN,
    "os-instance-actions:list": READER,
    "os-instance-actions:show": READER,
    "os-instance-actions:events": ADMIN,
    "os-instance-actions:events:details": ADMIN,
    "os-keypairs:index": OWN_KEYS,
    "os-keypairs:create": OWN_KEYS,
    "os-keypairs:show": OWN_KEYS,
    "os-keypairs:delete": OWN_KEYS,
    "os-lock-server:lock": MEMBER,
    "os-lock-server:unlock": MEMBER,
    "os-lock-server:unlock:unlock_override": ADMIN,
    "os-quota-sets:defaults": ANYBODY,
    "os-quota-sets:show": READER,
    "os-quota-sets:detail": READER,
    "os-quota-sets:update": ADMIN,
    "os-quota-sets:delete": ADMIN,
    "os-security-groups:list": READER,
    "os-server-password:show": READER,
    "os-server-password:clear": MEMBER,
    "os-services:list": ADMIN,
    "os-services:update": ADMIN,
    "os-volumes-attachments:index": READER,
    "os-volumes-attachments:show": READER,
    "server-metadata:index": READER,
    "server-metadata:show": READER,
    "server-metadata:create": MEMBER,
    "server-metadata:update": MEMBER,
    "server-metadata:update_all": MEMBER,
    "server-metadata:delete": MEMBER,
}

DEFAULTS: dict[str, str] = {
    **_BASES,
    **{f"os_compute_api:servers:{name}": rule for name, rule in _SERVERS.items()},
    **{f"os_compute_api:{name}": rule for name, rule in _OTHERS.items()},
    "compute:servers:create:requested_destination": ADMIN,
    "network:attach_external_network": ADMIN,
}
