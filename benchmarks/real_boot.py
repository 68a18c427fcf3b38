"""A real server: what the cloud adds to the time that QEMU and the guest take by themselves."""

import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator
from pathlib import Path

import libvirt

from benchmarks.figures import Figure, figure
from benchmarks.session import Session, wait_until
from cumulet.core.config import Config
from cumulet.host import kvm, libvirtd
from cumulet.nova.compute import config_drive

RUNS = 3
SSH_PORT = 2222
BOOT_SECONDS = 240.0


def measure(names: Collection[str], config: Config, session: Session) -> Iterator[Figure]:
    """Nothing runs yet.  The first server fetches the image into the host's cache and is not counted."""
    image = config.state / "guest" / "cirros.qcow2"
    _delete(session, boot(session, "first")[0])
    if "boot_real_overhead_s" in names:
        boots, bare = [], []
        for number in range(RUNS):
            server_id, seconds = boot(session, f"boot-{number}")
            boots.append(seconds)
            bare.append(domain_start(config, server_id))
            _delete(session, server_id)
        yield figure("boot_real_s", boots)
        yield figure("domain_start_s", bare)
        overhead = [mine - theirs for mine, theirs in zip(boots, bare, strict=True)]
        yield figure("boot_real_overhead_s", overhead)
    if "launch_to_ssh_s" in names:
        launched, raw = [], []
        for number in range(RUNS):
            raw.append(raw_boot(image))
            launched.append(launch(f"launch-{number}"))
            for server in session.ask("compute", "GET", "/servers")["servers"]:
                _delete(session, server["id"])
        floor = figure("raw_boot_s", raw)
        yield floor
        yield figure("launch_to_ssh_s", launched, f"≤ {floor.value + 2:.2f} (raw_boot_s + 2)")


def boot(session: Session, name: str) -> tuple[str, float]:
    """A server on the private network: its id, and seconds from the request to ACTIVE."""

    def named(service: str, path: str, what: str) -> str:
        found = session.ask(service, "GET", path)[path.rsplit("/", 1)[-1]]
        return str(next(one["id"] for one in found if one["name"] == what))

    wish = {
        "name": name,
        "imageRef": named("image", "/v2/images", "cirros"),
        "flavorRef": named("compute", "/flavors", "m1.tiny"),
        "networks": [{"uuid": named("network", "/v2.0/networks", "private")}],
    }
    started = time.perf_counter()
    server_id = str(session.ask("compute", "POST", "/servers", {"server": wish})["server"]["id"])
    wait_until(lambda: _active(session, server_id), BOOT_SECONDS, 0.02, "active server")
    return server_id, time.perf_counter() - started


def _active(session: Session, server_id: str) -> bool:
    server = session.ask("compute", "GET", f"/servers/{server_id}")["server"]
    assert server["status"] != "ERROR", server.get("fault")
    return bool(server["status"] == "ACTIVE")


def _delete(session: Session, server_id: str) -> None:
    session.ask("compute", "DELETE", f"/servers/{server_id}")
    path = f"/servers?uuid={server_id}"
    wait_until(lambda: not session.ask("compute", "GET", path)["servers"], 60.0, 0.1, "end of a server")


def domain_start(config: Config, server_id: str) -> float:
    """Seconds that libvirt and QEMU take to start the server's domain once more, with nobody else's work."""
    connection = libvirt.open(libvirtd.uri(config.run))
    try:
        domain = connection.lookupByUUIDString(server_id)
        domain.destroy()
        time.sleep(2.0)  # nova-compute looks and reports
        started = time.perf_counter()
        domain.create()
        return time.perf_counter() - started
    finally:
        connection.close()


def launch(name: str) -> float:
    """Seconds of ``cumulet launch``: until ssh greets on the floating IP."""
    started = time.perf_counter()
    words = [sys.executable, "-m", "cumulet.cli.main", "launch", name]
    subprocess.run(words, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def raw_boot(image: Path) -> float:
    """Seconds until ssh greets in the same image on bare QEMU: no cloud, user-mode network, a config drive."""
    with tempfile.TemporaryDirectory(dir=image.parent) as place:
        disk, drive = Path(place) / "disk.qcow2", Path(place) / "config.iso"
        metadata = b'{"uuid": "00000000-0000-4000-8000-000000000000", "hostname": "raw", "public_keys": {}}'
        drive.write_bytes(config_drive.build({"openstack/latest/meta_data.json": metadata}))
        backing = ["-b", str(image), "-F", "qcow2"]
        started = time.perf_counter()
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *backing, str(disk), "1G"], check=True)
        options = [
            *("-accel", "kvm" if kvm.usable() else "tcg", "-machine", "q35,hpet=off", "-m", "192"),
            *("-nodefaults", "-no-user-config", "-display", "none", "-device", "virtio-rng-pci"),
            *("-drive", f"file={disk},if=virtio,format=qcow2"),
            *("-drive", f"file={drive},if=virtio,format=raw,readonly=on"),
            *(
                "-netdev",
                f"user,id=net,hostfwd=tcp:127.0.0.1:{SSH_PORT}-:22",
                "-device",
                "virtio-net-pci,netdev=net",
            ),
        ]
        guest = subprocess.Popen(["qemu-system-x86_64", *options])
        try:
            wait_until(_greets, BOOT_SECONDS, 0.05, "greeting by ssh")
            return time.perf_counter() - started
        finally:
            guest.kill()
            guest.wait()


def _greets() -> bool:
    try:
        with socket.create_connection(("127.0.0.1", SSH_PORT), timeout=1.0) as connection:
            return connection.recv(64).startswith(b"SSH-")
    except OSError:
        return False
