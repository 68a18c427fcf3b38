"""The guest image, booted: by bare QEMU under emulation, without any of the cloud.

What a server is promised (its name, its keys, its user data, its disk's size) must
hold for the image alone, else every failure further up has two suspects. Needs
root, QEMU and an ssh client. CUMULET_TEST_IMAGE names an image that is built
already; without it one is built, which takes some ten seconds and apt's lists.
"""

import io
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pycdlib
import pytest

pytestmark = pytest.mark.host

BUILD = Path(__file__).parents[2] / "images" / "build"
USER_DATA = "#!/bin/sh\nid -u > /root/user-data-ran\necho user data says hello\n"
BOOT_SECONDS = 60

# The service side of a metadata request, run by QEMU for each connection.
METADATA_SERVICE = r"""
import os, pathlib, sys
method, path = os.read(0, 65536).decode().split()[:2]
file = pathlib.Path(sys.argv[1] + path)
status, body = ("200 OK", file.read_bytes()) if file.is_file() else ("404 Not Found", b"")
os.write(1, f"HTTP/1.0 {status}\r\nX-Method: {method}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
"""

TOOLS = shlex.split("""arping awk blkid cat curl cut date dd df dmesg echo getent grep head hostname id ip kill
killall lsblk mkdir mkfs mkfs.ext4 mkfs.vfat mount nc nslookup ping ping6 ps sed sha256sum sort
sudo sync tee timeout touch tr udhcpc umount uptime wget""")


T = TypeVar("T")


def until(what: str, seconds: float, look: Callable[[], T]) -> T:
    """Polls until look() gives something true, and returns that."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.2)
    return found


class Guest:
    """One QEMU process and the ways into it: console log, QMP socket, ssh."""

    def __init__(self, image: Path, folder: Path, *qemu_options: str) -> None:
        self.folder = folder
        disk = folder / "disk.qcow2"
        subprocess.run(
            ["qemu-img", "create", "-q", "-f", "qcow2", "-b", image, "-F", "qcow2", disk, "1G"],
            check=True,
        )
        options = [
            *("-accel", "tcg", "-machine", "q35,hpet=off", "-cpu", "qemu64", "-m", "128"),
            *("-nodefaults", "-no-user-config", "-display", "none", "-device", "virtio-rng-pci"),
            *("-drive", f"file={disk},if=virtio,format=qcow2"),
            *("-serial", f"file:{folder}/console.log"),
            *("-qmp", f"unix:{folder}/qmp,server=on,wait=off"),
        ]
        self.process = subprocess.Popen(["qemu-system-x86_64", *options, *qemu_options])

    def console(self) -> str:
        log = self.folder / "console.log"
        return log.read_text(errors="replace") if log.exists() else ""

    def boot(self) -> str:
        """Waits for the console line that says sshd listens, and returns it."""
        lines: list[str] = until("BOOT-DONE", BOOT_SECONDS, lambda: re.findall(r"BOOT-DONE .*\S", self.console()))
        return lines[0]

    def ssh(self, command: str, user: str = "cirros") -> str:
        port = (self.folder / "port").read_text()
        options = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o BatchMode=yes -o LogLevel=ERROR"
        done = subprocess.run(
            ["ssh", *options.split(), "-i", self.folder / "key", "-p", port, f"{user}@127.0.0.1", command],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def qmp(self, command: str) -> None:
        with socket.socket(socket.AF_UNIX) as monitor, monitor.makefile("rw") as lines:
            monitor.connect(str(self.folder / "qmp"))
            lines.readline()  # the greeting
            for name in ("qmp_capabilities", command):
                lines.write(json.dumps({"execute": name}) + "\n")
                lines.flush()
                while "return" not in (answer := lines.readline()):
                    assert "event" in answer

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


def make_metadata(folder: Path, name: str) -> dict[str, bytes]:
    """Files as nova serves them, for a server of that name and a fresh key."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", folder / "key"], check=True)
    metadata = {
        "uuid": "0b0e7c3e-0000-4000-8000-00000000" + name.encode().hex()[:4],
        "meta": {"quoted": 'a "b" {c}, [d]: \\'},
        "hostname": f"{name}.novalocal",
        "public_keys": {"my.key": (folder / "key.pub").read_text()},
    }
    return {
        "openstack/latest/meta_data.json": json.dumps(metadata).encode(),
        "openstack/latest/user_data": USER_DATA.encode(),
    }


def make_config_drive(files: dict[str, bytes], path: Path) -> None:
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=4, vol_ident="config-2", joliet=3, rock_ridge="1.09")
    for folder in ("/openstack", "/openstack/latest"):
        iso.add_directory(folder, rr_name=folder.rsplit("/", 1)[1], joliet_path=folder)
    for name, content in files.items():
        iso.add_fp(io.BytesIO(content), len(content), f"/{name}", rr_name=Path(name).name, joliet_path=f"/{name}")
    iso.write(str(path))
    iso.close()


