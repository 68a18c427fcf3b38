"""The loop of glance-api that fetches the data of images from other controllers: ``image-copies``.

An upload's file is on the controller that took it; each of the others makes itself a copy of the same name, so that
any of them may be lost.  Until it has one, it passes on what it is asked for (``peers``).

A copy is made like an upload, in a locked file, and counts once it is whole and has the SHA-512 that the registry
knows.  What a process that dies leaves of it is begun anew; what is left of an image that was deleted meanwhile is
found by ``leftovers``.
"""

import logging
from collections.abc import Mapping

from cumulet.core.errors import ApiError, Retry
from cumulet.core.reconcile import Reconciler
from cumulet.glance.inspection import PIECE, UnsafeImage
from cumulet.glance.model import StoredImage
from cumulet.glance.peers import Data
from cumulet.glance.store import StoredFile, Upload
from cumulet.glance.wiring import Wiring

LOG = logging.getLogger(__name__)
TOPIC = "glance.stored"


class Copies:
    def __init__(self, wiring: Wiring, largest: int) -> None:
        self._wiring, self._largest = wiring, largest

    def reconciler(self, resync_seconds: float) -> Reconciler[StoredImage]:
        return Reconciler("image-copies", self.read, self.reconcile, topics=(TOPIC,), resync_seconds=resync_seconds)

    def read(self) -> Mapping[str, StoredImage]:
        """The images whose data is not here."""
        here = {(file.image_id, file.attempt) for file in self._wiring.store.list_files() if not file.partial}
        try:
            found = self._wiring.registry.list_stored()
        except ApiError as error:
            raise Retry(error.message) from error
        return {image.id: image for image in found if (image.id, image.attempt) not in here}

    def reconcile(self, image: StoredImage) -> None:
        try:
            data = self._wiring.peers.open(image.id)
            if data is None:
                raise Retry(f"no controller has the data of image {image.id}")
            try:
                self._copy(image, data)
            finally:
                data.close()
        except (ApiError, UnsafeImage, OSError) as error:
            raise Retry(str(error)) from error

    def _copy(self, image: StoredImage, data: Data) -> None:
        self._forget(StoredFile(image.id, image.attempt, True))
        upload = self._wiring.store.begin(image.id, image.attempt, image.disk_format, self._largest)
        whole = False
        try:
            self._receive(upload, data)
            upload.finish(image.sha512)
            whole = True
            LOG.info("image %s is copied: %d bytes", image.id, upload.size)
        finally:
            if not whole:
                upload.discard()
            upload.close()

    def _receive(self, upload: Upload, data: Data) -> None:
        while piece := data.read(PIECE):
            if self._wiring.outbound.stopping.is_set():
                raise Retry("the service ends")
            upload.write(piece)

    def _forget(self, part: StoredFile) -> None:
        """What was left by a process that died at this copy."""
        with self._wiring.store.idle(part) as idle:
            if not idle:
                raise Retry(f"somebody writes {part.name}")
            self._wiring.store.remove(part)
