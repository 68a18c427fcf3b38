"""Networks as their owner types them, and what an operator sees of the agents."""

import re

import pytest

from tests.compat.story import Client, Fails, Keep, Step, Without

pytestmark = pytest.mark.compat

NETWORKS: list[Step] = [
    (
        "network create --description d --mtu 1400 n1",
        {"id": Keep("n1"), "name": "n1", "status": "ACTIVE", "admin_state_up": True, "mtu": 1400, "shared": False},
    ),
    ("network list", ["ID", "Name", "Subnets"]),
    ("network list --long", {"Name": "n1", "Status": "ACTIVE", "State": True, "Shared": False, "Project": ...}),
    ("network list --name n1 --internal", {"ID": "{n1}"}),
    ("network list --external", {"Name": "public"}),
    ("network set --tag t n1", ""),
    ("network list --tags t", {"Name": "n1"}),
    ("network unset --tag t n1", ""),
    ("network set --name n2 --disable --share n1", ""),
    ("network show n2", {"id": "{n1}", "admin_state_up": False, "shared": True, "tags": [], "description": "d"}),
    (
        "network show n2",
        {"provider:network_type": ..., "provider:segmentation_id": ..., "ipv4_address_scope": None},
    ),
    ("network delete n2", ""),
    ("network show n2", Fails("No Network found for n2")),
]

SUBNETS: list[Step] = [
    ("network create n3", {"id": Keep("n3")}),
    (
        "subnet create --network n3 --subnet-range 10.31.0.0/24 "
        "--allocation-pool start=10.31.0.10,end=10.31.0.20 s1",
        {"id": Keep("s1"), "network_id": "{n3}", "gateway_ip": "10.31.0.1", "enable_dhcp": True, "ip_version": 4},
    ),
    ("subnet create --network n3 --subnet-range 10.31.0.0/25 overlap", Fails("overlap")),
    ("subnet list", ["ID", "Name", "Network", "Subnet"]),
    (
        "subnet list --network n3 --long",
        {"ID": "{s1}", "Subnet": "10.31.0.0/24", "DHCP": True, "Gateway": "10.31.0.1"},
    ),
    ("subnet set --dns-nameserver 8.8.8.8 --host-route destination=10.9.0.0/24,gateway=10.31.0.9 s1", ""),
    ("subnet show s1", {"dns_nameservers": ["8.8.8.8"], "host_routes": ..., "cidr": "10.31.0.0/24"}),
    ("subnet unset --dns-nameserver 8.8.8.8 --host-route destination=10.9.0.0/24,gateway=10.31.0.9 s1", ""),
    ("subnet show s1", {"dns_nameservers": [], "host_routes": []}),
    ("subnet set --no-dhcp --name s2 --tag t s1", ""),
    ("subnet show s2", {"id": "{s1}", "enable_dhcp": False, "tags": ["t"]}),
    (
        "subnet create --network n3 --ip-version 6 --ipv6-ra-mode slaac --ipv6-address-mode slaac "
        "--subnet-range fd00:31::/64 s6",
        {"ip_version": 6, "gateway_ip": "fd00:31::1", "ipv6_ra_mode": "slaac"},
    ),
    ("ip availability list", {"Network Name": "n3", "Total IPs": 11, "Used IPs": 0}),
    ("ip availability show n3", {"network_name": "n3", "total_ips": ..., "subnet_ip_availability": ...}),
    ("subnet delete s2", ""),
    ("subnet delete s6", ""),
    ("network delete n3", ""),
]

PORTS: list[Step] = [
    ("network create n4", {"id": Keep("n4")}),
    ("subnet create --network n4 --subnet-range 10.32.0.0/24 s4", {"id": Keep("s4")}),
    (
        "port create --network n4 --fixed-ip subnet=s4,ip-address=10.32.0.7 --tag t p1",
        {"id": Keep("p1"), "status": "DOWN", "mac_address": re.compile("^fa:16:3e"), "tags": ["t"]},
    ),
    ("port create --network n4 --fixed-ip ip-address=10.32.0.7 p2", Fails("10.32.0.7")),
    ("port list", ["ID", "Name", "MAC Address", "Fixed IP Addresses", "Status"]),
    ("port list --network n4 --long", {"ID": "{p1}", "Security Groups": ..., "Tags": ["t"]}),
    ("port list --fixed-ip ip-address=10.32.0.7 --network n4", {"Name": "p1"}),
    ("port set --security-group default p1", ""),
    ("port show p1", {"security_group_ids": ..., "port_security_enabled": True, "binding_vnic_type": "normal"}),
    ("port set --no-security-group p1", ""),
    ("port show p1", {"security_group_ids": []}),
    ("port set --security-group default p1", ""),
    ("port unset --security-group default p1", ""),
    ("port set --allowed-address ip-address=10.32.0.99 --name p9 --description d p1", ""),
    ("port show p9", {"id": "{p1}", "allowed_address_pairs": ..., "description": "d"}),
    ("port set --no-allowed-address --disable p9", ""),
    ("port show p9", {"allowed_address_pairs": [], "admin_state_up": False}),
    ("network delete n4", Fails("in use|409")),
    ("port delete p9", ""),
    ("subnet delete s4", ""),
    ("network delete n4", ""),
]

