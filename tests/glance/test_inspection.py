"""What is let through, and what is refused, format by format.  The crafted ones are in tests/attacks."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cumulet.glance.inspection import Inspected, Inspection, UnsafeImage, check

SIZE = 10 << 20


def make(directory: Path, qemu_format: str, *options: str) -> Path:
    path = directory / f"disk.{qemu_format}"
    command = ["qemu-img", "create", "-q", "-f", qemu_format, *options, str(path), str(SIZE)]
    subprocess.run(command, check=True, cwd=directory)
    return path


@pytest.mark.parametrize(
    ("declared", "qemu_format", "options"),
    [
        ("raw", "raw", ()),
        ("qcow2", "qcow2", ()),
        ("qcow2", "qcow2", ("-o", "compat=0.10")),
        ("qcow2", "qcow2", ("-o", "cluster_size=2M")),
        ("qcow2", "qcow2", ("-o", "compression_type=zstd")),
        ("vmdk", "vmdk", ()),
        ("vmdk", "vmdk", ("-o", "subformat=streamOptimized")),
        ("vdi", "vdi", ()),
        ("vdi", "vdi", ("-o", "static=on")),
        ("vhd", "vpc", ("-o", "force_size=on")),
        ("vhd", "vpc", ("-o", "subformat=fixed,force_size=on")),
        ("vhdx", "vhdx", ()),
    ],
)
def test_sound_images_are_let_through(
    tmp_path: Path, declared: str, qemu_format: str, options: tuple[str, ...]
) -> None:
    path = make(tmp_path, qemu_format, *options)
    assert check(path, declared) == Inspected(declared, path.stat().st_size, SIZE)


@pytest.mark.parametrize("qemu_format", ["qcow2", "vmdk", "vdi", "vhdx", "qed", "vpc", "qcow", "parallels"])
def test_nothing_with_a_format_is_raw(tmp_path: Path, qemu_format: str) -> None:
    path = make(tmp_path, qemu_format)
    for declared in ("raw", "ami", "aki", "ari", "iso"):
        with pytest.raises(UnsafeImage, match="does not match"):
            check(path, declared)


@pytest.mark.parametrize("declared", ["qcow2", "vmdk", "vdi", "vhd", "vhdx", "iso"])
@pytest.mark.parametrize("content", [b"", b"x", b"text" * 1000, bytes(SIZE)])
def test_raw_is_nothing_else(declared: str, content: bytes) -> None:
    inspection = Inspection(declared)
    inspection.feed(content)
    with pytest.raises(UnsafeImage, match="does not match"):
        inspection.finish()


def test_an_unknown_format_is_not_accepted() -> None:
    with pytest.raises(UnsafeImage, match="cannot be checked"):
        Inspection("ova")


def mbr() -> bytes:
    entry = bytes([0x80, 0, 2, 0, 0x83, 0, 3, 0]) + (2048).to_bytes(4, "little") + (4096).to_bytes(4, "little")
    return bytes(446) + entry + bytes(48) + b"\x55\xaa"


def iso() -> bytes:
    return bytes(32768) + b"\x01CD001\x01" + bytes(2041) + bytes(4096)


def verdict(declared: str, content: bytes) -> Inspected:
    inspection = Inspection(declared)
    inspection.feed(content)
    return inspection.finish()


def test_a_raw_disk_may_have_partitions_and_a_bootable_iso_too() -> None:
    assert verdict("raw", mbr() + bytes(SIZE)).virtual_size == SIZE + 512
    assert verdict("iso", iso()).format == "iso"
    assert verdict("iso", mbr() + iso()[512:]).format == "iso"
    with pytest.raises(UnsafeImage):
        verdict("raw", iso())


def test_text_in_any_encoding_is_raw() -> None:
    for content in (b"ssh-rsa AAAA\n" * 100, ("ä" * 4000).encode(), b"a" * 600 + "ü".encode("latin-1") * 600):
        assert verdict("raw", content).size == len(content)


MAGICS = (
    b"", b"QFI\xfb\0\0\0\3", b"KDMV\1\0\0\0", b"conectix", b"vhdxfile", b"LUKS\xba\xbe\0\1", b"# Disk"
)  # fmt: skip


@given(st.binary(max_size=2048), st.sampled_from(["raw", "qcow2", "vmdk", "vdi", "vhd", "vhdx", "iso"]))
@settings(max_examples=300)
def test_no_content_breaks_the_inspection(noise: bytes, declared: str) -> None:
    """Headers with noise behind them: a verdict or UnsafeImage, never anything else."""
    for magic in (
        b"",
        b"QFI\xfb\0\0\0\3",
        b"KDMV\1\0\0\0",
        b"conectix",
        b"vhdxfile",
        b"LUKS\xba\xbe\0\1",
        b"# Disk",
    ):
        inspection = Inspection(declared)
        try:
            inspection.feed(magic + noise)
            inspection.feed(bytes(300_000) + noise)
            inspection.finish()
        except UnsafeImage:
            pass


@given(st.data())
@settings(max_examples=150)
def test_no_damage_breaks_the_inspection(data: st.DataObject) -> None:
    """Sound images with some bytes changed."""
    declared = data.draw(st.sampled_from(sorted(SOUND)))
    content = bytearray(SOUND[declared])
    spots = data.draw(st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), max_size=8))
    early = data.draw(st.lists(st.tuples(st.integers(0, 600), st.integers(0, 255)), max_size=8))
    for at, value in spots + early:
        content[at % len(content)] = value
    try:
        found = verdict(declared, bytes(content))
    except UnsafeImage:
        return
    assert 0 < found.virtual_size < 1 << 63


def _sound() -> dict[str, bytes]:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        kinds = {"qcow2": "qcow2", "vmdk": "vmdk", "vdi": "vdi", "vhd": "vpc", "vhdx": "vhdx"}
        return {declared: make(Path(name), kind).read_bytes()[: 4 << 20] for declared, kind in kinds.items()}


SOUND = _sound()


def test_pieces_of_any_size_give_the_same_verdict(tmp_path: Path) -> None:
    content = make(tmp_path, "vhdx").read_bytes()
    for size in (512, 65536, 100_000, len(content)):
        inspection = Inspection("vhdx")
        for at in range(0, len(content), size):
            inspection.feed(content[at : at + size])
        assert inspection.finish().virtual_size == SIZE
