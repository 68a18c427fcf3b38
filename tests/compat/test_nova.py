"""What there is around servers, as an operator types it; no server is made."""

import re

import pytest

from tests.compat.story import Client, Fails, Keep, Step, Without

pytestmark = pytest.mark.compat

FLAVORS: list[Step] = [
    (
        "flavor create --ram 512 --disk 1 --vcpus 1 --description d f1",
        {"id": Keep("f1"), "ram": 512, "swap": 0, "description": "d", "os-flavor-access:is_public": True},
    ),
    ("flavor create --id {f1} --ram 512 --disk 1 --vcpus 1 f9", Fails("already exists|409")),
    ("flavor list", ["ID", "Name", "RAM", "Disk", "Ephemeral", "VCPUs", "Is Public"]),
    ("flavor set --property hw:cpu_policy=shared f1", ""),
    ("flavor list --long", {"Name": "f1", "Properties": {"hw:cpu_policy": "shared"}, "RXTX Factor": 1.0}),
    ("flavor show f1", {"id": "{f1}", "properties": {"hw:cpu_policy": "shared"}}),
    ("flavor unset --property hw:cpu_policy f1", ""),
    ("flavor set --description e f1", ""),
    ("flavor show f1", {"properties": {}, "description": "e"}),
    ("flavor delete f1", ""),
    ("flavor show f1", Fails("No Flavor found for f1")),
    ("flavor create --id 99 --ram 64 --disk 0 --vcpus 1 --private --project admin f2", {"id": "99"}),
    ("flavor list", Without(Name="f2")),
    ("flavor list --all", {"Name": "f2", "Is Public": False}),
    ("flavor set --project service f2", ""),
    ("flavor show f2", {"access_project_ids": ..., "os-flavor-access:is_public": False}),
    ("flavor unset --project service f2", ""),
    ("flavor delete f2", ""),
]

KEYPAIRS: list[Step] = [
    ("keypair create k1", "BEGIN OPENSSH PRIVATE KEY"),
    ("keypair create k1", Fails("already exists")),
    ("keypair list", ["Name", "Fingerprint", "Type"]),
    ("keypair show k1", {"name": "k1", "fingerprint": re.compile(":"), "type": "ssh", "user_id": ...}),
    ("keypair show --public-key k1", "^ssh-ed25519 "),
    ("keypair delete k1", ""),
    ("keypair show k1", Fails("404|could not be found|No Keypair found")),
]

HOSTS: list[Step] = [
    ("hypervisor list", ["ID", "Hypervisor Hostname", "Hypervisor Type", "Host IP", "State"]),
    ("hypervisor list --long", {"Hypervisor Hostname": "node1", "Hypervisor Type": "QEMU", "State": "up"}),
    ("hypervisor show node1", {"state": "up", "status": "enabled", "service_host": "node1", "host_ip": ...}),
    ("hypervisor show node1", {"uptime": ..., "host_time": ..., "load_average": ..., "users": ...}),
    ("hypervisor show nothing", Fails("No Hypervisor found for nothing")),
    ("compute service list", ["ID", "Binary", "Host", "Zone", "Status", "State", "Updated At"]),
    ("compute service set --disable --disable-reason why node1 nova-compute", ""),
    (
        "compute service list --service nova-compute --long",
        {"Status": "disabled", "State": "up", "Disabled Reason": "why", "Forced Down": False, "Zone": "nova"},
    ),
    ("compute service set --enable node1 nova-compute", ""),
    ("compute service list --host node1", {"Binary": "nova-compute", "Status": "enabled", "Updated At": ...}),
    ("availability zone list", {"Zone Name": "nova", "Zone Status": "available"}),
    ("availability zone list --compute --long", {"Zone Name": "nova", "Service Name": "nova-compute"}),
    ("extension list --compute", {"Alias": "os-keypairs", "Name": ..., "Description": ...}),
    ("versions show --service compute", {"Version": "2.1", "Status": "CURRENT", "Min Microversion": "2.1"}),
]

OLD_HOSTS: list[Step] = [
    ("host list", {"Host Name": "node1", "Service": "compute", "Zone": "nova"}),
    ("host show node1", {"Host": "node1", "Project": "(total)", "CPU": ..., "Memory MB": ..., "Disk GB": ...}),
    ("hypervisor stats show", {"count": 1, "running_vms": ..., "memory_mb": ..., "vcpus": ...}),
    ("compute service set --down node1 nova-compute", ""),
    ("compute service list", {"Binary": "nova-compute", "State": "down"}),
    ("compute service set --up node1 nova-compute", ""),
    ("compute service list", {"Binary": "nova-compute", "State": "up"}),
]

