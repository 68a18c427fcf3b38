"""Contract of the host tools, with real parts: namespaces, veths, nftables, a private Open vSwitch, daemons.

Needs root. Everything happens in namespaces with unique names and in a switch with directories of its own.
"""

import contextlib
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cumulet.host import arp, device, netns, openvswitch, process
from cumulet.host.netlink import Netlink, NetlinkError, Route, checksum_off, create_tap
from cumulet.host.nft import Nft, NftError
from cumulet.host.openflow import FlowChange, OpenFlow, OpenFlowError
from cumulet.host.ovsdb import Ovsdb, OvsdbError, OvsdbLost
from cumulet.host.ovsdb_watch import Watch

pytestmark = [
    pytest.mark.host,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]

MAC_A, MAC_B = "fa:16:3e:00:00:0a", "fa:16:3e:00:00:0b"


def until(seen: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not seen():
        assert time.monotonic() < deadline, f"not seen in time: {what}"
        time.sleep(0.02)


@pytest.fixture
def spaces() -> Iterator[tuple[str, str]]:
    tag = uuid.uuid4().hex[:8]
    names = (f"cumtest-{tag}-a", f"cumtest-{tag}-b")
    for name in names:
        assert netns.create(name)
    yield names
    for name in names:
        netns.delete(name)


def wire(a: str, b: str) -> None:
    """A veth between two namespaces, 10.9.0.1 and fd00:9::1 at one end, .2 at the other."""
    with netns.enter(a), Netlink() as netlink:
        netlink.ensure_veth("eth0", "eth0", peer_netns=b, mtu=1400, mac=MAC_A, peer_mac=MAC_B)
    for number, name in enumerate((a, b), start=1):
        with netns.enter(name), Netlink() as netlink:
            netlink.ensure_addresses("eth0", {f"10.9.0.{number}/24", f"fd00:9::{number}/64"})
            netlink.set_up("eth0")


def tcp_works(a: str, b: str, address: str) -> bool:
    """Whether a byte string goes from namespace a to `address` in b and back."""
    with netns.listen_tcp(b, address, 0) as listener:
        listener.settimeout(5)
        with netns.enter(a):
            client = socket.socket(listener.family, socket.SOCK_STREAM)
        client.settimeout(2)
        with client:
            try:
                client.connect(listener.getsockname()[:2])
                server, _ = listener.accept()
                with server:
                    server.settimeout(2)
                    client.sendall(b"x" * 20_000)
                    server.sendall(server.recv(1))
                    return client.recv(1) == b"x"
            except TimeoutError:
                return False


def test_namespaces(spaces: tuple[str, str]) -> None:
    a, b = spaces
    here = os.readlink("/proc/thread-self/ns/net")
    assert not netns.create(a)
    assert netns.list_names(a[:-1]) == [a, b]
    with netns.enter(a):
        inside = os.readlink("/proc/thread-self/ns/net")
        assert netns.sysctl("net.ipv4.ip_forward", 1)
        assert not netns.sysctl("net.ipv4.ip_forward", 1)
        with pytest.raises(netns.NetnsError, match="bad network sysctl"):
            netns.sysctl("net/../kernel/hostname", "x")
    assert inside != here == os.readlink("/proc/thread-self/ns/net")
    with pytest.raises(netns.NetnsError, match="no network namespace"), netns.enter("cumtest-none"):
        pass
    with pytest.raises(netns.NetnsError, match="bad network namespace name"):
        netns.create("../x")
    assert netns.delete(b)
    assert not netns.delete(b)
    assert not netns.exists(b)
    (Path(netns.DIRECTORY) / b).touch()  # what a crash in create leaves
    assert not netns.exists(b)
    assert netns.create(b)
    assert netns.exists(b)
    with netns.listen_tcp(a, "192.0.2.9", 0) as listener:
        assert listener.getsockname()[0] == "192.0.2.9"


def test_links_addresses_routes_and_traffic(spaces: tuple[str, str]) -> None:
    a, b = spaces
    wire(a, b)
    wire(a, b)
    with netns.enter(a), Netlink() as netlink:
        link = netlink.links()["eth0"]
        assert (link.kind, link.mtu, link.mac, link.up) == ("veth", 1400, MAC_A, True)
        assert netlink.links()["lo"].up
        assert not netlink.ensure_veth("eth0", "eth0", peer_netns=b, mtu=1450)
        assert netlink.links()["eth0"].mtu == 1450
        with pytest.raises(NetlinkError, match="does not lead to other"):
            netlink.ensure_veth("eth0", "other", peer_netns=b)
        assert not netlink.ensure_addresses("eth0", ["10.9.0.1/24", "fd00:9:0::1/64"])
        assert netlink.ensure_addresses("eth0", ["10.9.0.9/24"], exact=False)
        assert netlink.ensure_addresses("eth0", ["10.9.0.9/24", "fd00:9::1/64"])
        own = {address for address in netlink.addresses("eth0") if not address.startswith("fe80:")}
        assert own == {"10.9.0.9/24", "fd00:9::1/64"}
        default = Route("0.0.0.0/0", "eth0", "10.9.0.2")
        assert netlink.ensure_route(default)
        assert not netlink.ensure_route(default)
        assert netlink.ensure_route(Route("::/0", "eth0", "fd00:9::2"))
        assert not netlink.ensure_route(Route("0::/0", "eth0", "fd00:9::2"))
        assert netlink.ensure_route(Route("10.8.0.0/16", "eth0"))
        moved = Route("0.0.0.0/0", "eth0", "10.9.0.3")
        assert netlink.ensure_route(moved)
        assert netlink.routes() == {
            moved,
            Route("10.8.0.0/16", "eth0"),
            Route("::/0", "eth0", "fd00:9::2", 1024),
        }
        assert netlink.delete_route(moved)
        assert not netlink.delete_route(moved)
        with pytest.raises(NetlinkError, match=r"add Route.*gateway"):
            netlink.ensure_route(Route("0.0.0.0/0", "eth0", "198.51.100.1"))
    assert tcp_works(a, b, "10.9.0.2")
    assert tcp_works(a, b, "fd00:9::2")
    with netns.enter(a), Netlink() as netlink:
        assert netlink.flush_neighbours("eth0") >= 2
        assert checksum_off("eth0")
        assert not checksum_off("eth0")
        create_tap("tap0", owner_uid=65534)
        create_tap("tap0", owner_uid=65534)
        assert netlink.links()["tap0"].kind == "tun"
        assert netlink.delete_link("tap0")
        assert not netlink.delete_link("tap0")
        assert netlink.delete_link("eth0")
        assert netlink.find_link("eth0") is None
        with pytest.raises(device.DeviceError, match="bad network device name"):
            create_tap("../tap")
        with pytest.raises(NetlinkError, match="no device eth0"):
            netlink.addresses("eth0")


def test_nftables(spaces: tuple[str, str]) -> None:
    a, b = spaces
    with netns.enter(a):
        nft = Nft()
    with nft, contextlib.ExitStack() as stack:
        stack.enter_context(netns.enter(b))  # the context goes on to act in a
        body = "chain first {\ntype filter hook input priority 0;\ntcp dport 80 accept\n}"
        nft.replace_table("inet", "demo", body)
        nft.replace_table("inet", "demo", body.replace("first", "second"))
        chains = [entry["chain"]["name"] for entry in nft.list_json("list table inet demo") if "chain" in entry]
        assert chains == ["second"]
        assert nft.tables() == {("inet", "demo")}
        with pytest.raises(NftError, match="syntax error"):
            nft.replace_table("inet", "demo", "chain broken {\nnonsense\n}")
        assert "tcp dport 80" in nft.run("list table inet demo")
        assert nft.ensure_table("inet", "demo", body)
        assert not nft.ensure_table("inet", "demo", body)
        assert nft.ensure_table("inet", "demo", body + "\n")
        with Nft() as other:
            assert other.tables() == set()
        workers = [threading.Thread(target=nft.replace_table, args=("ip", f"t{n}", body)) for n in range(8)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert len(nft.tables()) == 9
        assert nft.delete_table("inet", "demo")
        assert not nft.delete_table("inet", "demo")
        with pytest.raises(NftError, match="bad nftables table"):
            nft.delete_table("inet", "x; flush ruleset")


@pytest.mark.parametrize("address", ["10.9.0.1", "fd00:9::1"])
def test_announcements_move_an_address(spaces: tuple[str, str], address: str) -> None:
    a, b = spaces
    wire(a, b)
    assert tcp_works(b, a, address)  # b knows the neighbour now
    new = "fa:16:3e:00:00:77"
    with netns.enter(a), pytest.raises(arp.AnnounceError, match="nowhere"):
        arp.announce("nowhere", address, new)

    def moved() -> bool:
        with netns.enter(a):
            arp.announce("eth0", address, new)
        with netns.enter(b):
            shown = subprocess.run(["ip", "neigh", "show", address], capture_output=True, text=True, check=True)
        return f"lladdr {new}" in shown.stdout

    until(moved, f"neighbour {address} at {new}")


class PrivateSwitch:
    """An Open vSwitch of the test's own."""

    def __init__(self, directory: Path) -> None:
        self.state, self.run = str(directory / "state"), str(directory / "run")
        self.children: dict[str, subprocess.Popen[bytes]] = {}
        openvswitch.prepare(self.state, self.run, system_id="test")
        openvswitch.prepare(self.state, self.run, system_id="test-host")
        self.ovsdb = Ovsdb(openvswitch.database_socket(self.run))
        self.openflow = OpenFlow(self.run)

    def start(self, command: openvswitch.Command) -> None:
        name = command.argv[0]
        self.children[name] = subprocess.Popen(command.argv, env={**os.environ, **command.env})

    def kill(self, name: str) -> None:
        self.children[name].kill()
        self.children.pop(name).wait()

    def start_server(self) -> None:
        self.start(openvswitch.ovsdb_server(self.state, self.run))
        until(lambda: os.path.exists(self.ovsdb.path), "the database's socket")

    def start_vswitchd(self) -> None:
        self.start(openvswitch.ovs_vswitchd(self.state, self.run))
        until(lambda: self.ovsdb.look().vswitchd != "", "ovs-vswitchd")
        self.ovsdb.settle(20)


@pytest.fixture
def switch(spaces: tuple[str, str]) -> Iterator[PrivateSwitch]:
    if shutil.which("ovs-vswitchd") is None:
        pytest.skip("needs Open vSwitch")
    directory = Path(tempfile.mkdtemp(prefix="cum-"))  # not tmp_path: unix sockets have short paths
    with netns.enter(spaces[0]):  # the switch lives in a, the guests beside it
        private = PrivateSwitch(directory)
        try:
            private.start_server()
            private.start_vswitchd()
            yield private
        finally:
            private.ovsdb.close()
            for name in list(private.children):
                private.kill(name)
            shutil.rmtree(directory)


def test_switch_forwards_and_recovers(spaces: tuple[str, str], switch: PrivateSwitch) -> None:
    _, guest_b = spaces
    guest_c = f"{guest_b}-c"
    netns.create(guest_c)
    try:
        ports = {"vb": (guest_b, "10.9.0.1/24"), "vc": (guest_c, "10.9.0.2/24")}
        for port, (guest, address) in ports.items():
            with Netlink() as netlink:
                netlink.ensure_veth(port, "eth0", peer_netns=guest, mtu=1450)
                netlink.set_up(port)
            with netns.enter(guest), Netlink() as netlink:
                netlink.ensure_addresses("eth0", {address})
                netlink.set_up("eth0")
        check_database(switch.ovsdb)
        flows = ["table=0,priority=0,actions=resubmit(,5)", "table=5,priority=0,actions=NORMAL"]
        flows.append("table=5,priority=9,ip,nw_src=10.0.0.0/8,nw_dst=192.0.2.0/24,actions=drop")
        assert switch.openflow.sync_flows("br-int", flows) == FlowChange(3, 0)
        assert switch.openflow.sync_flows("br-int", list(reversed(flows))) == FlowChange(0, 0)
        assert not tcp_works(guest_b, guest_c, "10.9.0.2")  # frames leave with unfinished checksums
        for guest, _ in ports.values():
            with netns.enter(guest):
                assert checksum_off("eth0")
        assert tcp_works(guest_b, guest_c, "10.9.0.2")
        check_flows(switch.openflow, flows)
        check_restart(switch, flows)
        assert tcp_works(guest_b, guest_c, "10.9.0.2")
    finally:
        netns.delete(guest_c)


def check_database(ovsdb: Ovsdb) -> None:
    for again in (False, True):
        with ovsdb.change() as change:
            for bridge in ("br-int", "br-tun"):
                change.ensure_bridge(bridge, "netdev", external_ids={"owner": "test"})
            change.ensure_patch("br-int", "patch-tun", "br-tun", "patch-int")
            change.ensure_vxlan("br-tun", "vxlan-1", "192.0.2.1", "192.0.2.2")
            for port in ("vb", "vc"):
                change.ensure_port("br-int", port, tag=3, external_ids={"iface-id": f"id-{port}"})
            assert change.changed != again
    seen = ovsdb.look()
    assert seen.cur_cfg == seen.next_cfg
    assert seen.external_ids["system-id"] == "test-host"
    assert seen.other_config["n-handler-threads"] == "1"
    ports = ovsdb.ports("br-int")
    assert set(ports) == {"br-int", "patch-tun", "vb", "vc"}
    assert all(port.ofport and port.error is None for port in ports.values())
    assert (ports["vb"].tag, ports["vb"].external_ids) == (3, {"iface-id": "id-vb"})
    assert ovsdb.bridges()["br-tun"].ports["vxlan-1"].options["remote_ip"] == "192.0.2.2"
    with ovsdb.change() as change:
        change.ensure_tag("vb", 4)
        change.ensure_port("br-int", "vc", tag=4, external_ids={"attached": "yes"})
        change.ensure_port("br-int", "missing")
        change.delete_port("vxlan-1")
        with pytest.raises(OvsdbError, match="belongs to bridge br-int"):
            change.ensure_port("br-tun", "vb")
    seen = ovsdb.look()
    assert seen.bridges["br-int"].ports["vc"].external_ids == {"iface-id": "id-vc", "attached": "yes"}
    assert seen.bridges["br-int"].ports["missing"].ofport == -1
    assert "missing" in (seen.bridges["br-int"].ports["missing"].error or "")
    assert seen.find_port("vxlan-1") is None
    with ovsdb.change() as change:
        change.delete_port("missing")
        change.delete_bridge("br-tun")
        change.delete_port("patch-tun")
    assert set(ovsdb.bridges()) == {"br-int"}
    with pytest.raises(OvsdbError, match="no bridge br-tun"):
        ovsdb.ports("br-tun")


def check_flows(openflow: OpenFlow, flows: list[str]) -> None:
    learned = (
        "table=9,priority=1,actions=learn(table=20,hard_timeout=300,cookie=0x77,NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[])"
    )
    many = [f"table=8,priority=1,tun_id={n:#x},actions=drop" for n in range(1500)]
    assert openflow.sync_flows("br-int", [*flows, learned, *many]) == FlowChange(1501, 0)
    assert len(openflow.list_cookies("br-int")) == 1504
    subprocess.run(
        [
            "ovs-ofctl",
            "add-flow",
            f"unix:{openflow.run_dir}/br-int.mgmt",
            "table=20,cookie=0x77,actions=drop",
        ],
        check=True,
    )
    changed = [flow.replace("actions=drop", "actions=NORMAL") for flow in flows]  # the same match, other actions
    assert openflow.sync_flows("br-int", changed) == FlowChange(1, 1503 - 1)
    assert any("cookie=0x77" in line for line in openflow.dump("br-int"))  # a stranger's flow is left alone
    assert openflow.sync_flows("br-int", flows) == FlowChange(1, 1)
    with pytest.raises(OpenFlowError, match=r"br-int: .*nonsense"):
        openflow.sync_flows("br-int", [*flows, "table=0,priority=7,nonsense=1,actions=drop"])
    with pytest.raises(OpenFlowError, match="same table, priority and match"):
        openflow.sync_flows("br-int", [*flows, "table=0,priority=0,actions=drop"])
    with pytest.raises(OpenFlowError, match="not one flow"):
        openflow.sync_flows("br-int", ["table=0,actions=drop\nflow delete"])
    with pytest.raises(OpenFlowError, match="br-none"):
        openflow.sync_flows("br-none", flows)
    openflow.sync_flows("br-int", flows)


def check_restart(switch: PrivateSwitch, flows: list[str]) -> None:
    calls: list[str] = []
    before = switch.ovsdb.look().vswitchd
    with Watch(switch.ovsdb.path, lambda: calls.append(switch.ovsdb.look().vswitchd)):
        until(lambda: before in calls, "a first call")
        calls.clear()
        switch.kill("ovs-vswitchd")
        until(lambda: "" in calls, "a call when vswitchd died")
        switch.start_vswitchd()
        now = switch.ovsdb.look().vswitchd
        assert now not in ("", before)
        until(lambda: now in calls, "a call when vswitchd came back")
        calls.clear()
        create_tap("tap9")
        with switch.ovsdb.change() as change:
            change.ensure_port("br-int", "tap9")
        until(lambda: bool(calls), "a call when a port appeared")
    assert switch.openflow.sync_flows("br-int", flows) == FlowChange(len(flows), 0)
    switch.kill("ovsdb-server")
    os.unlink(switch.ovsdb.path)
    with pytest.raises(OvsdbLost):
        switch.ovsdb.look()
    switch.start_server()
    assert "br-int" in switch.ovsdb.bridges()
    switch.ovsdb.settle(20)


def test_kernel_datapath_is_known() -> None:
    assert openvswitch.datapath_type() == ("system" if openvswitch.kernel_datapath(load=False) else "netdev")


def test_processes(spaces: tuple[str, str], tmp_path: Path) -> None:
    a, _ = spaces
    pidfile, marker, log = str(tmp_path / "pid"), f"marker-{a}", tmp_path / "log"
    code = "import os,sys,time; print(os.readlink('/proc/self/ns/net'), flush=True); time.sleep(600)"
    argv = [sys.executable, "-c", code, marker]
    child = process.start(argv, pidfile, netns_name=a, log_path=str(log))
    with netns.enter(a):
        inside = os.readlink("/proc/thread-self/ns/net")
    until(lambda: log.read_text().strip() == inside, "the child in its namespace")
    assert process.find(pidfile, marker) == child
    assert process.find(pidfile, "another marker") is None
    Path(pidfile).write_text(f"{child.pid} {child.started - 1}\n")  # the number was given to somebody else
    assert process.find(pidfile, marker) is None
    Path(pidfile).write_text(f"{child.pid}\n")  # as a daemon writes it itself
    assert process.find(pidfile, marker) == child
    assert process.terminate(pidfile, marker)
    assert process.find(pidfile, marker) is None
    assert not os.path.exists(pidfile)
    assert not process.terminate(pidfile, marker)

    stubborn = "import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); open({!r}, 'w'); time.sleep(600)"
    ready = tmp_path / "ready"
    child = process.start([sys.executable, "-c", stubborn.format(str(ready)), marker], pidfile)
    until(ready.exists, "the stubborn child")
    assert process.terminate(pidfile, marker, seconds=0.1)
    assert process.wait_ended(child, 0)

    child = process.start(argv, pidfile)
    os.kill(child.pid, signal.SIGKILL)  # nobody waits for it: a zombie is not alive
    assert process.wait_ended(child, 5)
    assert process.find(pidfile, marker) is None
    with pytest.raises(process.ProcessError, match="start /no/such"):
        process.start(["/no/such"], pidfile)
    with pytest.raises(process.ProcessError, match="ended with 1"):
        process.start_daemon([sys.executable, "-c", "raise SystemExit(1)"])


def test_dnsmasq_goes_into_the_background(spaces: tuple[str, str], tmp_path: Path) -> None:
    if shutil.which("dnsmasq") is None:
        pytest.skip("needs dnsmasq")
    a, _ = spaces
    pidfile = str(tmp_path / "dnsmasq.pid")
    options = [
        "--conf-file=/dev/null",
        "--user=root",
        "--no-resolv",
        "--no-hosts",
        "--bind-interfaces",
        "--interface=lo",
    ]
    argv = ["dnsmasq", *options, f"--pid-file={pidfile}"]
    process.start_daemon(argv, netns_name=a)
    try:
        assert process.find(pidfile, pidfile) is not None
        with pytest.raises(process.ProcessError, match=r"ended with 2: .*in use"):
            process.start_daemon(argv, netns_name=a)
        assert process.send(pidfile, pidfile, signal.SIGHUP)
    finally:
        assert process.terminate(pidfile, pidfile)
    with netns.enter(a), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 53))


def test_advertisement_frame_is_what_the_rfc_says() -> None:
    frame = arp.neighbour_advertisement("fd00::1", bytes.fromhex("fa163e000001"), router=True)
    assert frame[:6].hex() == "333300000001"
    assert len(frame) == 14 + 40 + 32
    assert struct.unpack_from("!I", frame, 58)[0] == 0xA0000000
