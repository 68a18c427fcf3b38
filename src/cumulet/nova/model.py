"""nova's nouns.  Types only: importable from anywhere above, from agents and from pure code.

``ServerIntent`` goes from nova-conductor to nova-compute, ``Seen`` and ``Inventory`` come back; both are JSON
of exactly these types.  What comes from a host is bounded here: a stolen one may send anything.
"""

from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType

from cumulet.core.schema import Count

LONGEST_REASON = 4000
"""A fault or a wait in more words is cut off, by who says it and by who writes it down."""
LIVE = "live-migration"
"""The verb that sends a running server to another host, and the type of its migration."""
FETCHES = "fetches_while_held"
"""What a nova-compute says of itself that knows of ``ServerIntent.fetching``."""
STORE = "shared_disks"
"""In the details of an inventory: which file system the host's servers have their disks on, if others have it."""
PCI_BUSES = 10
"""Of a guest, each for one device; without a free one a running guest takes no new NIC or disk."""
Counter = Annotated[int, Meta(ge=0, le=0x7FFFFFFFFFFFFFFF)]
Power = Annotated[str, Meta(pattern="^(on|off|paused|suspended|crashed|absent|incoming|sent)$")]
HostAddress = Annotated[str, Meta(pattern=r"^[][0-9A-Za-z_.:-]{0,255}$")]


class Nic(Struct, frozen=True):
    """One of a server's ports, as nova-compute needs it."""

    port_id: str
    mac: str
    mtu: int
    network_id: str
    wired: bool  # the L2 agent of this host has its flows in place
    wired_in: str = ""  # which boot of this host; '': not known
    bus: int = 0  # the PCI bus that it must have; 0: any

    @property
    def tap(self) -> str:
        """The host's device; the same name for everybody who looks for this port."""
        return f"tap{self.port_id[:11]}"


class ImageSource(Struct, frozen=True):
    """Where a server's root disk comes from.  ``disk_format`` is the database's word, never probed."""

    id: str
    disk_format: str
    size: int  # bytes
    virtual_size: int  # bytes
    sha512: str
    ticket: str  # proof towards glance that this host may fetch this image


class Verb(Struct, frozen=True):
    """Something to be done once to a server, in order: a row of server_actions.  Done at least once."""

    id: int
    name: str  # 'reboot', 'rebuild', 'createImage', 'live-migration'
    args: dict[str, Any] = {}
    request_id: str = ""


class Fetch(Struct, frozen=True):
    """Where the disk is that a server shall have here: with the nova-compute there, for this ticket."""

    host: str
    address: str
    port: int
    ticket: str


class Progress(Struct, frozen=True):
    """How far a guest is on its way to another host, in bytes."""

    memory_total: Counter = 0
    memory_processed: Counter = 0
    memory_remaining: Counter = 0
    disk_total: Counter = 0
    disk_processed: Counter = 0
    disk_remaining: Counter = 0


class ServerIntent(Struct, frozen=True):
    """A server as it should be on one host.  ``generation`` grows with every change of the wish."""

    id: str
    project_id: str
    name: str
    vcpus: int
    memory_mb: int
    root_gb: int
    image: ImageSource | None
    power: str  # 'on', 'off', 'paused' (it stands still) or 'suspended' (off, its memory is kept on disk)
    absent: bool  # an order: nothing of this server may be left on this host
    generation: int
    nics: tuple[Nic, ...]
    verbs: tuple[Verb, ...] = ()
    config_drive: bool = False
    request_id: str = ""  # of the latest change
    seen: "Seen | None" = None  # what the controller knows of this host's last report
    start_generation: int = 0  # of the latest order to be on, here; one that is carried out may be older or 0
    launched: bool = False  # it has been on, on this host: its disk holds the user's data
    ephemeral_gb: int = 0  # a second disk with an empty file system
    swap_mb: int = 0  # one more, of swap space
    root_bus: int = 0  # the PCI bus that the root disk must have; 0: any
    kept: bool = False  # off, with its files, while it is on trial on another host
    ticket: str = ""  # for which its files are given to the host that it moves to, or its guest is let in here
    held: bool = False  # its other host has yet to cease: nothing may start it here
    fetch: Fetch | None = None  # its disk comes from there, once that host has ceased
    fetching: bool = False  # that host has ceased: though the server is held, its disk may be fetched
    heir_of: str = ""  # the dead host whose disks of it, on a file system that both have, are this one's now
    receiving: bool = False  # its guest may come in here, and stands still until the controller has decided