ROUTE = [{"destination": "10.2.0.0/24", "nexthop": "10.33.0.9"}]
ROUTERS: list[Step] = [
    ("network create n5", {"id": Keep("n5")}),
    ("subnet create --network n5 --subnet-range 10.33.0.0/24 s5", {"id": Keep("s5")}),
    ("router create --description d r1", {"id": Keep("r1"), "status": "ACTIVE", "external_gateway_info": None}),
    ("router set --external-gateway public r1", ""),
    ("router add subnet r1 s5", ""),
    ("router show r1", {"external_gateway_info": ..., "interfaces_info": ..., "admin_state_up": True}),
    ("router list", {"ID": "{r1}", "Name": "r1", "Status": "ACTIVE", "State": True, "Project": ...}),
    ("router list --long", {"Name": "r1", "Routes": [], "Availability zones": ...}),
    ("router add route --route destination=10.2.0.0/24,gateway=10.33.0.9 r1", {"routes": ROUTE}),
    ("router remove subnet r1 s5", Fails("route|409")),
    ("router remove route --route destination=10.2.0.0/24,gateway=10.33.0.9 r1", {"routes": []}),
    ("network agent list --router r1", {"Agent Type": "L3 agent"}),
    ("port create --network n5 p5", {"id": Keep("p5")}),
    ("floating ip create --port p5 public", {"floating_ip_address": Keep("address"), "port_id": "{p5}"}),
    ("floating ip list", {"Floating IP Address": "{address}", "Port": "{p5}", "Fixed IP Address": ...}),
    ("floating ip show {address}", {"router_id": "{r1}", "floating_network_id": ..., "port_details": ...}),
    ("router unset --external-gateway r1", Fails("409|floating")),
    ("floating ip unset --port {address}", ""),
    ("floating ip show {address}", {"port_id": None, "status": "DOWN"}),
    ("floating ip set --port p5 --description d {address}", ""),
    ("floating ip show {address}", {"port_id": "{p5}", "description": "d"}),
    ("floating ip delete {address}", ""),
    ("floating ip show {address}", Fails("No")),
    ("port delete p5", ""),
    ("router unset --external-gateway r1", ""),
    ("router remove subnet r1 s5", ""),
    ("router set --name r2 --disable r1", ""),
    ("router delete r2", ""),
    ("network delete n5", ""),
]

SECURITY_GROUPS: list[Step] = [
    ("security group create --description d sg1", {"id": Keep("sg1"), "description": "d", "rules": ...}),
    ("security group list", {"ID": "{sg1}", "Name": "sg1", "Description": "d", "Project": ..., "Tags": []}),
    (
        "security group rule create --proto tcp --dst-port 22 sg1",
        {"id": Keep("rule"), "protocol": "tcp", "port_range_min": 22, "port_range_max": 22, "direction": "ingress"},
    ),
    ("security group rule create --proto tcp --dst-port 22 sg1", Fails("exists|409")),
    ("security group rule create --proto icmp --remote-ip 10.0.0.0/8 sg1", {"remote_ip_prefix": "10.0.0.0/8"}),
    ("security group rule create --egress --ethertype IPv6 --remote-group sg1 sg1", {"remote_group_id": "{sg1}"}),
    ("security group rule list sg1", {"ID": "{rule}", "IP Protocol": "tcp", "Port Range": "22:22"}),
    ("security group rule list --protocol icmp", {"IP Range": "10.0.0.0/8"}),
    ("security group rule show {rule}", {"security_group_id": "{sg1}", "ether_type": "IPv4"}),
    ("security group rule delete {rule}", ""),
    ("security group set --name sg2 --tag t sg1", ""),
    ("security group show sg2", {"id": "{sg1}", "tags": ["t"]}),
    ("security group delete sg2", ""),
    ("security group show sg2", Fails("No SecurityGroup found for sg2")),
]

SHARING: list[Step] = [
    ("project create guests2", {"id": Keep("guests")}),
    ("network create n7", {"id": Keep("n7")}),
    (
        "network rbac create --type network --action access_as_shared --target-project guests2 n7",
        {"id": Keep("rbac"), "object_type": "network", "object_id": "{n7}", "target_project_id": "{guests}"},
    ),
    ("network rbac list", ["ID", "Object Type", "Object ID"]),
    ("network rbac list --long", {"ID": "{rbac}", "Action": "access_as_shared"}),
    ("network rbac list --action access_as_external --type network", Without(ID="{rbac}")),
    ("network rbac set --target-project admin {rbac}", ""),
    ("network rbac show {rbac}", {"id": "{rbac}", "action": "access_as_shared"}),
    ("network rbac delete {rbac}", ""),
    ("network delete n7", ""),
    ("project delete guests2", ""),
]

