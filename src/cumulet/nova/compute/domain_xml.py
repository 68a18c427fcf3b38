"""A server as libvirt's XML, and what we wrote read back.  Pure: text in, text out.

The XML is built by a library and nothing in it is the user's: names are made from ids, paths from the state
directory, formats are always said and never probed (a raw disk whose first bytes are a qcow2 header could
otherwise make QEMU open files of the host).

``Marks`` is the driver's memory, kept in the domain's own metadata, so that it lives and dies with the domain and
survives libvirtd and the agent: the generation that was defined, the last verb that was done, the reboot that is
under way, and when a guest that was asked to shut down is switched off.  libvirt keeps two copies, the running
domain's and the definition's; a reboot under way is done once the domain runs from a definition that says
``restart``.
"""

import xml.etree.ElementTree as ET
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from cumulet.nova.model import PCI_BUSES, Nic, ServerIntent

NAMESPACE = "urn:cumulet:1"
METADATA_KEY = "cumulet"
NAME_PREFIX = "instance-"
MACHINE = "pc-q35-7.2"  # one version, so that a guest's hardware does not change under it
_SERVER = f"{{{NAMESPACE}}}server"
_ALIAS = "ua-"  # libvirt takes an alias of ours only with this prefix
_OFFLOADS = ("csum", "gso", "tso4", "tso6", "ecn", "ufo", "mrg_rxbuf")

ET.register_namespace(METADATA_KEY, NAMESPACE)


@dataclass(frozen=True)
class Marks:
    """What the driver remembers of a domain.  ``stop_by`` is on the clock of the machine's boot, 0 for never."""

    generation: int = 0
    last_verb: int = 0
    verb: int = 0  # a reboot or rebuild under way
    restart: bool = False  # its new definition: done as soon as it runs
    stop_by: int = 0

    def seen(self, active: bool) -> "Marks":
        """As they count: a reboot whose new definition runs is done."""
        if active and self.verb and self.restart:
            return replace(self, last_verb=max(self.verb, self.last_verb), verb=0, restart=False, stop_by=0)
        return self


@dataclass(frozen=True)
class Traits:
    """What every domain of a host has in common."""

    virt_type: str  # 'kvm' or 'qemu'
    emulator: str
    disk_cache: str  # 'none' where the file system has direct I/O, else 'writeback'
    userspace_switch: bool  # frames must leave the guest with complete checksums


@dataclass(frozen=True)
class Files:
    """Absolute paths.

    ``bases`` is the chain beneath the disk, nearest first: (path, format).  ``spares``: the disks beside it, raw:
    (path, serial).
    """

    disk: str
    bases: Sequence[tuple[str, str]]
    console_log: str
    config_drive: str = ""
    spares: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Read:
    """A domain that we wrote.  ``nics``: port id → its tap."""

    server_id: str
    marks: Marks
    nics: dict[str, str]


def domain_name(server_id: str) -> str:
    return f"{NAME_PREFIX}{server_id}"


def render(server: ServerIntent, marks: Marks, files: Files, traits: Traits) -> str:
    """The whole definition."""
    domain = ET.Element("domain", type=traits.virt_type)
    _add(domain, "name", text=domain_name(server.id))
    _add(domain, "uuid", text=server.id)
    _add(domain, "metadata").append(_marks_element(marks))
    _add(domain, "memory", unit="MiB", text=str(server.memory_mb))
    _add(domain, "vcpu", text=str(server.vcpus))
    _add_identity(domain, server.id)
    features = _add(domain, "features")
    _add(features, "acpi")
    _add(features, "apic")
    _add_cpu(domain, traits)
    _add(domain, "on_poweroff", text="destroy")
    _add(domain, "on_reboot", text="restart")
    _add(domain, "on_crash", text="destroy")
    devices = _add(domain, "devices")
    _add(devices, "emulator", text=traits.emulator)
    _add_controllers(devices)
    _add_disks(devices, files, traits, server.root_bus)
    for nic in server.nics:
        devices.append(_nic_element(nic, traits))
    _add_consoles(devices, files)
    _add_helpers(devices)
    return ET.tostring(domain, encoding="unicode")


def render_nic(nic: Nic, traits: Traits) -> str:
    """One NIC, to be plugged into or out of a running domain."""
    return ET.tostring(_nic_element(nic, traits), encoding="unicode")


def render_marks(marks: Marks) -> str:
    """The metadata element as ``setMetadata`` wants it: it adds namespace and prefix by itself."""
    element = _marks_element(marks)
    element.tag = "server"
    return ET.tostring(element, encoding="unicode")


