"""The tags of one project, as URLs."""

from cumulet.core.http import Json, Reply, Request, Route
from cumulet.keystone import documents, tags
from cumulet.keystone.projects import get_project


def list_project_tags(request: Request) -> Json:
    with request.db.read() as tx:
        row = get_project(tx, request, "identity:list_project_tags")
        return _view(request, tags.list_tags(tx, [row.id])[row.id])


def update_project_tags(request: Request) -> Json:
    with request.db.transaction() as tx:
        row = get_project(tx, request, "identity:update_project_tags")
        tags.set_tags(tx, row.id, request.body.tags)
        documents.notify(tx, request, "project.updated", row.id)
        return _view(request, tags.list_tags(tx, [row.id])[row.id])


def delete_project_tags(request: Request) -> None:
    with request.db.transaction() as tx:
        row = get_project(tx, request, "identity:delete_project_tags")
        tags.set_tags(tx, row.id, [])
        documents.notify(tx, request, "project.updated", row.id)


def show_project_tag(request: Request) -> None:
    with request.db.read() as tx:
        row = get_project(tx, request, "identity:get_project_tag")
        tags.check_tag(tx, row.id, request.params["tag"])


def create_project_tag(request: Request) -> Reply:
    with request.db.transaction() as tx:
        row = get_project(tx, request, "identity:create_project_tag")
        tags.add_tag(tx, row.id, request.params["tag"])
        documents.notify(tx, request, "project.updated", row.id)
    return Reply(None, 201, {"Location": f"{request.app.endpoint}{request.path}"})


def delete_project_tag(request: Request) -> None:
    with request.db.transaction() as tx:
        row = get_project(tx, request, "identity:delete_project_tag")
        tags.delete_tag(tx, row.id, request.params["tag"])
        documents.notify(tx, request, "project.updated", row.id)


def _view(request: Request, names: list[str]) -> Json:
    return {**documents.collection(request, "tags", []), "tags": names}


ALL, ONE = "/v3/projects/{project_id}/tags", "/v3/projects/{project_id}/tags/{tag}"
ROUTES = [
    Route("GET", ALL, list_project_tags, "identity:list_project_tags"),
    Route("PUT", ALL, update_project_tags, "identity:update_project_tags", body=tags.TagsBody),
    Route("DELETE", ALL, delete_project_tags, "identity:delete_project_tags", 204),
    Route("GET", ONE, show_project_tag, "identity:get_project_tag", 204),
    Route("PUT", ONE, create_project_tag, "identity:create_project_tag", 201),
    Route("DELETE", ONE, delete_project_tag, "identity:delete_project_tag", 204),
]
