"""The loop of glance-api that removes what uploads and deletions leave: ``image-data``.

A deleted image's data is removed here, never in the API call.  A process that died in an upload leaves a file
without a lock and an image that is saving; the image becomes queued, then the file goes.  Nothing is decided from
an old answer: with the file's lock in hand the registry is asked again, and whatever died can change nothing any
more.  An uploader that lives holds its file's lock, and is left alone.
"""

import logging
from collections.abc import Mapping

import msgspec

from cumulet.core.errors import ApiError, Conflict, Retry
from cumulet.core.reconcile import Reconciler
from cumulet.glance.model import DataState
from cumulet.glance.registry_client import SERVICE, RegistryClient
from cumulet.glance.store import Store, StoredFile

LOG = logging.getLogger(__name__)
TOPIC = "glance.images"
_MOST_ASKED = 5000
"""Images asked for in one request."""


class ImageData(msgspec.Struct, frozen=True):
    """An image whose data needs a look: its files, as they were when the pass began."""

    id: str
    files: tuple[StoredFile, ...]


class Leftovers:
    """``node``: whose dead uploads this loop may judge by the files that it sees."""

    def __init__(self, registry: RegistryClient, store: Store, node: str) -> None:
        self._registry, self._store, self._node = registry, store, node

    def reconciler(self, resync_seconds: float) -> Reconciler[ImageData]:
        return Reconciler("image-data", self.read, self.reconcile, topics=(TOPIC,), resync_seconds=resync_seconds)

    def read(self) -> Mapping[str, ImageData]:
        """The images that have a file which is not their data, are saving, or wait for their data's removal."""
        files: dict[str, list[StoredFile]] = {}
        for file in self._store.list_files():
            files.setdefault(file.image_id, []).append(file)
        states = self._ask(list(files))
        return {
            state.id: ImageData(state.id, tuple(files.get(state.id, ())))
            for state in states.values()
            if _unfinished(state) or any(not _is_data(file, state) for file in files.get(state.id, ()))
        }

    def reconcile(self, image: ImageData) -> None:
        try:
            state = self._ask([image.id])[image.id]
            if state.receiving and self._is_dead(state):
                self._release(state)
            for file in image.files:
                self._settle_file(file)
            if state.status == "deleted" and not state.gone:
                self._finish_deletion(state)
        except ApiError as error:
            raise Retry(error.message) from error

    def _settle_file(self, file: StoredFile) -> None:
        """Remove the file if nobody uploads into it, and it neither is data nor can become data any more."""
        with self._store.idle(file) as idle:
            if not idle:
                return
            state = self._ask([file.image_id])[file.image_id]
            uploading = state.receiving and state.attempt == file.attempt
            if not uploading and not _is_data(file, state):
                LOG.info("removing %s: image %s is %s", file.name, state.id, state.status)
                self._store.remove(file)

    def _is_dead(self, state: DataState) -> bool:
        """Whether nobody is left of the upload: its file would be there before its claim, and be locked."""
        if state.node != self._node and not state.silent:
            return False
        for partial in (True, False):  # in this order, for a file may lose its ``.part`` in between
            with self._store.idle(StoredFile(state.id, state.attempt or "", partial)) as idle:
                if not idle:
                    return False
        return True

    def _release(self, state: DataState) -> None:
        """The image is queued again, unless its upload was finished after all."""
        try:
            self._registry.release(SERVICE, state.id, state.attempt or "")
        except Conflict:
            return
        LOG.warning("the upload of image %s on %s died", state.id, state.node)

    def _finish_deletion(self, state: DataState) -> None:
        if any(file.image_id == state.id for file in self._store.list_files()):
            raise Retry(f"an upload of deleted image {state.id} has not ended")
        self._registry.report_gone(state.id)

    def _ask(self, image_ids: list[str]) -> dict[str, DataState]:
        states: dict[str, DataState] = {}
        for number in range(0, max(len(image_ids), 1), _MOST_ASKED):
            try:
                answer = self._registry.list_data(image_ids[number : number + _MOST_ASKED])
            except ApiError as error:
                raise Retry(error.message) from error
            states |= {state.id: state for state in answer}
        return states


def _unfinished(state: DataState) -> bool:
    return state.receiving or (state.status == "deleted" and not state.gone)


def _is_data(file: StoredFile, state: DataState) -> bool:
    return not file.partial and state.kept and state.attempt == file.attempt
