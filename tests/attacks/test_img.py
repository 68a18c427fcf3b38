"""IMG-1 to IMG-6: images made to read, fill or exhaust the host.

Each is uploaded as a user would.  It must be refused with a reason, leave the image queued, and leave no file.
Images are made by qemu-img where it makes them, else their headers are changed by hand.
"""

import resource
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cumulet.glance.inspection import UnsafeImage, check
from tests.glance.rig import Glance, glance_in

CANARY = "/etc/hostname"
Change = Callable[[bytearray], None]


@pytest.fixture
def glance(tmp_path: Path) -> Glance:
    return glance_in(tmp_path)


def qemu_img(directory: Path, *arguments: str) -> None:
    subprocess.run(["qemu-img", *arguments], check=True, cwd=directory, capture_output=True)


def disk(directory: Path, kind: str, *options: str, size: str = "10M") -> bytes:
    qemu_img(directory, "create", "-q", "-f", kind, *options, "disk", size)
    return (directory / "disk").read_bytes()


def refused(glance: Glance, declared: str, content: bytes, reason: str) -> None:
    """Refused at upload; and again on the host, by the same eyes."""
    image = glance.create(disk_format=declared)
    answer = glance.upload("alice", image["id"], content)
    assert answer.status == 415, answer
    assert reason in answer.body.decode()
    assert glance.show(image["id"])["status"] == "queued"
    assert glance.show(image["id"])["size"] is None
    assert glance.files() == []
    path = glance.directory.parent / "on-the-host"
    path.write_bytes(content)
    with pytest.raises(UnsafeImage):
        check(path, declared)


def changed(content: bytes, *changes: tuple[int, str, int]) -> bytes:
    """``content`` with some fields of its header set: (offset, struct format, value)."""
    new = bytearray(content)
    for at, form, value in changes:
        struct.pack_into(form, new, at, value)
    return bytes(new)


# IMG-1: a backing file


@pytest.mark.parametrize(
    "backing", [CANARY, 'json:{"driver":"file","filename":"/etc/shadow"}', "nbd://127.0.0.1/x", "fat:/etc"]
)
def test_qcow2_backing_file(glance: Glance, tmp_path: Path, backing: str) -> None:
    content = disk(tmp_path, "qcow2", "-u", "-b", backing, "-F", "raw")
    refused(glance, "qcow2", content, "backing file")
    refused(glance, "raw", content, "does not match stream data qcow2")


def test_qcow2_backing_name_without_its_offset(glance: Glance, tmp_path: Path) -> None:
    refused(glance, "qcow2", changed(disk(tmp_path, "qcow2"), (16, ">I", 9)), "backing file")


def test_qcow1_and_qed(glance: Glance, tmp_path: Path) -> None:
    refused(glance, "qcow2", disk(tmp_path, "qcow", "-u", "-b", CANARY, "-F", "raw"), "qcow2")
    refused(glance, "qcow2", disk(tmp_path, "qcow"), "qcow2")
    refused(glance, "raw", disk(tmp_path, "qed"), "qed")


# IMG-2: a data file; content that is not what it says


def test_qcow2_data_file(glance: Glance, tmp_path: Path) -> None:
    refused(glance, "qcow2", disk(tmp_path, "qcow2", "-o", "data_file=x.raw"), "data_file")
    raw = disk(tmp_path, "qcow2", "-o", "data_file=y.raw,data_file_raw=on")
    refused(glance, "qcow2", raw, "data_file")
    # the name of a data file, with the feature bit cleared
    refused(glance, "qcow2", changed(raw, (72, ">Q", 0)), "names a file")


@pytest.mark.parametrize("bit", [4, 5, 8, 33, 63])
def test_qcow2_unknown_features(glance: Glance, tmp_path: Path, bit: int) -> None:
    refused(glance, "qcow2", changed(disk(tmp_path, "qcow2"), (72, ">Q", 1 << bit)), "Unknown QCOW2 features")


@pytest.mark.parametrize("method", [1, 2])  # AES, LUKS
def test_qcow2_encrypted(glance: Glance, tmp_path: Path, method: int) -> None:
    refused(glance, "qcow2", changed(disk(tmp_path, "qcow2"), (32, ">I", method)), "encryption")


@pytest.mark.parametrize("kind", ["qcow2", "vmdk", "vdi", "vhdx", "vpc", "qed", "parallels"])
def test_declared_raw(glance: Glance, tmp_path: Path, kind: str) -> None:
    refused(glance, "raw", disk(tmp_path, kind), "does not match stream data")


def test_declared_raw_and_only_the_start_of_something_else(glance: Glance) -> None:
    """Too short for its own header, but enough for a probe."""
    for magic in (b"QFI\xfb\0\0\0\2", b"KDMV", b"COWD", b"vhdxfile", b"conectix", b"LUKS\xba\xbe", b"QED\0"):
        refused(glance, "raw", magic, "does not match stream data")


