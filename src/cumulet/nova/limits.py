"""``/limits``: a project's quotas and what it uses of them, under the names of the first API."""

from cumulet.core.http import Json, Request, Route
from cumulet.nova import quotas, versions

_LIMITS = {
    "maxTotalRAMSize": "ram",
    "maxTotalInstances": "instances",
    "maxTotalCores": "cores",
    "maxTotalKeypairs": "key_pairs",
    "maxTotalFloatingIps": "floating_ips",
    "maxServerMeta": "metadata_items",
    "maxImageMeta": "metadata_items",
    "maxPersonality": "injected_files",
    "maxPersonalitySize": "injected_file_content_bytes",
    "maxSecurityGroups": "security_groups",
    "maxSecurityGroupRules": "security_group_rules",
    "maxServerGroups": "server_groups",
    "maxServerGroupMembers": "server_group_members",
}
_USED = {
    "totalRAMUsed": "ram",
    "totalCoresUsed": "cores",
    "totalInstancesUsed": "instances",
    "totalFloatingIpsUsed": "floating_ips",
    "totalSecurityGroupsUsed": "security_groups",
    "totalServerGroupsUsed": "server_groups",
}


def show_limits(request: Request) -> Json:
    """The caller's project's limits; an administrator may name another (``tenant_id``)."""
    versions.check_query("limits", request)
    project_id = request.one("tenant_id") or request.context.project_id
    if project_id != request.context.project_id:
        request.enforce("os_compute_api:limits:other_project")
    with request.db.read() as tx:
        usage = quotas.read_usage(tx, project_id)
    absolute = {name: usage.limits[resource] for name, resource in _LIMITS.items()}
    absolute |= {name: usage.used.get(resource, 0) for name, resource in _USED.items()}
    return {"limits": {"rate": [], "absolute": versions.render("limits", absolute, request.version)}}


ROUTES = (Route("GET", "/v2.1/limits", show_limits, "os_compute_api:limits"),)
