"""The domain's XML: what is written is read back, and nothing in it is anybody else's text."""

import xml.etree.ElementTree as ET
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cumulet.nova.compute.domain_xml import (
    NAMESPACE,
    Files,
    Marks,
    Traits,
    find_nics,
    parse,
    render,
    render_marks,
    render_nic,
)
from cumulet.nova.model import Nic, ServerIntent

SERVER_ID = "7d4b1c6e-0000-4000-8000-000000000001"
PORTS = ("0a1b2c3d-4e5f-4000-8000-00000000000a", "0a1b2c3d-aaaa-4000-8000-00000000000b")
NICS = tuple(Nic(port, f"fa:16:3e:00:00:0{n}", 1450, "net", True) for n, port in enumerate(PORTS))
FILES = Files("/s/disk", [("/cache/i.raw", "raw")], "/s/console.log")
TCG = Traits("qemu", "/usr/bin/qemu-system-x86_64", "none", userspace_switch=True)
KVM = replace(TCG, virt_type="kvm", userspace_switch=False)

marks = st.builds(
    Marks,
    generation=st.integers(0, 1 << 40),
    last_verb=st.integers(0, 1 << 40),
    verb=st.integers(0, 1 << 40),
    restart=st.booleans(),
    stop_by=st.integers(0, 1 << 40),
)


def server(**changes: object) -> ServerIntent:
    values: dict[str, object] = {
        "id": SERVER_ID,
        "project_id": "p",
        "name": "<evil name='&'>\x00",
        "vcpus": 2,
        "memory_mb": 512,
        "root_gb": 1,
        "image": None,
        "power": "on",
        "absent": False,
        "generation": 3,
        "nics": NICS,
    }
    return ServerIntent(**{**values, **changes})  # type: ignore[arg-type]


def test_disks_beside_the_root_disk_follow_it() -> None:
    files = replace(FILES, spares=[("/s/ephemeral", "ephemeral"), ("/s/swap", "swap")])
    disks = ET.fromstring(render(server(), Marks(generation=1), files, TCG)).findall("devices/disk")
    found = [(d.find("target").get("dev"), d.find("source").get("file"), d.findtext("serial")) for d in disks]  # type: ignore[union-attr]
    assert found == [
        ("vda", "/s/disk", "root"), ("vdb", "/s/ephemeral", "ephemeral"), ("vdc", "/s/swap", "swap"),
    ]  # fmt: skip


def test_what_the_guest_was_told_of_is_where_it_was_told() -> None:
    nics = (NICS[0], msgspec.structs.replace(NICS[1], bus=9))
    devices = ET.fromstring(render(server(nics=nics, root_bus=10), Marks(), FILES, TCG)).find("devices")
    assert devices is not None
    found = [device.get("bus") for device in devices.findall("*/address")]
    assert found == ["10", "9"]
    assert {"10", "9"} <= {port.get("index") for port in devices.findall("controller[@model='pcie-root-port']")}
    assert "<address" not in render(server(), Marks(), FILES, TCG)
    assert 'bus="9"' in render_nic(nics[1], TCG)


@given(marks, st.lists(st.sampled_from(NICS), unique=True))
def test_what_is_written_is_read_back(memory: Marks, nics: list[Nic]) -> None:
    read = parse(render(server(nics=tuple(nics)), memory, FILES, TCG))
    assert read is not None
    assert (read.server_id, read.marks) == (SERVER_ID, memory)
    assert read.nics == {nic.port_id: nic.tap for nic in nics}


@given(marks)
def test_marks_alone_are_what_libvirt_puts_back(memory: Marks) -> None:
    """libvirt gives the element the namespace and prefix it was told."""
    element = ET.fromstring(render_marks(memory))
    element.tag = f"{{{NAMESPACE}}}server"
    domain = ET.Element("domain")
    ET.SubElement(domain, "uuid").text = SERVER_ID
    ET.SubElement(domain, "metadata").append(element)
    read = parse(ET.tostring(domain, encoding="unicode"))
    assert read is not None
    assert read.marks == memory


