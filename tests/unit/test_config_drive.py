"""The config drive, read back by the library that did not write it: names and contents as Linux sees them."""

import io

import pycdlib

from cumulet.nova.compute.config_drive import LABEL, build

FILES = {
    "openstack/latest/meta_data.json": b'{"uuid": "u"}',
    "openstack/latest/user_data": b"#!/bin/sh\n" * 1000,
    "openstack/2012-08-10/meta_data.json": b"{}",
    "openstack/latest/empty": b"",
    "top.txt": b"x",
}


def test_files_are_where_guests_look() -> None:
    drive = build(FILES)
    assert LABEL.encode() in drive[32768 : 32768 + 2048]
    image = pycdlib.PyCdlib()
    image.open_fp(io.BytesIO(drive))
    for kind in ("rr_path", "joliet_path"):
        found = {}
        for folder, _, names in image.walk(**{kind: "/"}):
            for name in names:
                path = f"{folder.rstrip('/')}/{name}"
                content = io.BytesIO()
                image.get_file_from_iso_fp(content, **{kind: path})
                found[path.removeprefix("/")] = content.getvalue()
        assert found == FILES
    image.close()


def test_no_files_are_an_empty_drive() -> None:
    assert LABEL.encode() in build({})
