"""The seam between nova-compute and a hypervisor: what ``libvirt.py`` and the simulated host both are.

Every method may be repeated with no further effect.  Failures that are the server's own fault (an image that
is refused, a disk smaller than the image) are ``Terminal``; what may pass is ``Retry``.
"""

from collections.abc import Mapping
from socket import socket
from typing import Protocol

from cumulet.nova.model import Diagnostics, Domain, Inventory, ServerIntent, Verb


class Hypervisor(Protocol):
    def look(self) -> Mapping[str, Domain]:
        """Everything on this host that belongs to any server, by server id; one look per pass."""

    def look_at(self, server_id: str) -> Domain:
        """The same for one server, now."""

    def make_disk(self, server: ServerIntent, config_drive: Mapping[str, bytes]) -> None:
        """The base image into the cache (checked), an overlay of the flavor's size, the config drive's files."""

    def fetch_disk(self, server: ServerIntent, config_drive: Mapping[str, bytes]) -> None:
        """The disk that the server has on the host it comes from (``server.fetch``), grown to the flavor's size."""

    def plug(self, server: ServerIntent) -> None:
        """A tap on the switch for each wanted nic that has none, marked with its port's id."""

    def unplug(self, server: ServerIntent, port_ids: frozenset[str]) -> None:
        """Take taps away that no nic wants any more (and from the running domain, if it has them)."""

    def define(self, server: ServerIntent) -> None:
        """Write the domain down, with these nics; not started.  If it runs, it gets the nics that it lacks now."""

    def start(self, server: ServerIntent) -> None:
        """On, from whatever it is: a paused one goes on, a suspended one wakes up with its memory."""

    def stop(self, server: ServerIntent) -> bool:
        """Ask the guest to shut down; True when it is off.  After the grace time it is switched off.

        A paused guest hears nothing and is switched off at once; a suspended one loses its memory.
        """

    def pause(self, server: ServerIntent) -> None:
        """Let a running one stand still."""

    def suspend(self, server: ServerIntent) -> None:
        """Write the memory of a running or paused one to disk and switch it off; ``start`` wakes it up."""

    def perform(self, server: ServerIntent, verb: Verb) -> bool:
        """Carry out a verb; True when it is done, False to be called again.

        A ``reboot`` starts what is off.  ``createImage`` copies the disk as it is at one moment, then sends the
        copy to glance.  The domain remembers the verb's id (``Domain.last_verb``), so that a repeat after a crash
        knows.  ``resize`` shuts the guest down, keeps the disk as it is then, and starts it as the flavor says;
        ``revertResize`` takes the kept disk back, ``confirmResize`` forgets it.
        """

    def rebuild(self, server: ServerIntent, verb: Verb, config_drive: Mapping[str, bytes]) -> bool:
        """A new disk of the wanted image in the old one's place; then on, if it is wanted on.  True when done.

        The image is fetched and checked before anything is lost.  Once the verb is done (``Domain.last_verb``) it
        is never repeated, and no guest has run in between.
        """

    def clear(self, server: ServerIntent, verbs: frozenset[int]) -> None:
        """Remove what these verbs have left of their copies of the disk (``Domain.copies``)."""

    def destroy(self, server: ServerIntent) -> None:
        """The domain, its taps and its files: nothing is left."""

    def inventory(self) -> Inventory: ...

    def diagnostics(self, server_id: str) -> Diagnostics | None:
        """What it uses; None if it does not run."""

    def console_log(self, server_id: str) -> bytes:
        """The tail of the serial console's log, at most ``console_log_bytes``."""

    def open_screen(self, server_id: str) -> socket:
        """A new connection (AF_UNIX) to the screen of a server that is on or paused, which speaks VNC (RFB).

        It is closed when the server goes off.  Retry if there is no screen.
        """
