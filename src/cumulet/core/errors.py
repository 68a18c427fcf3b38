"""The errors that this code base raises on purpose, in three families.

``ApiError``: the caller's request cannot be granted; rendered once, by ``core.http``.
``Retry`` and ``Terminal``: outcomes of a reconciler that are not success (see ``core.reconcile``).
Anything else is a bug: one traceback at the edge of the process, and nowhere else a broad ``except``.
"""

from collections.abc import Mapping


class ApiError(Exception):
    """``kind`` is the error's type name where a project's format has one (``NeutronError.type``)."""

    status = 500
    title = "Internal Server Error"

    def __init__(self, message: str, *, kind: str = "", headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.kind = kind or type(self).__name__
        self.headers = dict(headers or {})


class BadRequest(ApiError):
    status, title = 400, "Bad Request"


class Unauthorized(ApiError):
    status, title = 401, "Unauthorized"


class Forbidden(ApiError):
    status, title = 403, "Forbidden"


class NotFound(ApiError):
    status, title = 404, "Not Found"


class MethodNotAllowed(ApiError):
    status, title = 405, "Method Not Allowed"


class NotAcceptable(ApiError):
    status, title = 406, "Not Acceptable"


class Conflict(ApiError):
    status, title = 409, "Conflict"


class Gone(ApiError):
    status, title = 410, "Gone"


class PreconditionFailed(ApiError):
    status, title = 412, "Precondition Failed"


class TooLarge(ApiError):
    status, title = 413, "Request Entity Too Large"


class UnsupportedMedia(ApiError):
    status, title = 415, "Unsupported Media Type"


class RangeNotSatisfiable(ApiError):
    status, title = 416, "Requested Range Not Satisfiable"


class NotImplementedHere(ApiError):
    status, title = 501, "Not Implemented"


class Unavailable(ApiError):
    """A part this request needs does not answer now; the caller may repeat it."""

    status, title = 503, "Service Unavailable"


class Retry(Exception):
    """Somebody else must act first.  Not a failure: looked at again on a hint or with back-off."""


class Terminal(Exception):
    """The row's own fault: not tried again until its generation changes.  The text is shown to users."""