def user_network(folder: Path, more: str = "") -> list[str]:
    """QEMU options of a NIC with DHCP, and the guest's port 22 on a free local one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "port").write_text(str(port))
    network = f"user,id=net0,hostfwd=tcp:127.0.0.1:{port}-:22{more}"
    return ["-netdev", network, "-device", "virtio-net-pci,netdev=net0,romfile="]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if built := os.environ.get("CUMULET_TEST_IMAGE"):
        return Path(built)
    path = tmp_path_factory.mktemp("image") / "guest.qcow2"
    subprocess.run([BUILD, path], check=True)
    return path


@pytest.fixture(scope="module")
def guest(image: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """A booted guest that has a network and, as a CD-ROM, a config drive."""
    folder = tmp_path_factory.mktemp("guest")
    make_config_drive(make_metadata(folder, "drive"), folder / "config.iso")
    cdrom = ["-drive", f"file={folder}/config.iso,if=none,id=cd,format=raw,readonly=on"]
    cdrom += ["-device", "virtio-scsi-pci", "-device", "scsi-cd,drive=cd"]
    guest = Guest(image, folder, *cdrom, *user_network(folder))
    try:
        guest.boot()
        yield guest
    finally:
        guest.end()


def test_image_is_small(image: Path) -> None:
    assert image.stat().st_size < 40 * 2**20


def test_config_drive_gives_name_keys_and_user_data(guest: Guest) -> None:
    assert "host=drive ip=10.0.2.15" in guest.boot()
    assert guest.ssh("hostname; id -un") == "drive\ncirros"
    assert guest.ssh("getent hosts drive").split() == ["127.0.1.1", "drive"]
    assert guest.ssh("whoami", user="root") == "root"
    until("user data", 20, lambda: "user data: ended with status 0" in guest.console())
    assert "user data says hello" in guest.console()
    assert guest.ssh("sudo cat /root/user-data-ran") == "0"


def test_console_tells_the_boot(guest: Guest) -> None:
    assert len(guest.console().splitlines()) >= 10


@pytest.mark.parametrize("command", ["id -u", "-n id -u", 'sh -c "id -u"', "-u root id -u"])
def test_sudo_is_root_without_password(guest: Guest, command: str) -> None:
    assert guest.ssh(f"sudo {command}") == "0"


def test_root_file_system_fills_its_disk(guest: Guest) -> None:
    assert int(guest.ssh("df -m / | tail -n 1").split()[1]) > 950


def test_tools_are_there(guest: Guest) -> None:
    prologue = "set -eu -o pipefail; PATH=$PATH:/sbin:/usr/sbin;"
    guest.ssh(f"{prologue} for tool in {shlex.join(TOOLS)}; do which $tool; done")
    assert "TYPE" in guest.ssh(f"{prologue} lsblk -lb --nodeps").splitlines()[0]
    assert guest.ssh("sudo blkid -L config-2 -o device") == "/dev/sr0"
    assert guest.ssh("ping -c1 -w5 -s56 10.0.2.2 >/dev/null && ping6 -c1 ::1 >/dev/null && echo fine") == "fine"
    for netcat in ("nc -w 1", "nc -u -w 1"):
        listen = f"({netcat.removesuffix(' -w 1')} -lk -p 8080 -e echo foolish >/dev/null 2>&1 &)"
        ask = f"until echo | {netcat} 127.0.0.1 8080 2>/dev/null | grep foolish; do sleep 0.2; done"
        assert guest.ssh(f"{listen}; {ask}; {ask}; killall nc") == "foolish\nfoolish"


def test_no_network_delays_no_boot(image: Path, tmp_path: Path) -> None:
    nic = ["-netdev", "hubport,id=net0,hubid=0", "-device", "virtio-net-pci,netdev=net0,romfile="]
    guest = Guest(image, tmp_path, *nic)
    try:
        assert "host=cirros ip=none" in guest.boot()
    finally:
        guest.end()


def test_metadata_service(image: Path, tmp_path: Path) -> None:
    files = make_metadata(tmp_path, "http")
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    (tmp_path / "service.py").write_text(METADATA_SERVICE)
    serve = f"cmd:{sys.executable} {tmp_path}/service.py {tmp_path}"
    network = user_network(tmp_path, f",net=169.254.169.0/24,guestfwd=tcp:169.254.169.254:80-{serve}")
    guest = Guest(image, tmp_path, *network)
    try:
        assert "host=http ip=169.254.169.15" in guest.boot()
        url = "http://169.254.169.254/openstack/latest/meta_data.json"
        assert json.loads(guest.ssh(f"curl -s {url}"))["hostname"] == "http.novalocal"
        assert "X-Method: POST" in guest.ssh(f"curl -i -X POST -d key=value {url}")
        until("user data", 20, lambda: "user data: ended with status 0" in guest.console())
    finally:
        guest.end()


def test_power_button_shuts_down(guest: Guest) -> None:
    """The last one: it ends the guest that the others share."""
    guest.qmp("system_powerdown")
    guest.process.wait(timeout=30)
    assert "shutdown: drive" in guest.console()
