"""neutron's rules: upstream's names and defaults.  ``policy.d/neutron.yaml`` overrides single rules.

Stricter than upstream in two places: only an administrator or a service may give a port an owner
``network:…``, whoever owns the network, since agents trust such ports; and on a shared network only members
make ports, where upstream lets in readers too.
"""

ADMIN = "rule:admin_only"
SERVICE = "rule:admin_only or rule:service_api"
MEMBER = "(rule:admin_only) or (role:member and project_id:%(project_id)s)"
READER = "(rule:admin_only) or (role:reader and project_id:%(project_id)s)"
NET_OWNER = "(rule:admin_only) or (role:member and rule:network_owner)"
GROUP_OWNER = "(rule:admin_only) or (role:member and rule:sg_owner)"
PROJECT_MANAGER = "(rule:admin_only) or (role:manager and project_id:%(project_id)s)"
SERVICE_OR_MEMBER = f"{MEMBER} or rule:service_api"
SERVICE_OR_NET_OWNER = f"{NET_OWNER} or rule:service_api"
ON_NETWORK = f"{SERVICE_OR_NET_OWNER} or (role:member and rule:shared)"
SUBNET_OWNER = f"{NET_OWNER} or (role:member and project_id:%(project_id)s)"
SUBNET_READER = f"{READER} or (role:reader and rule:network_owner) or rule:shared or rule:external_network"
PORT_READER = f"{READER} or (role:reader and rule:network_owner)"
NO_WILDCARD = "(not field:rbac_policy:target_tenant=* and not field:rbac_policy:target_project=*)"