def parse(xml: str) -> Read | None:
    """What we wrote; None for a domain that is not ours."""
    domain = ET.fromstring(xml)
    element = domain.find(f"metadata/{_SERVER}")
    if element is None:
        return None
    nics = {}
    for interface in domain.iterfind("devices/interface"):
        target, port_id = interface.find("target"), _port_id(interface)
        if port_id:
            nics[port_id] = "" if target is None else target.get("dev", "")
    return Read(domain.findtext("uuid", ""), _read_marks(element), nics)


def relocate(xml: str, here: Files, there: Files, disk_cache: str, marks: Marks) -> str:
    """A running domain's definition for the host that it goes to: the same to the guest, with that host's files."""
    domain = ET.fromstring(xml)
    there_spares = {serial: path for path, serial in there.spares}
    moved = {here.disk: there.disk, here.console_log: there.console_log}
    moved |= {old[0]: new[0] for old, new in zip(here.bases, there.bases, strict=True)}
    moved |= {path: there_spares.get(serial, path) for path, serial in here.spares}
    if here.config_drive:
        moved[here.config_drive] = there.config_drive
    for element in domain.iter():
        for name in ("file", "path"):
            if element.get(name) in moved:
                element.set(name, moved[element.get(name, "")])
    for driver in domain.iterfind("devices/disk/driver[@cache]"):
        driver.set("cache", disk_cache)
    written = domain.find(f"metadata/{_SERVER}")
    if written is not None:
        written.attrib.clear()
        written.attrib.update(_marks_element(marks).attrib)
    return ET.tostring(domain, encoding="unicode")


def find_nics(xml: str, port_ids: Collection[str]) -> list[str]:
    """The definitions of these ports' NICs, as they stand in a domain's."""
    return [
        ET.tostring(interface, encoding="unicode")
        for interface in ET.fromstring(xml).iterfind("devices/interface")
        if _port_id(interface) in port_ids
    ]


def find_mirror(xml: str) -> tuple[str, bool]:
    """The file that the root disk is being copied to ("" if it is not), and whether the copy has caught up."""
    mirror = ET.fromstring(xml).find("devices/disk[target]/mirror")
    if mirror is None:
        return "", False
    source = mirror.find("source")
    return mirror.get("file", "") if source is None else source.get("file", ""), mirror.get("ready") == "yes"


def _port_id(interface: ET.Element) -> str:
    """Empty for a NIC that is not ours."""
    alias = interface.find("alias")
    name = "" if alias is None else alias.get("name", "")
    return name.removeprefix(_ALIAS) if name.startswith(_ALIAS) else ""


def _read_marks(element: ET.Element) -> Marks:
    def number(name: str) -> int:
        value = element.get(name, "0")
        return int(value) if value.isdecimal() else 0

    return Marks(
        generation=number("generation"),
        last_verb=number("last_verb"),
        verb=number("verb"),
        restart=element.get("restart") == "yes",
        stop_by=number("stop_by"),
    )


def _marks_element(marks: Marks) -> ET.Element:
    element = ET.Element(_SERVER, generation=str(marks.generation), last_verb=str(marks.last_verb))
    if marks.verb:
        element.set("verb", str(marks.verb))
    if marks.restart:
        element.set("restart", "yes")
    if marks.stop_by:
        element.set("stop_by", str(marks.stop_by))
    return element


def _add(parent: ET.Element, tag: str, text: str = "", **attributes: str) -> ET.Element:
    element = ET.SubElement(parent, tag, attributes)
    element.text = text or None
    return element


def _add_identity(domain: ET.Element, server_id: str) -> None:
    """What the guest's firmware tables say; cloud-init knows the cloud by the product's name."""
    system = _add(_add(domain, "sysinfo", type="smbios"), "system")
    entries = {
        "manufacturer": "Cumulet",
        "product": "OpenStack Nova",
        "serial": server_id,
        "uuid": server_id,
        "family": "Virtual Machine",
    }
    for name, value in entries.items():
        _add(system, "entry", name=name, text=value)
    system_type = _add(domain, "os")
    _add(system_type, "type", arch="x86_64", machine=MACHINE, text="hvm")
    _add(system_type, "boot", dev="hd")
    _add(system_type, "smbios", mode="sysinfo")


def _add_cpu(domain: ET.Element, traits: Traits) -> None:
    if traits.virt_type == "kvm":
        _add(domain, "cpu", mode="host-model")
    else:
        cpu = _add(domain, "cpu", mode="custom", match="exact", check="none")
        _add(cpu, "model", fallback="forbid", text="qemu64")
    clock = _add(domain, "clock", offset="utc")
    if traits.virt_type == "kvm":
        _add(clock, "timer", name="pit", tickpolicy="delay")
        _add(clock, "timer", name="rtc", tickpolicy="catchup")
    _add(clock, "timer", name="hpet", present="no")


