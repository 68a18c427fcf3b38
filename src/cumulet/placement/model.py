"""placement's nouns.  Types only: importable from anywhere above, and from pure code."""

from msgspec import Struct

VCPU, MEMORY_MB, DISK_GB = "VCPU", "MEMORY_MB", "DISK_GB"


class Resources(Struct, frozen=True):
    """So much of each class.  In ``Capacity.free`` a number is negative where a host has shrunk below its use."""

    vcpus: int = 0
    memory_mb: int = 0
    disk_gb: int = 0

    def by_class(self) -> dict[str, int]:
        return {VCPU: self.vcpus, MEMORY_MB: self.memory_mb, DISK_GB: self.disk_gb}

    def __add__(self, other: "Resources") -> "Resources":
        return Resources(self.vcpus + other.vcpus, self.memory_mb + other.memory_mb, self.disk_gb + other.disk_gb)


class Inventory(Struct, frozen=True):
    """What a host has of one class; ``capacity`` is what may be given out."""

    total: int
    reserved: int = 0
    ratio: float = 1.0
    used: int = 0

    @property
    def capacity(self) -> int:
        return int((self.total - self.reserved) * self.ratio)

    @property
    def free(self) -> int:
        return self.capacity - self.used


class Capacity(Struct, frozen=True):
    """One host as it was when we looked; ``generation`` says when that was."""

    host: str
    provider_id: str
    generation: int
    inventories: dict[str, Inventory]

    @property
    def free(self) -> Resources:
        return Resources(*(self._of(name).free for name in (VCPU, MEMORY_MB, DISK_GB)))

    @property
    def used(self) -> Resources:
        return Resources(*(self._of(name).used for name in (VCPU, MEMORY_MB, DISK_GB)))

    @property
    def total(self) -> Resources:
        return Resources(*(self._of(name).total for name in (VCPU, MEMORY_MB, DISK_GB)))

    def _of(self, name: str) -> Inventory:
        return self.inventories.get(name) or Inventory(0)


class Claim(Struct, frozen=True):
    """``consumer`` (a server's id) takes ``need`` from the host that was seen as ``capacity``."""

    consumer: str
    capacity: Capacity
    need: Resources
