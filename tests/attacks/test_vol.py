"""Disks: what is another's, what was another's, and what fills the host (families VOL-1, VOL-3 and IMG-12).

There are no volumes yet; a server's disk is a file on its host.
"""

import hashlib
import os
import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cumulet.nova.compute.image_cache import Base, ImageCache
from cumulet.nova.compute.server_files import ServerFiles
from cumulet.nova.model import ImageSource
from tests.attacks.doors import Doors
from tests.host.hypervisor_rig import make_server

SIZE = 64 * 1024
MIB = 1 << 20


# ── VOL-1: what is another's, by any name that a server may be made of (OSSA-2013-001) ───────────────────────


def test_no_server_is_made_of_what_is_anothers(doors: Doors) -> None:
    doors.add_host()
    theirs, mine = doors.image("bob"), doors.image("alice")
    flavor = doors.flavor()
    disk = {"boot_index": 0, "source_type": "image", "destination_type": "local", "uuid": theirs}
    wishes: list[dict[str, Any]] = [
        {"imageRef": theirs},
        {"block_device_mapping_v2": [disk]},
        {"imageRef": mine, "block_device_mapping_v2": [disk]},
        {"imageRef": mine, "block_device_mapping_v2": [disk | {"source_type": "volume"}]},
        {"imageRef": mine, "block_device_mapping_v2": [disk | {"source_type": "snapshot"}]},
        {"block_device_mapping_v2": [disk | {"source_type": "volume", "destination_type": "volume"}]},
        {"block_device_mapping_v2": [disk | {"uuid": mine}, disk | {"boot_index": 1}]},
        {"imageRef": mine, "block_device_mapping": [{"volume_id": theirs, "device_name": "vda"}]},
    ]
    for wish in wishes:
        server = {"name": "x", "flavorRef": flavor, "networks": "none", **wish}
        status, data, _ = doors.call("alice", "nova-api", "POST", "/v2.1/servers", {"server": server})
        assert status in (400, 404), (wish, data)
    server_id = doors.server("alice", imageRef=mine, flavorRef=flavor)
    doors.run(server_id)
    for url, body in (
        ("os-volume_attachments", {"volumeAttachment": {"volumeId": theirs}}),
        ("action", {"rebuild": {"imageRef": theirs}}),
    ):
        status, data, _ = doors.call("alice", "nova-api", "POST", f"/v2.1/servers/{server_id}/{url}", body)
        assert status in (400, 404, 405), (url, data)


# ── VOL-3: what another guest wrote (OSSA-2013-021) ──────────────────────────────────────────────────────────


@pytest.mark.host
def test_a_new_disk_shows_its_image_and_zeros(tmp_path: Path) -> None:
    """Also where it takes the place of another: before its rebuild, or with the id of a server that is gone."""
    base = tmp_path / "image.raw"
    base.write_bytes(b"i" * MIB)
    files, server = ServerFiles(tmp_path / "servers", "root"), str(uuid.uuid4())
    wish, image = make_server(ImageSource("i", "raw", MIB, MIB, "", ""), root_gb=0), Base(base, "raw", 4 * MIB)
    wish = msgspec.structs.replace(wish, id=server)
    disk = files.directory / server / "disk"

    def content() -> bytes:
        subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", disk, tmp_path / "raw"], check=True)
        return (tmp_path / "raw").read_bytes()

    def spoil() -> None:
        subprocess.run(["qemu-io", "-f", "qcow2", "-c", f"write -P 115 0 {4 * MIB}", disk], check=True)
        assert content() == b"s" * 4 * MIB

    for clear in (files.remove_disk, files.remove, lambda server: None):
        files.ensure_directory(server, {})
        files.make_disk(wish, image)
        assert content() == b"i" * MIB + bytes(3 * MIB)
        spoil()
        assert base.read_bytes() == b"i" * MIB, "what a guest writes is not in what others are made from"
        clear(server)
    files.make_disk(wish, image)
    assert content() == b"i" * MIB + bytes(3 * MIB)


# ── IMG-12: a flood of images through one host (OSSA-2013-037) ───────────────────────────────────────────────


def test_a_flood_of_images_does_not_fill_the_host(tmp_path: Path) -> None:
    """Each user may name as many as glance holds; the host keeps so many bytes, and those that disks stand on."""
    wanted: set[str] = set()
    cache = ImageCache(tmp_path / "images", 10 * SIZE, 100, fetch, lambda: wanted, owner=os.getuid())
    for number in range(100):
        content = number.to_bytes(2, "big") * (SIZE // 2)
        image = ImageSource(f"image-{number}", "raw", SIZE, SIZE, hashlib.sha512(content).hexdigest(), str(number))
        with cache.use(image) as base:
            assert base.path.read_bytes() == content
        if number < 3:
            wanted.add(base.path.name)
        assert size_of(cache.directory) <= 10 * SIZE
    assert wanted <= set(os.listdir(cache.directory))


def fetch(image: ImageSource, write: Callable[[bytes], object]) -> None:
    write(int(image.id.removeprefix("image-")).to_bytes(2, "big") * (SIZE // 2))


def size_of(directory: Path) -> int:
    return sum(entry.stat().st_blocks * 512 for entry in os.scandir(directory))