DEFAULTS: dict[str, str] = {
    "context_is_admin": "role:admin",
    "service_api": "role:service",
    "admin_only": "rule:context_is_admin",
    "owner": "project_id:%(project_id)s",
    "admin_or_owner": "rule:context_is_admin or rule:owner",
    "network_owner": "project_id:%(network:project_id)s",
    "sg_owner": "project_id:%(security_group:project_id)s",
    "shared": "field:networks:shared=True",
    "shared_subnetpools": "field:subnetpools:shared=True",
    "shared_address_scopes": "field:address_scopes:shared=True",
    "shared_security_group": "field:security_groups:shared=True",
    "external": "field:networks:router:external=True",
    "external_network": "field:subnets:router:external=True",
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
    "get_network:provider:network_type": ADMIN,
    "get_network:provider:physical_network": ADMIN,
    "get_network:provider:segmentation_id": ADMIN,
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
    "create_subnet": NET_OWNER,
    "get_subnet": f"{SUBNET_READER} or rule:service_api",
    "update_subnet": SUBNET_OWNER,
    "delete_subnet": SUBNET_OWNER,
    # ports
    "create_port": ON_NETWORK,
    "create_port:device_id": SERVICE_OR_MEMBER,
    "create_port:device_owner": f"not rule:network_device or {SERVICE}",
    "create_port:mac_address": SERVICE_OR_NET_OWNER,
    "create_port:fixed_ips": ON_NETWORK,
    "create_port:fixed_ips:ip_address": SERVICE_OR_NET_OWNER,
    "create_port:fixed_ips:subnet_id": ON_NETWORK,
    "create_port:port_security_enabled": SERVICE_OR_NET_OWNER,
    "create_port:binding:host_id": SERVICE,
    "create_port:binding:profile": "rule:service_api",
    "create_port:binding:vnic_type": SERVICE_OR_MEMBER,
    "create_port:allowed_address_pairs": SERVICE_OR_NET_OWNER,
    "create_port:allowed_address_pairs:ip_address": SERVICE_OR_NET_OWNER,
    "create_port:allowed_address_pairs:mac_address": SERVICE_OR_NET_OWNER,
    "get_port": f"{PORT_READER} or rule:service_api",
    "get_port:binding:vif_type": SERVICE,
    "get_port:binding:vif_details": SERVICE,
    "get_port:binding:host_id": SERVICE,
    "get_port:binding:profile": SERVICE,
    "update_port": SERVICE_OR_MEMBER,
    "update_port:device_id": SERVICE_OR_MEMBER,
    "update_port:device_owner": f"not rule:network_device or {SERVICE}",
    "update_port:mac_address": f"{SERVICE} or (role:manager and rule:network_owner)",
    "update_port:fixed_ips": SERVICE_OR_NET_OWNER,
    "update_port:fixed_ips:ip_address": SERVICE_OR_NET_OWNER,
    "update_port:fixed_ips:subnet_id": ON_NETWORK,
    "update_port:port_security_enabled": SERVICE_OR_NET_OWNER,
    "update_port:binding:host_id": SERVICE,
    "update_port:binding:profile": "rule:service_api",
    "update_port:binding:vnic_type": SERVICE_OR_MEMBER,
    "update_port:allowed_address_pairs": SERVICE_OR_NET_OWNER,
    "update_port:allowed_address_pairs:ip_address": SERVICE_OR_NET_OWNER,
    "update_port:allowed_address_pairs:mac_address": SERVICE_OR_NET_OWNER,
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
    "add_extraroutes": MEMBER,
    "remove_extraroutes": MEMBER,
    # floating IPs
    "create_floatingip": MEMBER,
    "create_floatingip:floating_ip_address": PROJECT_MANAGER,
    "get_floatingip": READER,
    "update_floatingip": MEMBER,
    "delete_floatingip": MEMBER,
    # security groups
    "create_security_group": MEMBER,
    "get_security_group": f"{READER} or rule:shared_security_group",
    "update_security_group": MEMBER,
    "delete_security_group": MEMBER,
    "create_security_group_rule": GROUP_OWNER,
    "get_security_group_rule": "(rule:admin_only) or (role:reader and rule:sg_owner)",
    "delete_security_group_rule": GROUP_OWNER,
    "create_default_security_group_rule": ADMIN,
    "get_default_security_group_rule": "role:reader",
    "delete_default_security_group_rule": ADMIN,
    # subnet pools and address scopes
    "create_subnetpool": MEMBER,
    "create_subnetpool:shared": ADMIN,
    "create_subnetpool:is_default": ADMIN,
    "get_subnetpool": f"{READER} or rule:shared_subnetpools",
    "update_subnetpool": MEMBER,
    "update_subnetpool:is_default": ADMIN,
    "delete_subnetpool": MEMBER,
    "create_address_scope": MEMBER,
    "create_address_scope:shared": ADMIN,
    "get_address_scope": f"{READER} or rule:shared_address_scopes",
    "update_address_scope": MEMBER,
    "update_address_scope:shared": ADMIN,
    "delete_address_scope": MEMBER,
    # sharing with others
    "create_rbac_policy": MEMBER,
    "create_rbac_policy:target_tenant": f"rule:admin_only or {NO_WILDCARD}",
    "update_rbac_policy": MEMBER,
    "update_rbac_policy:target_tenant": f"rule:admin_only or {NO_WILDCARD}",
    "get_rbac_policy": READER,
    "delete_rbac_policy": MEMBER,
    "restrict_wildcard": f"{NO_WILDCARD} or rule:admin_only",
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
    "get_quota": PROJECT_MANAGER,
    "update_quota": ADMIN,
    "delete_quota": ADMIN,
    # tags
    **{
        f"{verb}_{kind}:tags": READER if verb == "get" else MEMBER
        for verb in ("create", "get", "update", "delete")
        for kind in ("floatingip", "router", "security_group_rule")
    },
    **{f"{verb}_network:tags": MEMBER for verb in ("create", "update", "delete")},
    "get_network:tags": f"{READER} or rule:shared or rule:external",
    **{f"{verb}_subnet:tags": SUBNET_OWNER for verb in ("create", "update", "delete")},
    "get_subnet:tags": SUBNET_READER,
    **{f"{verb}_subnetpool:tags": MEMBER for verb in ("create", "update", "delete")},
    "get_subnetpool:tags": f"{READER} or rule:shared_subnetpools",
    **{f"{verb}_port:tags": MEMBER for verb in ("create", "update")},
    "get_port:tags": PORT_READER,
    "delete_port:tags": f"{NET_OWNER} or (role:member and project_id:%(project_id)s)",
    **{f"{verb}_security_group:tags": MEMBER for verb in ("create", "update", "delete")},
    "get_security_group:tags": f"{READER} or rule:shared_security_group",
}
