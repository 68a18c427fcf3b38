"""Text of users is text: no XML, no configuration, no argument, no line of its own (families CMD-1 and XML-2)."""

import ast
import json
import logging
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import pycdlib
import pytest

import cumulet
from cumulet.neutron.dhcp import plan as dhcp
from cumulet.neutron.dhcp_intent import dhcp_intents
from cumulet.nova import hosts, metadata_documents
from cumulet.nova.compute import config_drive, domain_xml
from cumulet.nova.compute.domain_xml import Files, Marks, Traits
from tests.attacks.doors import Doors
from tests.attacks.street import KEY
from tests.attacks.test_log import logged

NOVA, NEUTRON, GLANCE, KEYSTONE = "nova-api", "neutron-server", "glance-api", "keystone"
NAMES = [
    "'", '"', "';reboot;'", '"><x a="', "</name><devices>", "]]>", "<!DOCTYPE x [<!ENTITY a 'b'>]>&a;", "&lt;",
    "-rf", "--help", "-", "$(reboot)", "`reboot`", "| reboot", "a\nb", "a\r\nb", "\n", "a\0b", "\0", "a\tb",
    "../../etc/passwd", "..", ".", "/", "//x", "%s%n%x", "{0.__class__}", "{{7*7}}", "a,b", "a=b", "a:b", "a b",
    " a", "a ", "", " ", "x" * 255, "x" * 256, "x" * 5000,
    "\u00e9\u4e2d\U0001f600", "\u202egnp.exe", "\u2028", "\u0085", "\x1b[31m", "\x9b31m", "\ufeff", "\ufffe",
    "null", "None", "0", "\\", "\\n", "a\\", "#", "!", "*", "~", "@", "set:x", "tag:x", "option:router",
    "169.254.169.254", "::1",
]  # fmt: skip
MARK = "canary7"


PLAIN = frozenset(
    {"-", "", " ", " a", "a ", "\n", "\0", "..", ".", "/", "null", "None", "0", "\\", "#", "*", "~", "@", "::1"}
)


def marked(name: str) -> str:
    """With a word that is found again, where that does not make another case of it."""
    return name if name in PLAIN or len(name) > 240 else f"{name}{MARK}"


class Named:
    """A cloud in which everything has been given every name; ``taken`` are those that were not refused."""

    def __init__(self, place: Path) -> None:
        with logged() as text:
            self.doors = Doors(place)
            self.doors.add_host()
            self.doors.good("admin", NOVA, "PUT", f"/v2.1/os-quota-sets/{self.doors.ids['red']}",
                            {"quota_set": {"instances": -1, "cores": -1, "ram": -1, "key_pairs": -1}})  # fmt: skip
            self.doors.good("admin", NEUTRON, "PUT", f"/v2.0/quotas/{self.doors.ids['red']}",
                            {"quota": {"port": -1, "network": -1, "security_group": -1,
                                       "security_group_rule": -1}})  # fmt: skip
            self.network, self.subnet = self.doors.network()
            self.taken: dict[str, list[str]] = {}
            self.servers: list[str] = []
            for name in map(marked, NAMES):
                self._give(name)
        self.lines = text.getvalue().splitlines()

    def _give(self, name: str) -> None:
        doors, net = self.doors, self.network
        doors.ids.get("image of alice") or doors.server()
        base = {
            "name": "ok",
            "imageRef": doors.ids["image of alice"],
            "flavorRef": doors.ids["flavor"],
            "networks": "none",
        }
        spec = {"network_id": net}
        wishes: list[tuple[str, str, str, str, Any]] = [
            ("server", "alice", NOVA, "/v2.1/servers",
             {"server": {**base, "name": name, "networks": [{"uuid": net}]}}),
            ("hostname", "alice", NOVA, "/v2.1/servers",
             {"server": {**base, "hostname": name, "networks": [{"uuid": net}]}}),
            ("metadata key", "alice", NOVA, "/v2.1/servers", {"server": {**base, "metadata": {name: "x"}}}),
            ("metadata value", "alice", NOVA, "/v2.1/servers", {"server": {**base, "metadata": {"x": name}}}),
            ("description", "alice", NOVA, "/v2.1/servers", {"server": {**base, "description": name}}),
            ("keypair", "alice", NOVA, "/v2.1/os-keypairs", {"keypair": {"name": name, "public_key": KEY}}),
            ("flavor", "admin", NOVA, "/v2.1/flavors", {"flavor": {"name": name, "ram": 1, "vcpus": 1, "disk": 1}}),
            ("flavor id", "admin", NOVA, "/v2.1/flavors",
             {"flavor": {"name": f"f{name}"[:255], "id": name, "ram": 1, "vcpus": 1, "disk": 1}}),
            ("image", "alice", GLANCE, "/v2/images", {"name": name}),
            ("image tag", "alice", GLANCE, "/v2/images", {"name": "x", "tags": [name]}),
            ("image property", "alice", GLANCE, "/v2/images", {"name": "x", f"p{name}": name}),
            ("network", "alice", NEUTRON, "/v2.0/networks", {"network": {"name": name, "description": name}}),
            ("port", "alice", NEUTRON, "/v2.0/ports", {"port": {**spec, "name": name, "device_id": name}}),
            ("port's DNS name", "alice", NEUTRON, "/v2.0/ports", {"port": {**spec, "dns_name": name}}),
            ("DHCP option", "alice", NEUTRON, "/v2.0/ports",
             {"port": {**spec, "extra_dhcp_opts": [{"opt_name": "bootfile-name", "opt_value": name}]}}),
            ("DHCP option name", "alice", NEUTRON, "/v2.0/ports",
             {"port": {**spec, "extra_dhcp_opts": [{"opt_name": name, "opt_value": "x"}]}}),
            ("network's domain", "alice", NEUTRON, "/v2.0/networks", {"network": {"dns_domain": name}}),
            ("group", "alice", NEUTRON, "/v2.0/security-groups", {"security_group": {"name": name}}),
            ("user", "admin", KEYSTONE, "/v3/users", {"user": {"name": name}}),
            ("project", "admin", KEYSTONE, "/v3/projects", {"project": {"name": name}}),
            ("tag", "alice", NEUTRON, f"/v2.0/networks/{net}/tags", {"tags": [name]}),
        ]  # fmt: skip
        for kind, who, app, url, body in wishes:
            status, data, _ = doors.call(who, app, "POST", url, body)
            assert status in (200, 201, 202, 400, 403, 409), (kind, name, status, data)
            if status < 300:
                self.taken.setdefault(kind, []).append(name.removesuffix(MARK))
                if url == "/v2.1/servers":
                    self.servers.append(data["server"]["id"])

    def intents(self) -> Any:
        for server in self.servers[-1:]:
            self.doors.run(server)
        with self.doors.db.read() as tx:
            return hosts.list_intents(tx, "h1", "s")


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Named:
    return Named(tmp_path_factory.mktemp("named"))