def _add_controllers(devices: ET.Element) -> None:
    """Slots for the devices below and for later ones.  No USB: it costs a guest a second at boot."""
    _add(devices, "controller", type="pci", index="0", model="pcie-root")
    for index in range(1, PCI_BUSES + 1):
        _add(devices, "controller", type="pci", index=str(index), model="pcie-root-port")
    _add(devices, "controller", type="usb", model="none")


def _add_disks(devices: ET.Element, files: Files, traits: Traits, root_bus: int) -> None:
    disk = _add(devices, "disk", type="file", device="disk")
    # "stop": a full host pauses the guest, nothing is lost; "report" would give it I/O errors
    policy = {"cache": traits.disk_cache, "discard": "unmap", "error_policy": "stop"}
    _add(disk, "driver", name="qemu", type="qcow2", **policy)
    _add(disk, "source", file=files.disk)
    below = disk
    for path, kind in files.bases:  # said here, or libvirt would probe the chain
        below = _add(below, "backingStore", type="file")
        _add(below, "format", type=kind)
        _add(below, "source", file=path)
    _add(below, "backingStore")
    _add(disk, "target", dev="vda", bus="virtio")
    _add(disk, "serial", text="root")
    _add_address(disk, root_bus)
    for letter, (path, serial) in zip("bc", files.spares, strict=False):
        spare = _add(devices, "disk", type="file", device="disk")
        _add(spare, "driver", name="qemu", type="raw", **policy)
        _add(spare, "source", file=path)
        _add(spare, "target", dev=f"vd{letter}", bus="virtio")
        _add(spare, "serial", text=serial)
    if files.config_drive:
        # on virtio-scsi: kernels that are made for clouds have no other driver for a CD-ROM
        _add(devices, "controller", type="scsi", index="0", model="virtio-scsi")
        cdrom = _add(devices, "disk", type="file", device="cdrom")
        _add(cdrom, "driver", name="qemu", type="raw")
        _add(cdrom, "source", file=files.config_drive)
        _add(cdrom, "target", dev="sda", bus="scsi")
        _add(cdrom, "readonly")


def _nic_element(nic: Nic, traits: Traits) -> ET.Element:
    interface = ET.Element("interface", type="ethernet")
    _add(interface, "mac", address=nic.mac)
    _add(interface, "target", dev=nic.tap, managed="no")  # the tap is made and kept by the agent
    _add(interface, "model", type="virtio")
    if traits.userspace_switch:
        driver = _add(interface, "driver", name="qemu")
        _add(driver, "host", **dict.fromkeys(_OFFLOADS, "off"))
    _add(interface, "mtu", size=str(nic.mtu))
    _add(interface, "rom", enabled="no")
    _add(interface, "alias", name=f"{_ALIAS}{nic.port_id}")
    _add_address(interface, nic.bus)
    return interface


def _add_address(device: ET.Element, bus: int) -> None:
    """Of a device that the guest was told where to find; libvirt finds a place for others."""
    if bus:
        _add(device, "address", type="pci", domain="0", bus=str(bus), slot="0", function="0")


def _add_consoles(devices: ET.Element, files: Files) -> None:
    """The serial console with its log, and VNC that listens nowhere: who looks is brought in by ``open_screen``."""
    serial = _add(devices, "serial", type="pty")
    _add(serial, "log", file=files.console_log, append="on")
    _add(serial, "target", port="0")
    _add(_add(devices, "console", type="pty"), "target", type="serial", port="0")
    channel = _add(devices, "channel", type="unix")
    _add(channel, "target", type="virtio", name="org.qemu.guest_agent.0")
    _add(_add(devices, "graphics", type="vnc"), "listen", type="none")
    _add(_add(devices, "video"), "model", type="vga")
    _add(devices, "input", type="keyboard", bus="ps2")
    _add(devices, "input", type="mouse", bus="ps2")


def _add_helpers(devices: ET.Element) -> None:
    """Memory statistics, randomness, and word of a kernel panic."""
    balloon = _add(devices, "memballoon", model="virtio")
    _add(balloon, "stats", period="10")
    rng = _add(devices, "rng", model="virtio")
    _add(rng, "rate", bytes="65536", period="1000")
    _add(rng, "backend", model="random", text="/dev/urandom")
    _add(devices, "panic", model="isa")
