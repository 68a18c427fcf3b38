"""neutron's data.  Each column has one writer: neutron-server's API, unless a comment names another.

Things and hosts are apart: ``ports``/``port_bindings``, ``networks``/``dhcp_bindings``,
``routers``/``router_bindings``.  The left row is the user's wish, the right row is what one host should do
(``wanted``, ``generation``) and what its agent has seen of it (``seen_*``, ``wired_*``).  ``status`` is derived
from both and never stored.  Rows that only tell an agent to take something away (tombstones) outlive the thing,
so they have no foreign key.

Uniqueness is what races are decided by: an address or a MAC in its network, a segment in the cloud, a default
group in its project.
"""

from sqlalchemy import JSON, BigInteger, Boolean, Column, ForeignKey, Index, Integer, String, Table, Text

from cumulet.core.stamps import mark
from cumulet.core.tables import Id, Name, Time, metadata

Mac = String(17)
Ip = String(39)
Prefix = String(43)


def _standard() -> list[Column[object]]:
    """What every resource has: standard attributes of the API."""
    return [
        Column("id", Id, primary_key=True),
        Column("project_id", Id, nullable=False, index=True),
        Column("name", Name, nullable=False, default=""),
        Column("description", Name, nullable=False, default=""),
        Column("created_at", Time, nullable=False),
        Column("updated_at", Time, nullable=False),
        Column("revision_number", Integer, nullable=False, default=0),
        Column("tags", JSON, nullable=False, default=list),
    ]


networks = Table(
    "networks",
    metadata,
    *_standard(),
    Column("admin_up", Boolean, nullable=False, default=True),
    Column("external", Boolean, nullable=False, default=False),
    Column("is_default", Boolean, nullable=False, default=False),
    Column("port_security", Boolean, nullable=False, default=True),  # what new ports get
    Column("mtu", Integer, nullable=False),
    Column("dns_domain", Name, nullable=False, default=""),
    Column("zone_hints", JSON, nullable=False, default=list),
    Column("kind", String(8), nullable=False),  # 'vxlan', 'flat', 'vlan'
    Column("physical_network", String(64), nullable=False, default=""),
    Column("segmentation_id", Integer, nullable=False, default=0),
)
Index(
    "uq_networks_segment",
    networks.c.kind,
    networks.c.physical_network,
    networks.c.segmentation_id,
    unique=True,
)

subnets = Table(
    "subnets",
    metadata,
    *_standard(),
    Column("network_id", Id, ForeignKey("networks.id"), nullable=False, index=True),
    Column("ip_version", Integer, nullable=False),
    Column("cidr", Prefix, nullable=False),
    Column("subnetpool_id", Id, index=True),  # where the prefix was taken from
    Column("gateway_ip", Ip),
    Column("dhcp", Boolean, nullable=False, default=True),
    Column("ipv6_address_mode", String(20)),
    Column("ipv6_ra_mode", String(20)),
    Column("pools", JSON, nullable=False),  # [{"start": ip, "end": ip}]
    Column("dns_servers", JSON, nullable=False, default=list),
    Column("routes", JSON, nullable=False, default=list),  # [{"destination": cidr, "nexthop": ip}]
)

# Prefixes to take subnets' from.  What is taken is what subnets have.
subnet_pools = Table(
    "subnet_pools",
    metadata,
    *_standard(),
    Column("ip_version", Integer, nullable=False),
    Column("prefixes", JSON, nullable=False),
    Column("min_prefixlen", Integer, nullable=False),
    Column("default_prefixlen", Integer, nullable=False),
    Column("max_prefixlen", Integer, nullable=False),
    Column("default_quota", Integer),  # what each project may take; null: no bound
    Column("address_scope_id", Id, index=True),
    Column("is_default", Boolean, nullable=False, default=False),
)

address_scopes = Table("address_scopes", metadata, *_standard(), Column("ip_version", Integer, nullable=False))

ports = Table(
    "ports",
    metadata,
    *_standard(),
    Column("network_id", Id, ForeignKey("networks.id"), nullable=False),
    Column("mac", Mac, nullable=False),
    Column("admin_up", Boolean, nullable=False, default=True),
    Column("device_id", Name, nullable=False, default=""),
    Column("device_owner", Name, nullable=False, default=""),
    Column("port_security", Boolean, nullable=False, default=True),
    Column("dhcp_options", JSON, nullable=False, default=list),  # [{"opt_name", "opt_value", "ip_version"}]
    Column("dns_name", Name, nullable=False, default=""),
    Column("vnic_type", String(16), nullable=False, default="normal"),
    Column("profile", JSON, nullable=False, default=dict),
    # written by nova, through neutron.public: users may write anything into device_id
    Column("server_id", Id, index=True),
    Column("nova_made", Boolean, nullable=False, default=False),  # goes with its server
)
Index("uq_ports_mac", ports.c.network_id, ports.c.mac, unique=True)
Index("ix_ports_device_id", ports.c.device_id)