def test_names_are_taken_or_refused_and_what_is_refused_is_nowhere(named: Named) -> None:
    """Ordinary names in all languages are good everywhere; control characters are good nowhere that matters."""
    for kind in ("server", "image", "network", "group", "user", "project", "flavor"):
        assert "\u00e9\u4e2d\U0001f600" in named.taken[kind], kind
        assert "x" * 5000 not in named.taken[kind]
    for kind in ("server", "hostname", "keypair", "flavor", "flavor id", "DHCP option", "DHCP option name",
                 "metadata key",
                 "port's DNS name", "network's domain", "description"):  # fmt: skip
        for name in ("a\nb", "a\0b", "a\r\nb", "\x1b[31m", "\u2028", "a\tb"):
            assert name not in named.taken[kind], (kind, name)
    for kind in ("hostname", "port's DNS name", "network's domain", "DHCP option name", "keypair"):
        for name in named.taken[kind]:
            assert all(c.isascii() and (c.isalnum() or c in "-._ @") for c in name), (kind, name)
            assert not name.startswith("-") or kind == "keypair", (kind, name)


def test_names_come_back_as_they_were_given(named: Named) -> None:
    found = named.doors.good("alice", NEUTRON, "GET", "/v2.0/networks?fields=name")["networks"]
    assert set(named.taken["network"]) <= {one["name"].removesuffix(MARK) for one in found}
    found = named.doors.good("alice", NOVA, "GET", "/v2.1/servers?limit=1000")["servers"]
    assert set(named.taken["server"]) <= {one["name"].removesuffix(MARK) for one in found}


FILES = Files(
    "/state/servers/x/disk", [("/state/images-cache/x.raw", "raw")], "/state/servers/x/console.log", "/state/x.iso"
)


def test_no_name_is_in_a_domain(named: Named) -> None:
    """Not even escaped: nothing in a guest's definition is the user's but numbers."""
    intents = named.intents()
    assert len(intents) > 50
    shapes = set()
    for server in intents.values():
        xml = domain_xml.render(server, Marks(), FILES, Traits("kvm", "/usr/bin/qemu", "none", True))
        assert MARK not in xml
        assert "reboot;" not in xml
        tree = ElementTree.fromstring(xml)
        assert tree.findtext("name") == f"instance-{server.id}"
        shapes.add(tuple(element.tag for element in tree.iter() if element.tag != "interface"))
        for nic in server.nics:
            assert nic.tap == f"tap{nic.port_id[:11]}"
    assert len(shapes) <= 2, "with and without a NIC: no name makes another shape"