def test_polyglots(glance: Glance, tmp_path: Path) -> None:
    iso = bytearray(disk(tmp_path, "qcow2"))
    iso[32768:32775] = b"\x01CD001\x01"
    refused(glance, "qcow2", bytes(iso), "iso")
    refused(glance, "iso", bytes(iso), "qcow2")
    refused(glance, "raw", bytes(iso), "iso")
    partitioned = bytearray(disk(tmp_path, "qcow2"))
    partitioned[510:512] = b"\x55\xaa"
    refused(glance, "qcow2", bytes(partitioned), "gpt")
    refused(glance, "raw", bytes(partitioned), "qcow2")
    refused(glance, "raw", bytes(32768) + b"\x01CD001\x01" + bytes(9000), "iso")
    virtual = bytearray(disk(tmp_path, "vmdk"))
    virtual[32768:32775] = b"\x01CD001\x01"
    refused(glance, "vmdk", bytes(virtual), "iso")


def test_a_trailer_makes_a_format_too(glance: Glance, tmp_path: Path) -> None:
    fixed = disk(tmp_path, "vpc", "-o", "subformat=fixed")
    refused(glance, "raw", fixed, "vhd")
    refused(glance, "vhd", changed(fixed, (len(fixed) - 512 + 48, ">Q", 1 << 40)), "does not match")
    refused(glance, "raw", bytes(4096) + b"koly" + bytes(508), "dmg")


# IMG-3: VMDK, VHDX, VDI, VHD that name other files


@pytest.mark.parametrize("subformat", ["monolithicFlat", "twoGbMaxExtentFlat", "twoGbMaxExtentSparse"])
def test_vmdk_descriptors(glance: Glance, tmp_path: Path, subformat: str) -> None:
    content = disk(tmp_path, "vmdk", "-o", f"subformat={subformat}")
    refused(glance, "vmdk", content, "not safe")
    refused(glance, "raw", content, "vmdk")


def vmdk_with(content: bytes, old: str, new: str) -> bytes:
    """A sparse VMDK whose embedded descriptor says something else."""
    text = content[512 : 512 + 10240].rstrip(b"\0")
    assert old.encode() in text
    new_text = text.replace(old.encode(), new.encode())
    return content[:512] + new_text.ljust(10240, b"\0") + content[512 + 10240 :]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('SPARSE "disk"', f'FLAT "{CANARY}" 0'),
        ('SPARSE "disk"', 'FLAT "passwd" 0'),
        ('SPARSE "disk"', 'SPARSE "disk"\nRW 20480 SPARSE "other"'),
        ('SPARSE "disk"', 'SPARSE "disk"\nrdonly 8 FLAT "other" 0'),
        ('SPARSE "disk"', f'SPARSE "{CANARY}"'),
        ('SPARSE "disk"', "ZERO"),
        ("parentCID=ffffffff", "parentCID=12345678"),
        ("parentCID=ffffffff", f'parentCID=ffffffff\nparentFileNameHint="{CANARY}"'),
        ('createType="monolithicSparse"', 'createType="monolithicFlat"'),
        ('createType="monolithicSparse"', 'createType="vmfs"'),
        ('createType="monolithicSparse"', 'createType="custom"'),
        ('createType="monolithicSparse"', ""),
        ("# Extent description", "something else"),
    ],
)
def test_vmdk_embedded_descriptors(glance: Glance, tmp_path: Path, old: str, new: str) -> None:
    content = disk(tmp_path, "vmdk")
    refused(glance, "vmdk", vmdk_with(content, old, new), "not safe")


def test_vmdk_headers(glance: Glance, tmp_path: Path) -> None:
    content = disk(tmp_path, "vmdk")
    refused(glance, "vmdk", changed(content, (12, "<Q", 0)), "no capacity")
    refused(glance, "vmdk", changed(content, (28, "<Q", 99)), "vmdk")
    refused(glance, "vmdk", changed(content, (36, "<Q", 1 << 60)), "vmdk")
    refused(glance, "vmdk", changed(content, (4, "<I", 9)), "vmdk")


def test_differencing_disks(glance: Glance, tmp_path: Path) -> None:
    vdi = disk(tmp_path, "vdi")
    refused(glance, "vdi", changed(vdi, (0x4C, "<I", 4)), "kind 4")
    vhd = disk(tmp_path, "vpc")
    refused(glance, "vhd", changed(vhd, (60, ">I", 4)), "kind 4")
    vhdx = bytearray(disk(tmp_path, "vhdx"))
    metadata_at = vhdx.index(b"metadata")
    # one more metadata entry: the parent locator
    count = struct.unpack_from("<H", vhdx, metadata_at + 10)[0]
    locator = bytes.fromhex("2d5fd3a80bb34d45abf7d3d84834ab0c")
    vhdx[metadata_at + 32 + count * 32 : metadata_at + 48 + count * 32] = locator
    struct.pack_into("<H", vhdx, metadata_at + 10, count + 1)
    refused(glance, "vhdx", bytes(vhdx), "parent")


