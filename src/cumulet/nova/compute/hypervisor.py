"""The seam between nova-compute and a hypervisor: what ``libvirt.py`` and the simulated host both are.

Every method may be repeated with no further effect.  Failures that are the server's own fault (an image that
is refused, a disk smaller than the image) are ``Terminal``; what may pass is ``Retry``.

A running guest goes from host to host in these steps.  The new host prepares what it needs (``receive``,
``plug``) and defines nothing.  The old one's ``perform`` of the verb ``live-migration`` begins the job and later
only looks at it.  While it comes in, the new host's ``Domain.state`` is 'incoming'; when all of it is there it is
'paused', and never 'on': the guest is not started there before nova-conductor has read from both hosts' reports
that it is complete there and does not run here.  Then the new host's ``start`` lets it go on, and the old one
destroys what it has.  So a job that breaks off, or anything that dies, leaves the old host free to let its guest
go on.
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

    def receive(self, server: ServerIntent, config_drive: Mapping[str, bytes]) -> None:
        """What its guest needs here, to be sent to: the base image (from ``server.fetch`` or glance), empty disks
        of the sizes that the old host's have, the config drive's files.  ``Domain.disk`` says that it is done.

        From then on, as long as the host's intent says ``receiving``, whoever has ``server.ticket`` is let in.
        Nothing that comes in runs.  What an attempt that broke off has left in the disks does not matter to the
        next one.
        """

    def recall(self, server: ServerIntent) -> bool:
        """Break off the job that sends it away (``Domain.progress``); True when there is none any more."""

    def plug(self, server: ServerIntent) -> None:
        """A tap on the switch for each wanted nic that has none, marked with its port's id."""

    def unplug(self, server: ServerIntent, port_ids: frozenset[str]) -> None:
        """Take taps away that no nic wants any more (and from the running domain, if it has them)."""

    def define(self, server: ServerIntent) -> None:
        """Write the domain down, with these nics; not started.  If it runs, it gets the nics that it lacks now."""

    def start(self, server: ServerIntent) -> None:
        """On, from whatever it is: a paused or sent one goes on, a suspended one wakes up with its memory."""

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

        ``live-migration`` sends the guest to the host that ``verb.args`` name (``host``, ``address``, ``port`` of
        its nova-compute, ``ticket``).  False while the job goes on.  True when the guest does not run here any
        more: its domain is gone, or it stands still ('sent': the job is over, and nobody here knows whether all of
        it arrived).  Terminal, in the hypervisor's words: there is no job, and the guest is here as it was.
        Without a job, and with none that is known to have failed, it begins (anew).  ``verb.args["force"]``: come
        to an end, even if the guest has to stand still for longer.  ``verb.args["abort"]``: break the job off and
        raise Terminal; what has arrived meanwhile has arrived.  The domain does not remember this verb:
        ``last_verb`` goes with it as it is.
        """

    def rebuild(self, server: ServerIntent, verb: Verb, config_drive: Mapping[str, bytes]) -> bool:
        """A new disk of the wanted image in the old one's place; then on, if it is wanted on.  True when done.

        The image is fetched and checked before anything is lost.  Once the verb is done (``Domain.last_verb``) it
        is never repeated, and no guest has run in between.
        """

    def clear(self, server: ServerIntent, verbs: frozenset[int]) -> None:
        """Remove what these verbs have left of their copies of the disk (``Domain.copies``)."""

    def destroy(self, server: ServerIntent) -> None:
        """The domain, its taps and its files: nothing is left.  First of all nothing of it comes in any more."""

    def inventory(self) -> Inventory: ...

    def diagnostics(self, server_id: str) -> Diagnostics | None:
        """What it uses; None if it does not run."""

    def console_log(self, server_id: str) -> bytes:
        """The tail of the serial console's log, at most ``console_log_bytes``."""

    def open_screen(self, server_id: str) -> socket:
        """A new connection (AF_UNIX) to the screen of a server that is on or paused, which speaks VNC (RFB).

        It is closed when the server goes off.  Retry if there is no screen.
        """
