"""glance's rules: upstream's names and defaults.  The target is the image's row: ``project_id`` is its owner,
``member_id`` the caller's project where the image is shared with it.
"""

from typing import Any

from cumulet.core.context import Context
from cumulet.core.http import own
from cumulet.glance.model import Record

_MEMBER = "rule:context_is_admin or (role:member and project_id:%(project_id)s)"
_READER = "rule:context_is_admin or (role:reader and project_id:%(project_id)s)"
_SEEN = (
    "(project_id:%(project_id)s or project_id:%(member_id)s or 'community':%(visibility)s or "
    "'public':%(visibility)s or 'shared':%(visibility)s)"
)

_OPEN = "rule:context_is_admin or (role:reader and (project_id:%(project_id)s or 'public':%(visibility)s))"
_DEFINED = ("namespace", "object", "property", "tag")

DEFAULTS: dict[str, str] = {
    "default": "",
    "context_is_admin": "role:admin",
    "add_image": ("rule:context_is_admin or (role:member and project_id:%(project_id)s and project_id:%(owner)s)"),
    "delete_image": _MEMBER,
    "get_image": f"rule:context_is_admin or (role:reader and {_SEEN})",
    "get_images": _READER,
    "modify_image": _MEMBER,
    "publicize_image": "rule:context_is_admin",
    "communitize_image": _MEMBER,
    "download_image": f"rule:context_is_admin or (role:member and {_SEEN})",
    "upload_image": _MEMBER,
    "add_member": _MEMBER,
    "delete_member": _MEMBER,
    "get_member": (
        "rule:context_is_admin or role:reader and (project_id:%(project_id)s or project_id:%(member_id)s)"
    ),
    "get_members": (
        "rule:context_is_admin or role:reader and (project_id:%(project_id)s or project_id:%(member_id)s)"
    ),
    "modify_member": "rule:context_is_admin or (role:member and project_id:%(member_id)s)",
    "tasks_api_access": "rule:context_is_admin",
    "get_task": "rule:default",
    "get_tasks": "rule:default",
    "metadef_default": "",
    "metadef_admin": "rule:context_is_admin",
    "get_metadef_namespace": _OPEN,
    "get_metadef_namespaces": _READER,
    "list_metadef_resource_types": _OPEN,
    "get_metadef_resource_type": _OPEN,
    **{f"get_metadef_{name}": _OPEN for name in ("object", "objects", "property", "properties", "tag", "tags")},
    **{f"{verb}_metadef_{name}": "rule:metadef_admin" for verb in ("add", "modify") for name in _DEFINED},
    "add_metadef_tags": "rule:metadef_admin",
    "add_metadef_resource_type_association": "rule:metadef_admin",
    "remove_metadef_resource_type_association": "rule:metadef_admin",
    "remove_metadef_property": "rule:metadef_admin",
    **{f"delete_metadef_{name}": "rule:metadef_admin" for name in ("namespace", "object", "tag", "tags")},
    "deactivate": _MEMBER,
    "reactivate": _MEMBER,
}


def target(record: Record) -> dict[str, Any]:
    return {
        "project_id": record.owner,
        "owner": record.owner,
        "member_id": record.member,
        "visibility": record.visibility,
        "image_id": record.id,
    }


def own_target(context: Context) -> dict[str, Any]:
    """The target of a route before its image is known: an image of the caller's own, shared with them."""
    return {**own(context), "owner": context.project_id, "member_id": context.project_id}
