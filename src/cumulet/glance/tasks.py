"""/v2/tasks and /v2/images/{image_id}/tasks: the imports that were asked for, and what became of them.

To make a task by hand is what upstream has given up for imports; here it cannot be done at all.
"""

from typing import Any

from cumulet.core import clock
from cumulet.core.errors import NotFound
from cumulet.core.http import Request, Route
from cumulet.glance.images import get_record
from cumulet.glance.model import Task
from cumulet.glance.wiring import registry_of


def list_tasks(request: Request) -> dict[str, Any]:
    tasks = registry_of(request).list_tasks(request.context)
    wanted = {name: request.one(name) for name in ("status", "type") if request.one(name)}
    documents = [_view(task) for task in tasks]
    shown = [each for each in documents if all(each[name] == value for name, value in wanted.items())]
    return {"tasks": shown, "first": "/v2/tasks", "schema": "/v2/schemas/tasks"}


def show_task(request: Request) -> dict[str, Any]:
    task_id = request.params["task_id"]
    for task in registry_of(request).list_tasks(request.context, task_id=task_id):
        return _details(task)
    raise NotFound(f"Task not found for task_id {task_id}")


def list_image_tasks(request: Request) -> dict[str, Any]:
    record = get_record(request, "get_image")
    tasks = registry_of(request).list_tasks(request.context, image_id=record.id)
    mine = request.context.admin or record.owner == request.context.project_id
    return {"tasks": [_details(task) for task in tasks if mine]}


def _view(task: Task) -> dict[str, Any]:
    return {
        "id": task.id,
        "type": "api_image_import",
        "status": task.status,
        "owner": task.owner,
        "image_id": task.image_id,
        "user_id": task.user_id,
        "request_id": task.request_id,
        "created_at": clock.short(task.created_at),
        "updated_at": clock.short(task.updated_at),
        "expires_at": clock.short(task.expires_at) if task.expires_at else None,
        "self": f"/v2/tasks/{task.id}",
        "schema": "/v2/schemas/task",
    }


def _details(task: Task) -> dict[str, Any]:
    method = {"name": task.method, **({"uri": task.uri} if task.uri else {})}
    return {
        **_view(task),
        "input": {"image_id": task.image_id, "import_req": {"method": method}},
        "result": {"image_id": task.image_id} if task.status == "success" else None,
        "message": task.message,
    }


ROUTES = [
    Route("GET", "/v2/tasks", list_tasks, "tasks_api_access"),
    Route("GET", "/v2/tasks/{task_id}", show_task, "tasks_api_access"),
    Route("GET", "/v2/images/{image_id}/tasks", list_image_tasks, "get_image"),
]
