"""The loop of glance-api that carries out imports: ``image-imports``.

Staged data is looked at and becomes the image's; what is at a URL is downloaded like any upload, with an attempt, a
file and a claim of its own.  A process that dies leaves nothing that counts: staged data is looked at again, and
the dead attempt of a download is released by ``leftovers``, after which a new one begins.  Two processes that take
up the same import race for the claim, or come to the same end.

An import fails for good when the data or its place is bad; when the registry or the store is away it waits.
"""

import logging
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from cumulet.core.config import Config
from cumulet.core.context import Context
from cumulet.core.errors import ApiError, Conflict, NotFound, Retry, TooLarge
from cumulet.core.outbound import Ended, Refused
from cumulet.core.reconcile import Reconciler
from cumulet.glance.inspection import PIECE, UnsafeImage
from cumulet.glance.model import DIRECT, Claim, ImportWork, Stored
from cumulet.glance.store import Measure, Upload
from cumulet.glance.wiring import Wiring

LOG = logging.getLogger(__name__)
TOPIC = "glance.imports"
AT_A_TIME = 4


@dataclass
class Imports:
    wiring: Wiring
    config: Config
    workers: int = AT_A_TIME

    def reconciler(self, resync_seconds: float) -> Reconciler[ImportWork]:
        return Reconciler(
            "image-imports",
            self.read,
            self.reconcile,
            topics=(TOPIC,),
            resync_seconds=resync_seconds,
            workers=self.workers,
        )

    def read(self) -> Mapping[str, ImportWork]:
        """Those that this node can carry out: staged data lies where it was staged."""
        try:
            found = self.wiring.registry.list_imports()
        except ApiError as error:
            raise Retry(error.message) from error
        return {work.id: work for work in found if work.method != DIRECT or work.node == self.wiring.node}

    def reconcile(self, work: ImportWork) -> None:
        try:
            if work.method == DIRECT:
                self._import_staged(work)
            else:
                self._download(work)
        except Ended:
            raise Retry("the service ends") from None
        except (Conflict, NotFound):
            raise Retry("somebody else is at it, or it is over") from None
        except ApiError as error:
            raise Retry(error.message) from error

    def _import_staged(self, work: ImportWork) -> None:
        try:
            data = self._measure(work)
        except FileNotFoundError:
            self._fail(work, "the staged data cannot be found")
        except UnsafeImage as error:
            self._fail(work, str(error))
        else:
            self.wiring.registry.activate(_context(work), work.image_id, work.attempt or "", data)

    def _measure(self, work: ImportWork) -> Stored:
        measure = Measure(work.disk_format)
        with self.wiring.store.open(work.image_id, work.attempt or "") as file:
            while piece := file.read(PIECE):
                if self.wiring.outbound.stopping.is_set():
                    raise Ended
                measure.feed(piece)
        return measure.finish()

    def _download(self, work: ImportWork) -> None:
        if not self.config.images.web_download:
            self._fail(work, "this cloud does not download images any more")
            return
        if work.attempt:
            raise Retry(f"an attempt on {work.node} is under way")
        wiring, attempt = self.wiring, uuid.uuid4().hex
        largest = self.config.images.largest_bytes
        upload = wiring.store.begin(work.image_id, attempt, work.disk_format, largest)
        stored = False
        try:
            claim = Claim(attempt, wiring.node, work.disk_format, task=work.id)
            wiring.registry.claim(_context(work), work.image_id, claim)
            try:
                self._receive(work, attempt, upload)
                data = upload.finish()
            except (Refused, UnsafeImage) as error:
                self._fail(work, str(error))
            except TooLarge as error:
                self._fail(work, error.message)
            else:
                wiring.registry.activate(_context(work), work.image_id, attempt, data)
                stored = True
        finally:
            self._end(work, attempt, upload, stored)

    def _receive(self, work: ImportWork, attempt: str, upload: Upload) -> None:
        renew_at = time.monotonic() + self.wiring.renew_seconds
        with self.wiring.outbound.get(work.uri or "", self.config.images.largest_bytes) as download:
            for piece in download.pieces():
                upload.write(piece)
                if time.monotonic() >= renew_at:
                    self._renew(work, attempt)
                    renew_at = time.monotonic() + self.wiring.renew_seconds

    def _renew(self, work: ImportWork, attempt: str) -> None:
        """Say that the download goes on; Conflict or NotFound if nobody wants it any more."""
        try:
            self.wiring.registry.renew(_context(work), work.image_id, attempt)
        except (Conflict, NotFound):
            raise
        except ApiError as error:
            LOG.warning("the download of image %s cannot be renewed: %s", work.image_id, error.message)

    def _end(self, work: ImportWork, attempt: str, upload: Upload, stored: bool) -> None:
        """The file goes only when the registry has confirmed that it is nobody's data."""
        try:
            if not stored:
                self.wiring.registry.release(_context(work), work.image_id, attempt)
                upload.discard()
        except ApiError as error:
            LOG.warning("the download of image %s is left to the other loop: %s", work.image_id, error.message)
        finally:
            upload.close()

    def _fail(self, work: ImportWork, reason: str) -> None:
        LOG.info("import %s of image %s fails: %s", work.id, work.image_id, reason)
        self.wiring.registry.fail_import(_context(work), work.id, reason)


def _context(work: ImportWork) -> Context:
    """In the name of who asked for it, with the right to finish it whatever has become of theirs."""
    return Context(
        request_id=work.request_id, user_id=work.user_id, project_id=work.owner, roles=frozenset({"admin"})
    )
