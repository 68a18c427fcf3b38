"""neutron's rules: upstream's names and defaults.  ``policy.d/neutron.yaml`` overrides single rules.

Stricter than upstream in one place: only an administrator or a service may give a port an owner
``network:…``, whoever owns the network, since agents trust such ports.
"""

ADMIN = "rule:admin_only"
SERVICE = "rule:admin_only or rule:service_api"
MEMBER = "(rule:admin_only) or (role:member and project_id:%(project_id)s)"
READER = "(rule:admin_only) or (role:reader and project_id:%(project_id)s)"
NET_OWNER = "(rule:admin_only) or (role:member and rule:network_owner)"
SERVICE_OR_MEMBER = f"{MEMBER} or rule:service_api"
SERVICE_OR_NET_OWNER = f"{NET_OWNER} or rule:service_api"

DEFAULTS: dict[str, str] = {
    "context_is_admin": "role:admin",
    "service_api": "role:service",
    "admin_only": "rule:context_is_admin",
    "owner": "tenant_id:%(tenant_id)s",
    "admin_or_owner": "rule:context_is_admin or rule:owner",
    "network_owner": "tenant:%(network:tenant_id)s",
    "shared": "field:networks:shared=True",
    "external": "field:networks:router:external=True",
    "network_device": "field:port:device_owner=~^network:",
    "default": "rule:admin_or_owner",
    # networks
    "create_network": MEMBER,
    "create_network:shared": ADMIN,
    "create_network:router:external": ADMIN,
    "create_network:is_default": ADMIN,
    "create_network:port_security_enabled": MEMBER,
    "create_network:provider:network_type": ADMIN,
    "create_network:provider:physical_network": ADMIN,
    "create_network:provider:segmentation_id": ADMIN,
    "get_network": f"{READER} or rule:shared or rule:external or rule:service_api",
    "get_network:provider:network_type": SERVICE,
    "get_network:provider:physical_network": SERVICE,
    "get_network:provider:segmentation_id": SERVICE,
    "update_network": MEMBER,
    "update_network:shared": ADMIN,
    "update_network:router:external": ADMIN,
    "update_network:is_default": ADMIN,
    "update_network:port_security_enabled": MEMBER,
    "update_network:provider:network_type": ADMIN,
    "update_network:provider:physical_network": ADMIN,
    "update_network:provider:segmentation_id": ADMIN,
    "delete_network": MEMBER,
    # subnets
    "create_subnet": f"{NET_OWNER} or (role:member and project_id:%(project_id)s)",
    "get_subnet": f"{READER} or (role:reader and rule:network_owner) or rule:shared or rule:external"
    " or rule:service_api",
    "update_subnet": f"{NET_OWNER} or (role:member and project_id:%(project_id)s)",
    "delete_subnet": f"{NET_OWNER} or (role:member and project_id:%(project_id)s)",
    # ports
    "create_port": SERVICE_OR_MEMBER,
    "create_port:device_owner": f"not rule:network_device or {SERVICE}",
    "create_port:mac_address": SERVICE_OR_NET_OWNER,
    "create_port:fixed_ips": f"{SERVICE_OR_NET_OWNER} or rule:shared",
    "create_port:fixed_ips:ip_address": SERVICE_OR_NET_OWNER,
    "create_port:fixed_ips:subnet_id": f"{SERVICE_OR_NET_OWNER} or rule:shared",
    "create_port:port_security_enabled": SERVICE_OR_NET_OWNER,
    "create_port:binding:host_id": SERVICE,
    "create_port:binding:profile": SERVICE,
    "create_port:binding:vnic_type": SERVICE_OR_MEMBER,
    "create_port:allowed_address_pairs": SERVICE_OR_NET_OWNER,
    "get_port": f"{READER} or (role:reader and rule:network_owner) or rule:service_api",
    "get_port:binding:vif_type": SERVICE,
    "get_port:binding:vif_details": SERVICE,
    "get_port:binding:host_id": SERVICE,
    "get_port:binding:profile": SERVICE,
    "update_port": SERVICE_OR_MEMBER,
    "update_port:device_owner": f"not rule:network_device or {SERVICE}",
    "update_port:mac_address": SERVICE,
    "update_port:fixed_ips": f"{SERVICE_OR_NET_OWNER} or rule:shared",
    "update_port:fixed_ips:ip_address": SERVICE_OR_NET_OWNER,
    "update_port:fixed_ips:subnet_id": f"{SERVICE_OR_NET_OWNER} or rule:shared",
    "update_port:port_security_enabled": SERVICE_OR_NET_OWNER,
    "update_port:binding:host_id": SERVICE,
    "update_port:binding:profile": SERVICE,
    "update_port:binding:vnic_type": SERVICE_OR_MEMBER,
    "update_port:allowed_address_pairs": SERVICE_OR_NET_OWNER,
    "delete_port": f"{SERVICE_OR_MEMBER} or (role:member and rule:network_owner)",
    # routers
    "create_router": MEMBER,
    "create_router:external_gateway_info": MEMBER,
    "create_router:external_gateway_info:network_id": MEMBER,
    "create_router:external_gateway_info:enable_snat": ADMIN,
    "create_router:external_gateway_info:external_fixed_ips": ADMIN,
    "get_router": READER,
    "update_router": MEMBER,
    "update_router:external_gateway_info": MEMBER,
    "update_router:external_gateway_info:network_id": MEMBER,
    "update_router:external_gateway_info:enable_snat": ADMIN,
    "update_router:external_gateway_info:external_fixed_ips": ADMIN,
    "delete_router": MEMBER,
    "add_router_interface": MEMBER,
    "remove_router_interface": MEMBER,
    # floating IPs
    "create_floatingip": MEMBER,
    "create_floatingip:floating_ip_address": "(rule:admin_only) or (role:manager and project_id:%(project_id)s)",
    "get_floatingip": READER,
    "update_floatingip": MEMBER,
    "delete_floatingip": MEMBER,
    # security groups
    "create_security_group": MEMBER,
    "get_security_group": READER,
    "update_security_group": MEMBER,
    "delete_security_group": MEMBER,
    "create_security_group_rule": MEMBER,
    "get_security_group_rule": READER,
    "delete_security_group_rule": MEMBER,
    # the rest
    "get_agent": ADMIN,
    "update_agent": ADMIN,
    "delete_agent": ADMIN,
    "create_dhcp-network": ADMIN,
    "delete_dhcp-network": ADMIN,
    "create_l3-router": ADMIN,
    "delete_l3-router": ADMIN,
    "get_dhcp-networks": ADMIN,
    "get_dhcp-agents": ADMIN,
    "get_l3-routers": ADMIN,
    "get_l3-agents": ADMIN,
    "get_availability_zone": "role:reader",
    "get_network_ip_availability": SERVICE,
    "get_quota": READER,
    "update_quota": ADMIN,
    "delete_quota": ADMIN,
    "create_networks_tags": MEMBER,
    "get_networks_tags": f"{READER} or rule:shared or rule:external",
    "update_networks_tags": MEMBER,
    "delete_networks_tags": MEMBER,
} | {
    f"{verb}_{collection}_tags": READER if verb == "get" else MEMBER
    for verb in ("create", "get", "update", "delete")
    for collection in ("subnets", "ports", "routers", "floatingips", "security_groups", "security_group_rules")
}
