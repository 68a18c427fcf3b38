"""One small server, through everything that its owner types.  The steps are in the order of its life."""

import re
from pathlib import Path

import pytest

from tests.compat.story import Client, Fails, Keep, Step, Until, Without
from tests.machine import Machine

pytestmark = pytest.mark.compat

ACTIVE = Until({"status": "ACTIVE", "OS-EXT-STS:task_state": None})
MAKE: list[Step] = [
    ("keypair create --public-key {tmp}/key.pub kp", {"name": "kp", "fingerprint": ...}),
    ("flavor create --ram 128 --disk 1 --vcpus 1 f3", {"id": Keep("f3")}),
    ("server group create --policy affinity g6", {"id": Keep("g6")}),
    ("network create n6", {"id": Keep("n6")}),
    ("subnet create --network n6 --subnet-range 10.36.0.0/24 s6", {"id": ...}),
    ("security group create sg6", {"id": ...}),
    ("server create --image nothing --flavor f3 --network private vm1", Fails("No Image found for nothing")),
    ("server create --image cirros --flavor nothing --network private vm1", Fails("No Flavor found for nothing")),
    (
        "server create --image cirros --flavor f3 --network private --key-name kp --security-group cumulet-ssh "
        "--server-group g6 --property a=b --user-data {tmp}/key.pub --use-config-drive --availability-zone nova "
        "--tag t0 --description first --wait vm1",
        {"id": Keep("vm1"), "status": "ACTIVE", "key_name": "kp"},
    ),
]
LOOK: list[Step] = [
    ("server list", ["ID", "Name", "Status", "Networks", "Image", "Flavor"]),
    ("server list --name vm1 --status ACTIVE --flavor f3", {"ID": "{vm1}", "Image": "cirros", "Flavor": "f3"}),
    (
        "server list --long --all-projects",
        {"Name": "vm1", "Power State": 1, "Host": "node1", "Availability Zone": "nova", "Properties": {"a": "b"}},
    ),
    ("server list --tags t0", {"Name": "vm1"}),
    ("server list --not-tags t0", Without(Name="vm1")),
    ("server list --no-name-lookup --host node1", {"ID": "{vm1}"}),
    (
        "server show vm1",
        {
            "OS-EXT-AZ:availability_zone": "nova",
            "OS-EXT-SRV-ATTR:host": "node1",
            "OS-EXT-SRV-ATTR:hostname": "vm1",
            "OS-EXT-SRV-ATTR:instance_name": ...,
            "OS-EXT-SRV-ATTR:root_device_name": "/dev/vda",
            "OS-EXT-STS:power_state": 1,
            "OS-EXT-STS:task_state": None,
            "OS-EXT-STS:vm_state": "active",
            "OS-SRV-USG:launched_at": ...,
            "config_drive": re.compile("(?i)true"),
            "description": "first",
            "flavor": re.compile("'ram': 128"),
            "hostId": ...,
            "host_status": "UP",
            "image": re.compile("^cirros "),
            "locked": False,
            "properties": {"a": "b"},
            "security_groups": [{"name": "cumulet-ssh"}],
            "tags": ["t0"],
            "user_id": ...,
        },
    ),
    (
        "server show --diagnostics vm1",
        {"state": "running", "driver": "libvirt", "num_nics": 1, "memory_details": ...},
    ),
    ("server volume list vm1", ""),
    ("server event list vm1", ["Request ID", "Server ID", "Action", "Start Time"]),
    ("server event list --long vm1", {"Action": "create", "Request ID": Keep("request"), "User ID": ...}),
    ("server event show vm1 {request}", {"action": "create", "events": re.compile("Success"), "message": None}),
    ("console log show vm1", Until("[a-z]")),
    ("console log show --lines 2 vm1", "[a-z]"),
    ("console url show --novnc vm1", {"protocol": "vnc", "type": "novnc", "url": re.compile("^http.*token")}),
    ("server show {vm1}", {"name": "vm1", "server_groups": ["{g6}"]}),
    ("server group show g6", {"members": ["{vm1}"]}),
]
CHANGE: list[Step] = [
    ("server set --name vm2 --property x=y --description second vm1", ""),
    ("server set --tag t1 vm2", ""),
    ("server show vm2", {"properties": {"a": "b", "x": "y"}, "description": "second", "tags": ["t0", "t1"]}),
    ("server unset --property x --tag t1 vm2", ""),
    ("server show vm2", {"properties": {"a": "b"}, "tags": ["t0"]}),
    ("server add security group vm2 sg6", ""),
    ("server show vm2", {"security_groups": re.compile("sg6")}),
    ("server remove security group vm2 sg6", ""),
    ("server lock --reason because vm2", ""),
    ("server show vm2", {"locked": True, "locked_reason": "because"}),
    ("server unlock vm2", ""),
    ("floating ip create public", {"floating_ip_address": Keep("address")}),
    ("server add floating ip vm2 {address}", ""),
    ("server show vm2", {"addresses": re.compile(r"172\.24\.4\.")}),
    ("server remove floating ip vm2 {address}", ""),
    ("floating ip delete {address}", ""),
    ("server add network vm2 n6", ""),
    ("server show vm2", Until({"addresses": re.compile(r"'n6': \['10\.36\.0\.")})),
    ("server remove network vm2 n6", ""),
    ("server add fixed ip vm2 n6", {"Server ID": "{vm1}", "Network ID": "{n6}", "Port ID": Keep("port")}),
    ("port show {port}", Until({"status": "ACTIVE"})),
    ("server remove port vm2 {port}", ""),
    ("port list --network n6 --device-owner compute:nova", Until("")),
]
POWER: list[Step] = [
    ("server pause vm2", ""),
    ("server show vm2", Until({"status": "PAUSED", "OS-EXT-STS:power_state": 3})),
    ("server unpause vm2", ""),
    ("server show vm2", ACTIVE),
    ("server suspend vm2", ""),
    ("server show vm2", Until({"status": "SUSPENDED", "OS-EXT-STS:task_state": None})),
    ("server start vm2", Fails("vm_state suspended")),
    ("server resume vm2", ""),
    ("server show vm2", ACTIVE),
    ("server reboot --hard --wait vm2", "Complete"),
    ("server rebuild --image cirros --wait vm2", "Complete|ACTIVE"),
    ("server show vm2", ACTIVE),
    ("server stop vm2", ""),
    ("server show vm2", Until({"status": "SHUTOFF", "OS-EXT-STS:power_state": 4, "OS-EXT-STS:task_state": None})),
    ("server image create --name snapshot --wait vm2", {"name": "snapshot", "status": "active", "size": ...}),
    ("image show snapshot", {"status": "active", "properties": re.compile("snapshot")}),
    ("image delete snapshot", ""),
    ("server set --auto-approve --state error vm2", ""),
    ("server show vm2", {"status": "ERROR"}),
    ("server set --auto-approve --state active vm2", ""),
    ("server start vm2", ""),
    ("server show vm2", ACTIVE),
]
END: list[Step] = [
    ("server event list vm2", {"Action": "reboot"}),
    ("server delete --wait vm2", ""),
    ("server list", Without(Name="vm2")),
    ("server show vm2", Fails("No Server found for vm2")),
    ("server list --deleted", {"ID": "{vm1}"}),
    ("network delete n6", ""),
    ("security group delete sg6", ""),
    ("server group delete g6", ""),
    ("flavor delete f3", ""),
    ("keypair delete kp", ""),
]
AFTER = [
    "server delete --wait vm1",
    "server delete --wait vm2",
    "floating ip delete {address}",
    "image delete snapshot",
    "network delete n6",
    "security group delete sg6",
    "server group delete g6",
    "flavor delete f3",
    "keypair delete kp",
]


def test_a_server_from_create_to_delete(cloud: Machine, client: Client, tmp_path: Path) -> None:
    cloud.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key"))
    client.tell([*MAKE, *LOOK, *CHANGE, *POWER, *END], AFTER)
