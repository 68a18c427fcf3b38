"""placement's data.  Written through ``placement.public`` only: by nova-scheduler (claims) and nova-conductor."""

from sqlalchemy import Column, Float, ForeignKey, Index, Integer, String, Table

from cumulet.core.tables import Id, Name, metadata

# Who has something to give: one row per nova-compute.
providers = Table(
    "providers",
    metadata,
    Column("id", Id, primary_key=True),  # the same as the agent's and the hypervisor's
    Column("host", Name, nullable=False, unique=True),
    # grows with each claim and each change of the inventory: who chose from an older view starts over
    Column("generation", Integer, nullable=False, default=0),
)

inventories = Table(
    "inventories",
    metadata,
    Column("provider_id", Id, ForeignKey("providers.id"), primary_key=True),
    Column("resource_class", String(32), primary_key=True),  # VCPU, MEMORY_MB, DISK_GB
    Column("total", Integer, nullable=False),  # what the host has
    Column("reserved", Integer, nullable=False, default=0),  # kept for the host itself
    Column("ratio", Float, nullable=False, default=1.0),  # given out per real one
    Column("used", Integer, nullable=False, default=0),  # the sum of the allocations; may exceed what is left
)

allocations = Table(
    "allocations",
    metadata,
    Column("consumer_id", Id, primary_key=True),  # a server's id, or that of its migration
    Column("provider_id", Id, ForeignKey("providers.id"), primary_key=True),
    Column("resource_class", String(32), primary_key=True),
    Column("used", Integer, nullable=False),
)
Index("ix_allocations_provider", allocations.c.provider_id)
