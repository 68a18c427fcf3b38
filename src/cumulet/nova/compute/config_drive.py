"""The config drive: a read-only CD-ROM that gives a guest its metadata without a network.

Guests find it by its label and read ``openstack/latest/meta_data.json``.  Long names come by Rock Ridge (Linux)
and Joliet (Windows); the plain ISO names below them are numbers, for they allow neither case nor length.
"""

import io
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import pycdlib

LABEL = "config-2"


def build(files: Mapping[str, bytes]) -> bytes:
    """The image of these files, by path such as ``openstack/latest/meta_data.json``."""
    image: Any = pycdlib.PyCdlib()
    image.new(interchange_level=3, vol_ident=LABEL, joliet=3, rock_ridge="1.09")
    try:
        folders = {PurePosixPath("/"): "/"}
        for number, (name, content) in enumerate(sorted(files.items())):
            path = PurePosixPath("/") / name
            _add_folder(image, folders, path.parent)
            image.add_fp(
                io.BytesIO(content),
                len(content),
                f"{folders[path.parent].rstrip('/')}/F{number:06}.;1",
                rr_name=path.name,
                joliet_path=str(path),
            )
        out = io.BytesIO()
        image.write_fp(out)
        return out.getvalue()
    finally:
        image.close()


def _add_folder(image: Any, folders: dict[PurePosixPath, str], path: PurePosixPath) -> None:
    if path in folders:
        return
    _add_folder(image, folders, path.parent)
    folders[path] = f"{folders[path.parent].rstrip('/')}/D{len(folders):06}"
    image.add_directory(folders[path], rr_name=path.name, joliet_path=str(path))