POOLS: list[Step] = [
    ("address scope create a1", {"id": Keep("scope"), "ip_version": 4, "shared": False}),
    ("address scope list", ["ID", "Name", "IP Version", "Shared", "Project"]),
    ("address scope set --name a2 a1", ""),
    ("address scope show a2", {"id": "{scope}", "name": "a2", "ip_version": 4, "shared": False}),
    (
        "subnet pool create --pool-prefix 10.77.0.0/16 --default-prefix-length 24 --address-scope a2 sp",
        {"id": Keep("pool"), "prefixes": ["10.77.0.0/16"], "default_prefixlen": 24, "address_scope_id": "{scope}"},
    ),
    ("subnet pool list", {"Name": "sp", "Prefixes": ["10.77.0.0/16"]}),
    ("subnet pool set --description d --pool-prefix 10.76.0.0/16 sp", ""),
    ("subnet pool show sp", {"prefixes": ["10.76.0.0/15"], "description": "d", "ip_version": 4}),
    ("network create n8", {"id": ...}),
    (
        "subnet create --network n8 --subnet-pool sp s8",
        {"subnetpool_id": "{pool}", "cidr": re.compile(r"^10\.7[67]\.\d+\.0/24$")},
    ),
    ("network show n8", {"ipv4_address_scope": "{scope}", "ipv6_address_scope": None}),
    ("subnet pool delete sp", Fails("existing allocations")),
    ("network delete n8", ""),
    ("subnet pool delete sp", ""),
    ("address scope delete a2", ""),
]

QUOTAS: list[Step] = [
    ("project create q1", {"id": Keep("q1")}),
    ("quota show --network q1", {"Resource": "networks", "Limit": 100}),
    ("quota set --networks 30 --floating-ips 3 q1", ""),
    ("quota show --network q1", {"Resource": "networks", "Limit": 30}),
    ("quota show --network --usage q1", {"Resource": "networks", "Limit": 30, "In Use": 0, "Reserved": 0}),
    ("quota list --network", {"Project ID": "{q1}", "Networks": 30, "Floating IPs": 3}),
    ("quota set --networks 0 --force q1", ""),
    ("quota show --network q1", {"Resource": "networks", "Limit": 0}),
    ("quota delete --network q1", ""),
    ("quota show --network --default q1", {"Resource": "routers", "Limit": 10}),
    ("project delete q1", ""),
]

AGENTS: list[Step] = [
    ("network agent list", ["ID", "Agent Type", "Host", "Availability Zone", "Alive", "State", "Binary"]),
    ("network agent list", {"Binary": "neutron-dhcp-agent", "ID": Keep("agent"), "Alive": True, "State": True}),
    ("network agent show {agent}", {"agent_type": "DHCP agent", "host": "node1", "topic": "dhcp_agent"}),
    ("network agent set --description d {agent}", ""),
    ("network agent show {agent}", {"description": "d"}),
    ("network agent list --network private", {"Agent Type": "DHCP agent"}),
    ("network list --agent {agent}", {"Name": "private"}),
    ("availability zone list --network", {"Zone Name": "nova", "Zone Status": "available"}),
    ("extension list --network", {"Alias": "security-group", "Name": ..., "Description": ...}),
    ("extension show router", {"alias": "router", "updated_at": ...}),
]

AFTER = {
    "networks": ["network delete n1", "network delete n2"],
    "subnets": ["network delete n3"],
    "ports": ["port delete p1", "port delete p9", "network delete n4"],
    "routers": [
        "floating ip delete {address}",
        "port delete p5",
        "router set --no-route r1",
        "router remove subnet r1 s5",
        "router delete r1",
        "network delete n5",
    ],
    "security groups": ["security group delete sg1", "security group delete sg2"],
    "sharing": ["network delete n7", "project delete guests2"],
    "pools": ["network delete n8", "subnet pool delete sp", "address scope delete a1", "address scope delete a2"],
    "quotas": ["project delete q1"],
}
STORIES = {
    "networks": NETWORKS,
    "subnets": SUBNETS,
    "ports": PORTS,
    "routers": ROUTERS,
    "security groups": SECURITY_GROUPS,
    "sharing": SHARING,
    "pools": POOLS,
    "quotas": QUOTAS,
    "agents": AGENTS,
}


@pytest.mark.parametrize("story", STORIES)
def test_stories(client: Client, story: str) -> None:
    client.tell(STORIES[story], AFTER.get(story, ()))
