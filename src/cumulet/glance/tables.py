"""glance's data.  Only glance-registry reads and writes it (and ``glance.public``, for nova's transactions).

An image's status is derived (``records.STATUS``), never stored.
"""

from sqlalchemy import JSON, BigInteger, Boolean, Column, ForeignKey, Index, Integer, String, Table, Text

from cumulet.core.tables import Id, Name, Time, metadata

# Written on behalf of the API's callers unless a comment says otherwise.
images = Table(
    "images",
    metadata,
    Column("id", Id, primary_key=True),
    Column("owner", Name),  # a project; only administrators can make an image without one
    Column("name", Name),
    Column("visibility", String(16), nullable=False),
    Column("protected", Boolean, nullable=False, default=False),
    Column("os_hidden", Boolean, nullable=False, default=False),
    Column("disk_format", String(16)),
    Column("container_format", String(16)),
    Column("min_disk", Integer, nullable=False, default=0),
    Column("min_ram", Integer, nullable=False, default=0),
    Column("properties", JSON, nullable=False, default=dict),  # name → text
    Column("deactivated", Boolean, nullable=False, default=False),
    Column("created_at", Time, nullable=False),
    Column("updated_at", Time, nullable=False),
    Column("deleted_at", Time),  # an order to remove the data; the image is gone for everybody
    Column("revision", Integer, nullable=False, default=1),  # counts every change of the columns above
    Column("importing", Id),  # the task that is to make the data; while it is set nothing else may
    # written on behalf of one upload, which owns the data from its claim to its end
    Column("staging", Boolean, nullable=False, default=False),  # its data is to be imported later
    Column("staged_at", Time),  # its data is complete, and waits for its import
    Column("staged_bytes", BigInteger),
    Column("attempt", Id),  # the upload's id; null: nobody uploads
    Column("attempt_node", Name),
    Column("attempt_seen_at", Time),
    Column("stored_at", Time),  # the data is complete; from here on these columns do not change
    Column("size", BigInteger),
    Column("virtual_size", BigInteger),
    Column("checksum", String(32)),
    Column("sha512", String(128)),
    # written on behalf of glance-api's loop
    Column("gone_at", Time),  # no file is left of this deleted image
)
Index("ix_images_owner", images.c.owner, images.c.created_at)
Index("ix_images_visibility", images.c.visibility, images.c.created_at)
Index("ix_images_work", images.c.deleted_at, images.c.gone_at)
Index("ix_images_uploads", images.c.stored_at, images.c.attempt)

image_tags = Table(
    "image_tags",
    metadata,
    Column("image_id", Id, ForeignKey("images.id", ondelete="CASCADE"), primary_key=True),
    Column("tag", Name, primary_key=True),
)

# What users asked to be imported; carried out by glance-api's loop.  Also the history that the API shows.
image_tasks = Table(
    "image_tasks",
    metadata,
    Column("id", Id, primary_key=True),
    Column("image_id", Id, nullable=False, index=True),
    Column("owner", Name, nullable=False),  # the image's, or the caller's project
    Column("user_id", Name, nullable=False),
    Column("request_id", Id, nullable=False),
    Column("method", String(32), nullable=False),  # 'glance-direct', 'web-download'
    Column("uri", Text),
    Column("created_at", Time, nullable=False),
    # written on behalf of the loop
    Column("started_at", Time),
    Column("finished_at", Time),
    Column("failure", Text),  # null: it went well
)
Index("ix_image_tasks_unfinished", image_tasks.c.finished_at, image_tasks.c.created_at)

# The projects that a shared image is offered to.
image_members = Table(
    "image_members",
    metadata,
    Column("image_id", Id, ForeignKey("images.id", ondelete="CASCADE"), primary_key=True),
    Column("member_id", Name, primary_key=True),
    Column("status", String(16), nullable=False),  # written by the member: 'pending', 'accepted', 'rejected'
    Column("created_at", Time, nullable=False),
    Column("updated_at", Time, nullable=False),
)
Index("ix_image_members_member", image_members.c.member_id)

# What properties of images, flavors and the like may mean: the catalogue that dashboards offer.
metadef_namespaces = Table(
    "metadef_namespaces",
    metadata,
    Column("id", Id, primary_key=True),
    Column("namespace", Name, nullable=False),
    Column("display_name", Name),
    Column("description", Text),
    Column("visibility", String(16), nullable=False),  # 'public', 'private'
    Column("protected", Boolean, nullable=False),
    Column("owner", Name),  # a project
    Column("created_at", Time, nullable=False),
    Column("updated_at", Time, nullable=False),
)
Index("uq_metadef_namespaces_namespace", metadef_namespaces.c.namespace, unique=True)

metadef_items = Table(
    "metadef_items",
    metadata,
    Column("namespace_id", Id, ForeignKey("metadef_namespaces.id", ondelete="CASCADE"), primary_key=True),
    Column("kind", String(16), primary_key=True),  # 'object', 'property', 'tag', 'resource_type'
    Column("name", Name, primary_key=True),
    Column("document", JSON, nullable=False),
    Column("created_at", Time, nullable=False),
    Column("updated_at", Time, nullable=False),
)
