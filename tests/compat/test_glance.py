"""Images as their owner types them: data in, data out, sharing, and what an administrator looks at."""

import re
from pathlib import Path

import pytest

from tests.compat.story import Client, Fails, Keep, Step, Until, Without

pytestmark = pytest.mark.compat

DATA = bytes(range(256)) * 4096
RAW = "--disk-format raw --container-format bare"

IMAGES: list[Step] = [
    (
        f"image create {RAW} --file {{tmp}}/data --property a=b --tag t1 --min-disk 1 --min-ram 64 img",
        {"id": Keep("img"), "status": "active", "size": len(DATA), "min_disk": 1, "min_ram": 64, "tags": ["t1"]},
    ),
    ("image list", ["ID", "Name", "Status"]),
    (
        "image list --long",
        {"ID": "{img}", "Disk Format": "raw", "Visibility": "shared", "Project": ..., "Checksum": ...},
    ),
    ("image list --name img --sort name:asc --limit 1", {"ID": "{img}"}),
    ("image list --tag t1 --status active", {"Name": "img"}),
    ("image list --property a=b", {"Name": "img"}),
    ("image list --public", Without(Name="img")),
    ("image show img", {"id": "{img}", "owner": ..., "checksum": ..., "disk_format": "raw", "protected": False}),
    ("image set --property os=linux --tag t2 img", ""),
    ("image show img", {"properties": re.compile("'os': 'linux'"), "tags": ["t1", "t2"]}),
    ("image unset --property os --tag t1 img", ""),
    ("image show img", {"tags": ["t2"]}),
    ("image save --file {tmp}/copy img", ""),
    ("image set --name img2 --protected --min-disk 2 --os-distro debian --architecture x86_64 img", ""),
    ("image show img2", {"id": "{img}", "min_disk": 2, "protected": True, "properties": re.compile("debian")}),
    ("image delete img2", Fails("rotected")),
    ("image set --unprotected --public img2", ""),
    ("image list --public", {"Name": "img2"}),
    ("image set --deactivate img2", ""),
    ("image show img2", {"status": "deactivated"}),
    ("image set --activate img2", ""),
    ("image show img2", {"status": "active"}),
    ("image delete img2", ""),
    ("image show img2", Fails("No Image found for img2")),
]

SHARING: list[Step] = [
    ("project create guests", {"id": Keep("guests")}),
    (f"image create {RAW} --file {{tmp}}/data --private shared", {"id": Keep("shared"), "visibility": "private"}),
    ("image set --shared shared", ""),
    ("image add project shared guests", {"image_id": "{shared}", "member_id": "{guests}", "status": "pending"}),
    ("image member list shared", {"Image ID": "{shared}", "Member ID": "{guests}", "Status": "pending"}),
    ("image remove project shared guests", ""),
    ("image member list shared", ""),
    ("image delete shared", ""),
    ("project delete guests", ""),
]

IMPORTS: list[Step] = [
    ("image import info", {"import-methods": re.compile("glance-direct")}),
    ("image stores list", {"ID": "file", "Default": True}),
    (f"image create --import {RAW} --file {{tmp}}/data imported", {"id": Keep("imported")}),
    ("image show imported", Until({"status": "active", "size": len(DATA)})),
    ("image stage --file {tmp}/data imported", Fails("queued")),
    ("image task list", {"Type": "api_image_import", "Status": "success", "ID": Keep("task")}),
    ("image task show {task}", {"type": "api_image_import", "status": "success", "owner_id": ...}),
    ("image import --method web-download --uri http://127.0.0.1:1/x imported", Fails("queued")),
    ("image delete imported", ""),
]

OPERATOR: list[Step] = [
    ("image show cirros", {"visibility": "public", "disk_format": "qcow2", "virtual_size": ...}),
    ("image metadef namespace list", ""),
    ("image metadef resource type list", {"Name": "OS::Nova::Server"}),
]

AFTER = {
    "images": ["image set --unprotected img2", "image delete img2", "image delete img"],
    "sharing": ["image delete shared", "project delete guests"],
    "imports": ["image delete imported"],
}
STORIES = {"images": IMAGES, "sharing": SHARING, "imports": IMPORTS, "operator": OPERATOR}


@pytest.mark.parametrize("story", STORIES)
def test_stories(client: Client, tmp_path: Path, story: str) -> None:
    (tmp_path / "data").write_bytes(DATA)
    client.tell(STORIES[story], AFTER.get(story, ()))
    if story == "images":
        assert (tmp_path / "copy").read_bytes() == DATA