def test_dnsmasq_reads_only_what_it_may(named: Named) -> None:
    """Each line of its files has the one form that we write; arguments begin with our own words."""
    import re

    named.doors.good("alice", NEUTRON, "PUT", f"/v2.0/subnets/{named.subnet}", {"subnet": {"enable_dhcp": True}})
    with named.doors.db.read() as tx:
        intent = dhcp_intents(tx, "h1", "openstacklocal")[named.network]
    assert len(intent.leases) > 60
    made = dhcp.plan(intent, "/run/x", ())
    label = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
    full = rf"{label}(?:\.{label})*"
    forms = {
        "hosts": re.compile(rf"[0-9a-f:]{{17}},(?:set:port-[0-9a-f-]{{36}},)?{full},[0-9.]+"),
        "names": re.compile(rf"[0-9.]+\t{full} {label}"),
        "options": re.compile(r"tag:(?:port|subnet)-[0-9a-f-]{36},(?:option:)?[a-z0-9-]+(?:,[^\x00-\x1f\x7f]*)?"),
    }
    for name, content in made.files.items():
        for line in content.splitlines():
            assert forms[name].fullmatch(line), (name, line)
        assert content.isascii() or name == "options"
    for line in made.files["options"].splitlines():
        tag, _, rest = line.partition(",")
        if tag.startswith("tag:port-"):
            assert rest.count(",") == 1, "a value with a comma would be two"
    for argument in made.arguments[1:]:
        assert re.fullmatch(r"--[a-z-]+(=[\x21-\x7e]*)?", argument), argument
        assert MARK not in argument


def test_a_config_drive_has_our_paths_and_json(named: Named) -> None:
    """Whatever metadata, names and keys are: the same files, each of them one document."""
    listed = set()
    with named.doors.db.read() as tx:
        for server in named.servers[::5]:
            files = metadata_documents.config_drive_files(tx, server)
            listed.add(tuple(sorted(files)))
            for path, content in files.items():
                if path.endswith(".json"):
                    msgspec.json.decode(content)
    assert len(listed) == 1
    image = pycdlib.PyCdlib()
    image.open_fp(BytesIO(config_drive.build(files)))
    names = [f"{folder}/{name}" for folder, _, found in image.walk(rr_path="/") for name in found]
    assert sorted(name.lstrip("/") for name in names) == sorted(files)
    image.close()


def test_logs_are_lines(named: Named) -> None:
    for line in named.lines:
        message = json.loads(line)["message"]
        assert message.isprintable() or "\t" in message, message
    assert len(named.lines) > len(NAMES)


# ── nothing is run by a shell, and nothing that is read is run ────────────────────────────────────────────────

FORBIDDEN = {
    "os.system", "os.popen", "eval", "exec", "pickle.loads", "pickle.load", "marshal.loads", "yaml.load",
    "commands.getoutput", "subprocess.getoutput", "subprocess.getstatusoutput", "os.spawnl", "os.execl",
    "tempfile.mktemp", "__import__",
}  # fmt: skip


