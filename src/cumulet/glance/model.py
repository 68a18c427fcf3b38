"""glance's nouns.  Types only.

``Image`` is what other projects see.  ``Record`` is what glance-registry tells glance-api: the image, and what
only glance needs to know of it.
"""

from msgspec import Struct

CONTAINER_FORMATS = ("ami", "ari", "aki", "bare")
"""The containers that are accepted: those whose content can be looked into.  An archive (ova) cannot."""
DISK_FORMATS = ("ami", "ari", "aki", "vhd", "vhdx", "vmdk", "raw", "qcow2", "vdi", "iso")
DIRECT, WEB = "glance-direct", "web-download"
"""The ways to import an image."""
VISIBILITIES = ("community", "public", "private", "shared")
MEMBER_STATUSES = ("pending", "accepted", "rejected")


class Image(Struct, frozen=True, kw_only=True):
    """``size`` and ``virtual_size`` are bytes, known once the image has data."""

    id: str
    name: str | None
    status: str  # 'queued', 'saving', 'uploading', 'importing', 'active', 'deactivated'
    owner: str | None  # a project
    visibility: str
    disk_format: str | None
    container_format: str | None
    size: int | None
    virtual_size: int | None
    checksum: str | None  # MD5
    sha512: str | None
    min_disk: int  # GB
    min_ram: int  # MB
    properties: dict[str, str]
    created_at: str
    updated_at: str


class SnapshotWish(Struct, frozen=True, kw_only=True):
    """An image that a host will send: of a server's disk, in qcow2, for its project alone."""

    name: str
    owner: str
    min_disk: int  # GB
    min_ram: int  # MB
    properties: dict[str, str]


class Record(Image, frozen=True, kw_only=True):
    """``revision`` counts the changes: a change names the revision it was made for, and loses if that is past."""

    protected: bool
    os_hidden: bool
    tags: list[str]
    revision: int
    attempt: str | None  # the upload that made, or is making, the data; with ``id`` the name of its file
    member: str | None = None  # the caller's project, where the image is shared with it
    import_failed: bool = False  # it has no data, and an import that should have brought some failed


class RecordPage(Struct, frozen=True):
    images: list[Record]
    next_marker: str | None = None  # null: this is the last page


class Member(Struct, frozen=True, kw_only=True):
    """A project that an image is shared with."""

    image_id: str
    member_id: str
    status: str
    created_at: str
    updated_at: str


class Claim(Struct, frozen=True):
    """Who uploads what: the attempt's id, the node of the process, the format that it looks for.

    ``disk_format`` is empty where the data is only staged; ``task`` is the import that the upload is part of.
    """

    attempt: str
    node: str
    disk_format: str
    staging: bool = False
    task: str = ""


class Stored(Struct, frozen=True, kw_only=True):
    """The data of a finished upload."""

    size: int
    virtual_size: int
    checksum: str
    sha512: str


class DataState(Struct, frozen=True, kw_only=True):
    """What glance-api's loop must know of one image to tell its files from litter."""

    id: str
    status: str  # an image's, or 'deleted'; an image that the registry does not know is 'deleted', too
    attempt: str | None = None
    node: str | None = None
    silent: bool = False  # saving, and nothing was heard of the upload for long
    gone: bool = False  # deleted, and its data is known to be removed
    receiving: bool = False  # the attempt is under way
    kept: bool = False  # what the attempt brought is the image's data, or staged to become it


class StoredImage(Struct, frozen=True, kw_only=True):
    """An image that has its data, as a controller must know it that has none of it yet."""

    id: str
    attempt: str
    disk_format: str
    sha512: str


class NewImport(Struct, frozen=True, kw_only=True):
    """What a user asks to be imported into an image."""

    task: str
    method: str
    uri: str | None = None


class ImportWork(Struct, frozen=True, kw_only=True):
    """An import that is not finished, and its image as far as the loop must know it."""

    id: str
    image_id: str
    method: str
    uri: str | None
    owner: str
    user_id: str
    request_id: str
    disk_format: str
    attempt: str | None
    node: str | None
    staged: bool


class Task(Struct, frozen=True, kw_only=True):
    """An import, as its owner may see it."""

    id: str
    image_id: str
    owner: str
    user_id: str
    request_id: str
    method: str
    uri: str | None
    status: str  # 'pending', 'processing', 'success', 'failure'
    message: str
    created_at: str
    updated_at: str
    expires_at: str | None


class Staged(Struct, frozen=True):
    """The data of a finished upload that waits for its import."""

    size: int


class Sent(Struct, frozen=True):
    """A download that was finished."""

    size: int
    address: str


class Usage(Struct, frozen=True):
    """What a project has here: bytes and images."""

    stored_bytes: int
    images: int
    uploading: int
    staged_bytes: int