AGGREGATES: list[Step] = [
    ("aggregate create --property a=b ag", {"id": ..., "name": "ag", "properties": {"a": "b"}}),
    ("aggregate create ag", Fails("already exists")),
    ("aggregate list", ["ID", "UUID", "Name", "Availability Zone"]),
    ("aggregate add host ag node1", {"name": "ag", "hosts": ["node1"]}),
    ("aggregate list --long", {"Name": "ag", "UUID": ..., "Hosts": ["node1"], "Properties": {"a": "b"}}),
    ("hypervisor show node1", {"aggregates": ["ag"]}),
    ("aggregate set --zone z1 ag", Fails("contain instances")),
    ("aggregate set --property c=d --name ag2 ag", ""),
    ("aggregate unset --property a ag2", ""),
    (
        "aggregate show ag2",
        {"name": "ag2", "properties": {"c": "d"}, "hosts": ["node1"], "availability_zone": None},
    ),
    ("aggregate delete ag2", Fails("not empty|Host")),
    ("aggregate remove host ag2 node1", {"hosts": []}),
    ("aggregate delete ag2", ""),
    ("aggregate show ag2", Fails("No Aggregate found for ag2")),
]

SERVER_GROUPS: list[Step] = [
    (
        "server group create --policy anti-affinity --rule max_server_per_host=2 g1",
        {"id": Keep("g1"), "policy": "anti-affinity", "rules": {"max_server_per_host": 2}, "members": []},
    ),
    ("server group list", ["ID", "Name", "Policy"]),
    ("server group list --long", {"ID": "{g1}", "Policy": "anti-affinity", "Project Id": ..., "User Id": ...}),
    ("server group show g1", {"id": "{g1}", "name": "g1"}),
    ("server group delete g1", ""),
    ("server group show g1", Fails("No ServerGroup found for g1")),
]

QUOTAS: list[Step] = [
    ("project create q2", {"id": Keep("q2")}),
    ("quota show q2", {"Resource": "instances", "Limit": 10}),
    ("quota show --default q2", {"Resource": "cores", "Limit": 20}),
    ("quota set --cores 30 --ram 1000 --key-pairs 3 q2", ""),
    ("quota show --compute q2", {"Resource": "cores", "Limit": 30}),
    ("quota show --compute --usage q2", {"Resource": "ram", "Limit": 1000, "In Use": 0, "Reserved": 0}),
    ("quota list --compute", {"Project ID": "{q2}", "Cores": 30, "Ram": 1000, "Instances": 10}),
    ("quota delete q2", ""),
    ("quota show --compute q2", {"Resource": "cores", "Limit": 20}),
    ("project delete q2", ""),
    ("limits show --absolute", {"Name": "total_cores", "Value": 20}),
    ("limits show --absolute", {"Name": "instances_used", "Value": 1}),
    ("limits show --absolute --project admin", {"Name": "total_ram_used", "Value": 192}),
    ("limits show --rate", ""),
]

USAGE: list[Step] = [
    ("usage list", ["Project", "Servers", "RAM MB-Hours", "CPU Hours", "Disk GB-Hours"]),
    ("usage list", {"Project": ..., "Servers": ..., "RAM MB-Hours": ..., "CPU Hours": ...}),
    ("usage show", {"Project": ..., "Servers": ..., "RAM MB-Hours": ..., "CPU Hours": ..., "Disk GB-Hours": ...}),
    ("server migration list", ""),
]

AFTER = {
    "flavors": ["flavor delete f1", "flavor delete f2"],
    "key pairs": ["keypair delete k1"],
    "hosts": ["compute service set --enable node1 nova-compute"],
    "old hosts": ["compute service set --up node1 nova-compute"],
    "aggregates": ["aggregate remove host ag node1", "aggregate remove host ag2 node1", "aggregate delete ag"],
    "server groups": ["server group delete g1"],
    "quotas": ["project delete q2"],
}
STORIES = {
    "flavors": FLAVORS,
    "key pairs": KEYPAIRS,
    "hosts": HOSTS,
    "old hosts": OLD_HOSTS,
    "aggregates": AGGREGATES,
    "server groups": SERVER_GROUPS,
    "quotas": QUOTAS,
    "usage": USAGE,
}


@pytest.mark.parametrize("story", STORIES)
def test_stories(client: Client, story: str) -> None:
    client.tell(STORIES[story], AFTER.get(story, ()))