def calls() -> Iterator[tuple[str, ast.Call]]:
    for path in Path(cumulet.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                yield path.name, node


def test_no_shell_and_no_evaluation() -> None:
    for name, call in calls():
        assert ast.unparse(call.func) not in FORBIDDEN, (name, ast.unparse(call))
        for keyword in call.keywords:
            assert keyword.arg != "shell", (name, ast.unparse(call))
            assert not (keyword.arg == "verify" and ast.unparse(keyword.value) == "False"), name


def test_no_statement_is_made_of_text() -> None:
    """SQL is SQLAlchemy's: raw text only where it is a constant."""
    for name, call in calls():
        function = ast.unparse(call.func)
        if function.rpartition(".")[2] in ("exec_driver_sql", "execute") or function == "sa.text":
            for argument in call.args[:1]:
                formatted = isinstance(argument, ast.JoinedStr | ast.BinOp)
                assert not formatted or "pragma" in ast.unparse(argument), (name, ast.unparse(call))


# ── no field of any body is a server error ───────────────────────────────────────────────────────────────────

VALUES: list[Any] = [
    None, True, -1, 2**31, 2**100, 1.5, "", "\0", "x" * 70_000, "\u0661", [None], {"a": {"b": []}}, ["x"] * 300,
    "9" * 30,
]  # fmt: skip


def test_no_field_is_a_server_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    doors = Doors(tmp_path)
    caplog.set_level(logging.ERROR, "cumulet")
    network, subnet = doors.network()
    server = doors.server(networks=[{"uuid": network}])
    image = doors.ids["image of alice"]
    device = {"boot_index": 0, "uuid": image, "source_type": "image", "destination_type": "local"}
    create = {
        "name": "x", "imageRef": image, "flavorRef": doors.ids["flavor"],
        "networks": [{"uuid": network, "fixed_ip": "10.0.0.9"}], "adminPass": "x", "metadata": {"a": "b"},
        "security_groups": [{"name": "default"}], "user_data": "eA==",
        "config_drive": True, "availability_zone": "nova", "hostname": "abc", "description": "d", "min_count": 1,
        "max_count": 1, "return_reservation_id": False, "accessIPv4": "1.1.1.1", "accessIPv6": "::1",
        "OS-DCF:diskConfig": "AUTO", "key_name": "k", "block_device_mapping_v2": [device], "host": "h",
        "hypervisor_hostname": "h",
    }  # fmt: skip
    user = {"name": "u", "domain_id": "default", "enabled": True, "password": "p", "default_project_id": "x",
            "description": "d",
            "options": {"lock_password": True}, "email": "x", "links": {}, "id": "x", "tags": []}  # fmt: skip
    flavor = {"name": "f", "ram": 1, "vcpus": 1, "disk": 1, "id": "x", "OS-FLV-EXT-DATA:ephemeral": 0, "swap": 0,
              "rxtx_factor": 1.0,
              "os-flavor-access:is_public": True, "description": "d"}  # fmt: skip
    picture = {
        "id": "11111111-1111-4111-8111-111111111111",
        "name": "x",
        "visibility": "private",
        "protected": False,
        "min_ram": 0,
        "os_hidden": False,
        "owner": "x",
        "disk_format": "raw",
        "container_format": "bare",
        "min_disk": 0,
        "tags": ["a"],
        "p": "v",
    }
    bodies: list[tuple[str, str, str, str, str, dict[str, Any]]] = [
        ("admin", NOVA, "POST", "/v2.1/servers", "server", create),
        ("admin", NOVA, "POST", "/v2.1/flavors", "flavor", flavor),
        ("alice", NOVA, "PUT", f"/v2.1/servers/{server}", "server",
         {name: create[name] for name in ("name", "description", "hostname", "accessIPv4", "accessIPv6",
                                          "OS-DCF:diskConfig")}),
        ("alice", NOVA, "POST", "/v2.1/os-keypairs", "keypair",
         {"name": "k", "type": "ssh", "public_key": KEY, "user_id": "x"}),
        ("alice", NOVA, "POST", f"/v2.1/servers/{server}/os-interface", "interfaceAttachment",
         {"net_id": network, "port_id": "x", "fixed_ips": [{"ip_address": "10.0.0.7"}], "tag": "x"}),
        ("admin", KEYSTONE, "POST", "/v3/users", "user", user),
        ("admin", KEYSTONE, "PATCH", f"/v3/users/{doors.ids['bob']}", "user", user),
        ("admin", KEYSTONE, "POST", "/v3/projects", "project",
         {"name": "p", "domain_id": "default", "parent_id": "default", "is_domain": False, "enabled": True,
          "tags": ["a"],
          "description": "d", "options": {"immutable": None}}),
        ("admin", KEYSTONE, "POST", "/v3/roles", "role",
         {"name": "r", "domain_id": "default", "options": {}, "description": "d"}),
        ("admin", KEYSTONE, "POST", "/v3/regions", "region",
         {"id": "r", "parent_region_id": "RegionOne", "description": "d"}),
        ("admin", KEYSTONE, "POST", "/v3/endpoints", "endpoint",
         {"service_id": "x", "interface": "public", "url": "http://x", "region_id": "RegionOne", "enabled": True}),
        ("alice", NEUTRON, "PUT", f"/v2.0/subnets/{subnet}", "subnet",
         {"name": "x", "gateway_ip": "10.0.0.1", "dns_nameservers": ["9.9.9.9"], "enable_dhcp": True,
          "host_routes": [],
          "allocation_pools": [{"start": "10.0.0.9", "end": "10.0.0.99"}]}),
        ("admin", GLANCE, "POST", "/v2/images", "", picture),
    ]  # fmt: skip
    for who, app, method, url, key, good in bodies:
        for field in good:
            for value in VALUES:
                body = {**good, field: value}
                status, data, _ = doors.call(who, app, method, url, {key: body} if key else body)
                assert status < 500, (url, field, value, data)
    for raw in (
        b'{"server": {"name": "\\ud800"}}',
        b'{"server": {"name": "\xed\xa0\x80"}}',
        b'{"server": {"name": "\\u0000"}}',
    ):
        assert doors.call("alice", NOVA, "POST", "/v2.1/servers", raw)[0] == 400