# The addresses of ports.  ``slot``: distance from the subnet's first address, for the search of a free one;
# null where it does not fit 62 bits (an address made from a MAC).
port_addresses = Table(
    "port_addresses",
    metadata,
    Column("network_id", Id, primary_key=True),
    Column("ip", Ip, primary_key=True),
    Column("port_id", Id, ForeignKey("ports.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("subnet_id", Id, ForeignKey("subnets.id"), nullable=False),
    Column("slot", BigInteger),
    Column("position", Integer, nullable=False),
)
Index("ix_port_addresses_subnet_slot", port_addresses.c.subnet_id, port_addresses.c.slot)

# What else a port may send from.
port_pairs = Table(
    "port_pairs",
    metadata,
    Column("port_id", Id, ForeignKey("ports.id", ondelete="CASCADE"), primary_key=True),
    Column("prefix", Prefix, primary_key=True),
    Column("mac", Mac, primary_key=True),
)

port_groups = Table(
    "port_groups",
    metadata,
    Column("port_id", Id, ForeignKey("ports.id", ondelete="CASCADE"), primary_key=True),
    Column("security_group_id", Id, ForeignKey("security_groups.id"), primary_key=True, index=True),
)

# The hosts that should wire a port: one, and while its server moves the one that it moves to, which is not
# ``active`` yet.  ``generation`` grows with each binding and change of MAC.
port_bindings = Table(
    "port_bindings",
    metadata,
    Column("port_id", Id, ForeignKey("ports.id", ondelete="CASCADE"), primary_key=True),
    Column("host", Name, primary_key=True),
    Column("generation", Integer, nullable=False, default=1),
    Column("active", Boolean, nullable=False, default=True),
    # written by the reports of neutron-openvswitch-agent
    Column("wired_generation", Integer, nullable=False, default=0),  # 0: its device is not there
    Column("wired_at", Time),  # null before the first report
    Column("wired_in", Id),  # the boot of the host in which that was seen
)
Index("ix_port_bindings_host", port_bindings.c.host)

# The host that should serve DHCP on a network.  ``generation`` grows with whatever dnsmasq has to know.
dhcp_bindings = Table(
    "dhcp_bindings",
    metadata,
    Column("network_id", Id, primary_key=True),
    Column("host", Name, primary_key=True),
    Column("port_id", Id, nullable=False),
    Column("wanted", String(8), nullable=False),  # 'run'; 'absent' is a tombstone
    Column("generation", Integer, nullable=False, default=1),
    # written by the reports of neutron-dhcp-agent
    Column("seen_generation", Integer, nullable=False, default=0),
    Column("running", Boolean, nullable=False, default=False),
    Column("fault", Text),
    Column("seen_at", Time),
)
Index("ix_dhcp_bindings_host", dhcp_bindings.c.host)

routers = Table(
    "routers",
    metadata,
    *_standard(),
    Column("admin_up", Boolean, nullable=False, default=True),
    Column("gateway_port_id", Id),  # a port with the owner network:router_gateway
    Column("snat", Boolean, nullable=False, default=True),
    Column("routes", JSON, nullable=False, default=list),  # [{"destination": cidr, "nexthop": ip}]
    Column("zone_hints", JSON, nullable=False, default=list),
)

# The host that should route.  ``generation`` grows with gateway, interfaces, floating IPs and routes.
router_bindings = Table(
    "router_bindings",
    metadata,
    Column("router_id", Id, primary_key=True),
    Column("host", Name, primary_key=True),
    Column("wanted", String(8), nullable=False),  # 'run'; 'absent' is a tombstone
    Column("generation", Integer, nullable=False, default=1),
    # written by the reports of neutron-l3-agent
    Column("seen_generation", Integer, nullable=False, default=0),
    Column("running", Boolean, nullable=False, default=False),
    Column("fault", Text),
    Column("seen_at", Time),
)
Index("ix_router_bindings_host", router_bindings.c.host)

floatingips = Table(
    "floatingips",
    metadata,
    *_standard(),
    Column("floating_network_id", Id, ForeignKey("networks.id"), nullable=False),
    Column("floating_port_id", Id, ForeignKey("ports.id"), nullable=False),  # holds the address
    Column("floating_ip", Ip, nullable=False),
    Column("port_id", Id, index=True),
    Column("fixed_ip", Ip),
    Column("router_id", Id, index=True),
    Column("generation", Integer, nullable=False, default=0),  # of the router's binding at the last change
    Column("dns_name", Name, nullable=False, default=""),
    Column("dns_domain", Name, nullable=False, default=""),
    # written by the reports of neutron-l3-agent: the generation at which it was in place
    Column("seen_generation", Integer, nullable=False, default=0),
)
Index(
    "uq_floatingips_fixed",
    floatingips.c.floating_network_id,
    floatingips.c.port_id,
    floatingips.c.fixed_ip,
    unique=True,
)

security_groups = Table("security_groups", metadata, *_standard())

security_group_rules = Table(
    "security_group_rules",
    metadata,
    *_standard(),
    Column(
        "security_group_id", Id, ForeignKey("security_groups.id", ondelete="CASCADE"), nullable=False, index=True
    ),
    Column("direction", String(8), nullable=False),
    Column("ethertype", String(4), nullable=False),  # 'IPv4', 'IPv6'
    Column("protocol", String(16)),  # as given: a name or a number
    Column("protocol_number", Integer),
    Column("port_min", Integer),
    Column("port_max", Integer),
    Column("remote_prefix", Prefix),  # as written: may have bits beyond it
    Column("remote_group_id", Id, index=True),
    Column("fingerprint", Name, nullable=False),  # all that makes two rules the same
)
Index(
    "uq_security_group_rules_same",
    security_group_rules.c.security_group_id,
    security_group_rules.c.fingerprint,
    unique=True,
)

# What new security groups begin with, beside upstream's four or (``gone``) instead of one of them.
rule_templates = Table(
    "security_group_rule_templates",
    metadata,
    Column("id", Id, primary_key=True),
    Column("created_at", Time, nullable=False),
    Column("description", Name, nullable=False, default=""),
    Column("direction", String(8), nullable=False),
    Column("ethertype", String(4), nullable=False),
    Column("protocol", String(16)),
    Column("protocol_number", Integer),
    Column("port_min", Integer),
    Column("port_max", Integer),
    Column("remote_prefix", Prefix),
    Column("remote_group_id", Id),  # 'PARENT': the group itself
    Column("in_default", Boolean, nullable=False),  # for each project's first group
    Column("in_others", Boolean, nullable=False),
    Column("gone", Boolean, nullable=False),
    Column("fingerprint", Name, nullable=False, unique=True),
)

# Who else may use a thing: ``target`` is a project, or '*' for all.  ``shared`` of the API is a question to this
# table, never stored.
network_rbacs = Table(
    "network_rbacs",
    metadata,
    Column("id", Id, primary_key=True),
    Column("project_id", Id, nullable=False, index=True),
    Column("object_type", String(16), nullable=False),  # 'network', 'security_group', 'subnetpool', …
    Column("object_id", Id, nullable=False),
    Column("action", String(24), nullable=False),  # 'access_as_shared', 'access_as_external'
    Column("target", Id, nullable=False),
)
Index(
    "uq_network_rbacs_same",
    network_rbacs.c.object_id,
    network_rbacs.c.action,
    network_rbacs.c.target,
    unique=True,
)

# One row per project that uses networks: its default group, and a counter whose update serialises what has to
# count before it creates (quotas).
network_projects = Table(
    "network_projects",
    metadata,
    Column("project_id", Id, primary_key=True),
    Column("default_group_id", Id),
    Column("changes", Integer, nullable=False, default=0),
)

# Quotas that an administrator has set; where there is no row the default holds.
network_quotas = Table(
    "network_quotas",
    metadata,
    Column("project_id", Id, primary_key=True),
    Column("resource", String(32), primary_key=True),
    Column("bound", Integer, nullable=False),  # -1: none
)

STAMP = "wiring"
"""What the document of a host's wiring is made of (``wire_intent``), and whatever takes some of it along."""
for _table in (
    networks,
    ports,
    port_bindings,
    port_addresses,
    port_pairs,
    port_groups,
    security_groups,
    security_group_rules,
):
    mark(_table, STAMP)