class Seen(Struct, frozen=True):
    """What nova-compute reports of one server: the intent it has acted on, and what came of it.

    ``power``: 'on', 'off', 'paused', 'suspended', 'crashed' (off, and not by order), 'absent' (nothing is left),
    'incoming' (its guest is coming in, not all of it is there), 'sent' (it was sent to another host: its guest
    does not run here and will not but by a new order).
    """

    generation: Count
    power: Power
    fault: str = ""  # Terminal: shown to the user
    waiting: str = ""  # what the next step waits for, e.g. "ports to be wired"
    verbs_done: tuple[int, ...] = ()
    verb_faults: dict[str, str] = {}  # verb id → why it could not be done
    boot_id: Annotated[str, Meta(max_length=64)] = ""  # of the host when this was seen
    reached: bool = False  # it was on as ordered since that boot: if it is off now, it went off by itself
    ready: bool = False  # to receive the guest, or its disk is fetched and only the controller's word is missing
    progress: Progress | None = None  # of sending it away


class Domain(Struct, frozen=True):
    """A server as its host has it: one field for every kind of thing that nova-compute makes.

    What is not seen here is leaked by a crash, for only what is seen gets destroyed.  ``generation`` and
    ``last_verb`` are what the driver wrote down with the domain itself.
    """

    taps: frozenset[str] = frozenset()  # port ids with a tap on the switch
    files: bool = False  # a directory with a disk, config drive or console log
    disk: bool = False  # the root disk is complete
    defined: bool = False
    nics: frozenset[str] = frozenset()  # port ids in the domain's definition
    state: str = "off"  # 'on', 'off', 'paused', 'suspended', 'crashed', 'incoming', 'sent' (it stands still here)
    last_verb: int = 0
    image: str = ""  # the id of the image that the root disk was made from, if that is known
    copies: frozenset[int] = frozenset()  # verbs for which there is a copy of the disk, or one is being made
    progress: Progress | None = None  # of the job that sends it to another host; null if there is none

    @property
    def power(self) -> str:
        if not (self.taps or self.files or self.defined):
            return "absent"
        return self.state if self.defined else "off"


class Inventory(Struct, frozen=True):
    """What a host can give.  Reported at start and when it changes."""

    vcpus: Count
    memory_mb: Count
    disk_gb: Count
    virt_type: str  # 'kvm' or 'qemu'
    hypervisor_version: Count  # libvirt's number, e.g. 7002022
    cpu_model: str
    address: HostAddress  # the host name or address at which nova-compute answers (console log)
    details: dict[str, Any] = {}


class NicCounters(Struct, frozen=True):
    """What a NIC has moved since the server was switched on; ``rx`` is what the guest received."""

    device: Annotated[str, Meta(max_length=64)]
    port_id: Annotated[str, Meta(max_length=64)]
    rx_octets: Counter
    rx_packets: Counter
    rx_errors: Counter
    rx_drop: Counter
    tx_octets: Counter
    tx_packets: Counter
    tx_errors: Counter
    tx_drop: Counter


class DiskCounters(Struct, frozen=True):
    device: Annotated[str, Meta(max_length=64)]
    read_bytes: Counter
    read_requests: Counter
    write_bytes: Counter
    write_requests: Counter


class Diagnostics(Struct, frozen=True):
    """What a running server uses, as its host counts it."""

    cpu_nanoseconds: Annotated[tuple[Counter, ...], Meta(max_length=1024)]
    memory_mb: Counter
    memory_used_mb: Counter
    nics: Annotated[tuple[NicCounters, ...], Meta(max_length=256)]
    disks: Annotated[tuple[DiskCounters, ...], Meta(max_length=256)]


class ComputeDetails(Struct, frozen=True):
    """What is read of the details that come with nova-compute's signs of life; all else is only shown."""

    inventory: Inventory | UnsetType = UNSET
    address: HostAddress | UnsetType = UNSET
    uptime: Annotated[str, Meta(max_length=200)] | UnsetType = UNSET