def test_strangers_domains_are_nobodys() -> None:
    assert parse("<domain><uuid>u</uuid></domain>") is None
    assert parse('<domain><metadata><n:server xmlns:n="urn:other"/></metadata></domain>') is None


def test_marks_that_somebody_broke_count_as_none() -> None:
    xml = render(server(), Marks(generation=5, last_verb=4), FILES, TCG)
    read = parse(xml.replace('last_verb="4"', 'last_verb="-4x"'))
    assert read is not None
    assert read.marks == Marks(generation=5)


def test_a_reboot_is_done_when_its_definition_runs() -> None:
    asked = Marks(last_verb=3, verb=4, stop_by=99)
    assert asked.seen(active=True) == asked
    assert asked.seen(active=False) == asked
    written = replace(asked, restart=True)
    assert written.seen(active=False) == written
    assert written.seen(active=True) == Marks(last_verb=4)
    assert Marks(last_verb=4, restart=True).seen(active=True).last_verb == 4


def test_nothing_of_the_users_text_is_in_it() -> None:
    assert "evil" not in render(server(), Marks(), FILES, TCG)


def test_every_format_is_said() -> None:
    files = replace(FILES, bases=[("/cache/i.qcow2", "qcow2"), ("/cache/j.raw", "raw")])
    disk = ET.fromstring(render(server(), Marks(), files, TCG)).find("devices/disk")
    assert disk is not None
    assert disk.find("driver").get("type") == "qcow2"  # type: ignore[union-attr]
    chain = []
    below = disk.find("backingStore")
    while below is not None and len(below):
        source, kind = below.find("source"), below.find("format")
        assert source is not None
        assert kind is not None
        chain.append((source.get("file"), kind.get("type")))
        below = below.find("backingStore")
    assert chain == list(files.bases)
    assert below is not None  # the chain's end is said, too


def test_config_drive_is_a_cdrom_that_cloud_kernels_can_read() -> None:
    assert "cdrom" not in render(server(), Marks(), FILES, TCG)
    domain = ET.fromstring(render(server(), Marks(), replace(FILES, config_drive="/s/config.iso"), TCG))
    cdrom = domain.find("devices/disk[@device='cdrom']")
    assert cdrom is not None
    assert cdrom.find("source").get("file") == "/s/config.iso"  # type: ignore[union-attr]
    assert cdrom.find("target").get("bus") == "scsi"  # type: ignore[union-attr]
    assert cdrom.find("readonly") is not None


@pytest.mark.parametrize(("traits", "offloads"), [(TCG, True), (KVM, False)])
def test_checksums_are_complete_where_the_switch_is_in_userspace(traits: Traits, offloads: bool) -> None:
    domain = ET.fromstring(render(server(), Marks(), FILES, traits))
    hosts = domain.findall("devices/interface/driver/host")
    assert len(hosts) == (len(NICS) if offloads else 0)
    assert all(host.get("csum") == "off" for host in hosts)
    assert domain.get("type") == traits.virt_type
    assert domain.find("cpu").get("mode") == ("custom" if offloads else "host-model")  # type: ignore[union-attr]


def test_taps_are_the_agents() -> None:
    for nic, interface in zip(
        NICS, ET.fromstring(render(server(), Marks(), FILES, TCG)).iterfind("devices/interface"), strict=True
    ):
        target = interface.find("target")
        assert target is not None
        assert (target.get("dev"), target.get("managed")) == (nic.tap, "no")
        assert interface.find("mac").get("address") == nic.mac  # type: ignore[union-attr]


def test_nics_are_found_by_port() -> None:
    xml = render(server(), Marks(), FILES, TCG)
    assert find_nics(xml, {PORTS[1]}) == [render_nic(NICS[1], TCG)]
    assert find_nics(xml, set()) == []
    assert find_nics(xml.replace("ua-", "net"), PORTS) == []