# IMG-4: size bombs


def test_virtual_size_bombs(glance: Glance, tmp_path: Path) -> None:
    """A disk that the tables cannot hold, or that no database can count, is refused; a large one is recorded."""
    qcow2 = disk(tmp_path, "qcow2")
    refused(glance, "qcow2", changed(qcow2, (24, ">Q", 1 << 63)), "size")
    refused(glance, "qcow2", changed(qcow2, (24, ">Q", 0)), "size")
    refused(glance, "vdi", changed(disk(tmp_path, "vdi"), (0x170, "<Q", (1 << 64) - 1)), "size")
    large = glance.active(disk_format="qcow2", data=disk(tmp_path, "qcow2", size="900G"))
    assert large["virtual_size"] == 900 << 30
    assert large["size"] < 1 << 20


def test_an_upload_without_end(glance: Glance) -> None:
    """A body of unknown length is cut off at the bound, not when the disk is full."""
    glance.config.images.largest_bytes = 5 << 20
    image = glance.create()
    sent = 0

    def endless() -> Any:
        nonlocal sent
        while True:
            sent += 65536
            yield bytes(65536)

    assert glance.upload("alice", image["id"], endless()).status == 413
    assert sent < 8 << 20
    assert glance.show(image["id"])["status"] == "queued"
    assert glance.files() == []


# IMG-5: exhausting the parser


@pytest.mark.parametrize(
    "change",
    [
        (36, ">I", 0xFFFFFFFF),  # L1 entries
        (36, ">I", 5 << 20),
        (56, ">I", 0xFFFFFFFF),  # clusters of the refcount table
        (56, ">I", 4096),
        (60, ">I", 0xFFFFFFFF),  # snapshots
        (60, ">I", 65536),
        (20, ">I", 63),  # bits of a cluster
        (20, ">I", 0xFFFFFFFF),
        (20, ">I", 0),
        (40, ">Q", 1 << 62),  # where the L1 table is
        (48, ">Q", 1 << 62),  # where the refcount table is
        (4, ">I", 0xFFFFFFFF),  # version
        (100, ">I", 0xFFFFFFFF),  # length of the header
    ],
)
def test_huge_tables(glance: Glance, tmp_path: Path, change: tuple[int, str, int]) -> None:
    content = disk(tmp_path, "qcow2")
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    if change[0] == 100:  # nothing is read beyond what is there
        image = glance.create(disk_format="qcow2")
        assert glance.upload("alice", image["id"], changed(content, change)).status in (204, 415)
    else:
        refused(glance, "qcow2", changed(content, change), "not safe")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10
    assert time.process_time() - started < 5


def test_endless_descriptors(glance: Glance) -> None:
    """A million extents in a text: only the first MiB is looked at, and it is refused."""
    text = b'# Disk DescriptorFile\nversion=1\ncreateType="monolithicSparse"\n' + b'RW 1 SPARSE "x"\n' * 400_000
    started = time.process_time()
    refused(glance, "vmdk", text, "not safe")
    refused(glance, "raw", text, "vmdk")
    assert time.process_time() - started < 10


def test_a_vhdx_that_points_anywhere(glance: Glance, tmp_path: Path) -> None:
    content = disk(tmp_path, "vhdx")
    metadata_at = content.index(b"metadata")
    refused(glance, "vhdx", changed(content, (0x30008, "<I", 0xFFFFFFFF)), "vhdx")
    refused(glance, "vhdx", changed(content, (metadata_at + 10, "<H", 0xFFFF)), "vhdx")
    for entry in range(5):  # each entry's item far away, and of absurd length
        far = (metadata_at + 32 + entry * 32 + 16, "<I", 0xFFFFFFF0)
        long = (metadata_at + 32 + entry * 32 + 20, "<I", 0xFFFFFFFF)
        image = glance.create(disk_format="vhdx")
        assert glance.upload("alice", image["id"], changed(content, far)).status in (204, 415)
        image = glance.create(disk_format="vhdx")
        assert glance.upload("alice", image["id"], changed(content, long)).status in (204, 415)


# IMG-6: the format of stored data comes from the database


def test_the_declared_format_is_fixed_with_the_data(glance: Glance) -> None:
    image = glance.active(disk_format="raw", data=b"raw data")
    for field, value in (("disk_format", "qcow2"), ("container_format", "ami")):
        step = {"op": "replace", "path": f"/{field}", "value": value}
        assert glance.patch("alice", image["id"], step)[0] == 403
        assert glance.patch("admin", image["id"], step)[0] == 403
    assert glance.show(image["id"]) == image
