"""nova's data.  Each column has one writer, named here; ``status`` is derived (``nova.status``), never stored."""

from sqlalchemy import JSON, BigInteger, Boolean, Column, Float, ForeignKey, Index, Integer, String, Table, Text

from cumulet.core.tables import Id, Name, Time, metadata

# Written by nova-api unless a comment says otherwise.
servers = Table(
    "servers",
    metadata,
    Column("id", Id, primary_key=True),
    Column("project_id", Id, nullable=False),
    Column("user_id", Id, nullable=False),
    Column("name", Name, nullable=False),
    Column("hostname", Name, nullable=False),
    Column("description", Name),
    Column("created_at", Time, nullable=False),
    Column("updated_at", Time, nullable=False),
    Column("flavor", JSON, nullable=False),  # a copy: id, name, vcpus, ram, disk, ephemeral, swap, extra_specs
    Column("vcpus", Integer, nullable=False),
    Column("memory_mb", Integer, nullable=False),
    Column("root_gb", Integer, nullable=False),
    Column("image_id", Id),
    Column(
        "image", JSON
    ),  # a copy of what the host needs: nova.model.ImageSource without the ticket; its properties
    Column("key_name", Name),
    Column("key", JSON),  # a copy: name, type, public_key
    Column("user_data", Text),  # base64, as given
    Column("config_drive", Boolean, nullable=False, default=False),
    Column("metadata", JSON, nullable=False, default=dict),
    Column("availability_zone", Name),  # as asked for; 'zone:host' where an administrator named the host
    Column("scheduler_hints", JSON, nullable=False, default=dict),
    Column("server_group_id", Id),  # null when its group is deleted
    Column("reservation_id", Id, nullable=False),
    Column("launch_index", Integer, nullable=False, default=0),
    Column("access_ip_v4", String(15)),
    Column("access_ip_v6", String(39)),
    Column("disk_config", String(6), nullable=False, default="MANUAL"),  # 'AUTO' or 'MANUAL', as asked for
    Column("locked", Boolean, nullable=False, default=False),
    Column("locked_by", String(8)),  # 'owner' or 'admin'
    Column("locked_reason", Name),
    Column("device_tags", JSON),  # ``device_tags.Tags``; null: no device has one
    Column("power", String(16), nullable=False),  # wanted: 'on', 'off', 'paused' or 'suspended'
    Column("forced_error", Boolean, nullable=False, default=False),  # an administrator says that it is broken
    Column("deleted_at", Time),  # an order to destroy, not yet a fact
    Column("generation", Integer, nullable=False, default=1),
    Column("request_id", Id, nullable=False),  # of the latest change
    Column("encrypted_password", Text),  # set once by the guest (metadata service), cleared by nova-api
    # written by nova-scheduler
    Column("placement_fault", Text),  # why no host was found; final: it can only be deleted
    Column("placement_fault_at", Time),
    Column("placed_at", Time),
    # written by nova-conductor, when nothing of it is left on any host and all it held is released
    Column("gone_at", Time),
)
Index("ix_servers_project_created", servers.c.project_id, servers.c.gone_at, servers.c.created_at)
Index("ix_servers_deleted", servers.c.deleted_at, servers.c.gone_at)
Index("ix_servers_group", servers.c.server_group_id)
Index("ix_servers_placed", servers.c.placed_at, servers.c.deleted_at)

# Words that its owner put on a server.
server_tags = Table(
    "server_tags",
    metadata,
    Column("server_id", Id, ForeignKey("servers.id"), primary_key=True),
    Column("tag", String(60), primary_key=True),
)
Index("ix_server_tags_tag", server_tags.c.tag)

# What each host should do about a server.  Written by nova-scheduler; where a server moves, by whoever orders a
# step of the move (``nova.moves``), always together with the server's generation.
server_hosts = Table(
    "server_hosts",
    metadata,
    Column("server_id", Id, ForeignKey("servers.id"), primary_key=True),
    Column("host", Name, primary_key=True),
    # 'run' (one host at most); 'keep': nothing runs, but all its files stay, for it has moved on trial, or are made
    # and a running guest may come in (``live_moves``); 'absent' is a tombstone
    Column("wanted", String(8), nullable=False),
    Column(
        "since", Integer, nullable=False, default=0
    ),  # the server's generation that told it to run, or to cease; 0 by a move: it was never told to run
    Column("fenced", Boolean, nullable=False, default=False),  # an administrator says that nothing runs there
    # what was seen: written by nova-conductor from nova-compute's reports
    Column("seen_generation", Integer, nullable=False, default=0),
    Column("seen_power", String(16)),  # nova.model.Seen.power; null before the first report
    Column("seen_fault", Text),
    Column("seen_fault_at", Time),
    Column("seen_waiting", Text),
    Column("seen_boot_id", Id),
    Column("seen_reached", Boolean, nullable=False, default=False),
    Column("seen_at", Time),
    Column("launched_at", Time),  # when it was first seen on, here or where it came from
)
Index("ix_server_hosts_host", server_hosts.c.host)

# Verbs, and the history that os-instance-actions shows.  Intent by nova-api; the rest by nova-conductor.
server_actions = Table(
    "server_actions",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("server_id", Id, ForeignKey("servers.id"), nullable=False),
    Column("action", Name, nullable=False),  # 'create', 'delete', 'stop', 'start', 'reboot', …
    Column("request_id", Id, nullable=False),
    Column("user_id", Id, nullable=False),
    Column("project_id", Id, nullable=False),
    Column("started_at", Time, nullable=False),
    Column("generation", Integer, nullable=False),  # done when a host has acted on this generation
    Column(
        "verb", Boolean, nullable=False, default=False
    ),  # a host must carry it out once (reboot, rebuild, createImage, createBackup)
    Column("params", JSON, nullable=False, default=dict),
    # written by nova-conductor (by nova-scheduler where no host was found)
    Column("finished_at", Time),
    Column("fault", Text),
    Column("host", Name),
)
Index("ix_server_actions_server", server_actions.c.server_id, server_actions.c.id)
Index("ix_server_actions_unfinished", server_actions.c.finished_at, server_actions.c.server_id)

# Moves of servers between hosts, and changes of their flavor: what os-migrations shows.  At most one of a server is
# not finished.  ``status`` is derived (``nova.migrations``).  Intent by nova-api.
migrations = Table(
    "migrations",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("uuid", Id, nullable=False, unique=True),  # holds the claim on the host that it leaves
    Column("server_id", Id, ForeignKey("servers.id"), nullable=False),
    Column("type", String(16), nullable=False),  # 'resize', 'migration', 'evacuation', 'live-migration'
    Column("user_id", Id, nullable=False),  # who ordered it
    Column("project_id", Id, nullable=False),
    Column("created_at", Time, nullable=False),
    Column("source", Name, nullable=False),
    Column("target", Name),  # the host that was asked for
    Column("old_flavor", JSON, nullable=False),
    Column("new_flavor", JSON, nullable=False),
    Column("more_vcpus", Integer, nullable=False, default=0),  # what the project will use on top: counts at once
    Column("more_memory_mb", Integer, nullable=False, default=0),
    # 'move'; 'revert': back again; of a live one 'force': soon, even if it stands still; 'abort': not any more
    Column("wanted", String(8), nullable=False, default="move"),
    # written by nova-scheduler
    Column("destination", Name),
    Column("placed_at", Time),
    # of one that goes off and on again, until its destination has asked, and was told that it may begin
    Column("held", Boolean),  # null: not known
    # written by nova-conductor
    Column("arrived_at", Time),  # it is where it should be, as it should be
    Column("finished_at", Time),  # by nova-api where it is confirmed, by nova-scheduler where no host was found
    Column("outcome", String(16)),  # 'confirmed', 'reverted', 'error', 'done', 'completed', …
    Column("ready_at", Time),  # of a live one: its destination can receive it; of another: it has fetched the disk
    # of a live one
    Column("asked_generation", Integer),  # it was sent; the destination's word counts from this generation on
    Column("left_at", Time),  # it is the destination's
    Column("memory_total", BigInteger),  # bytes, as its source counts them
    Column("memory_processed", BigInteger),
    Column("memory_remaining", BigInteger),
    Column("disk_total", BigInteger),
    Column("disk_processed", BigInteger),
    Column("disk_remaining", BigInteger),
)
Index("ix_migrations_server", migrations.c.server_id, migrations.c.finished_at)
Index("ix_migrations_unplaced", migrations.c.finished_at, migrations.c.placed_at)

# Tokens that wait for a browser.  Written by nova-consoleauth alone; whoever reads them opens nothing with them.
console_tokens = Table(
    "console_tokens",
    metadata,
    Column("hash", String(64), primary_key=True),  # SHA-256 of the token
    Column("server_id", Id, ForeignKey("servers.id"), nullable=False),
    Column("host", Name, nullable=False),  # which had the server then
    Column("expires_at", Time, nullable=False),
)
Index("ix_console_tokens_server", console_tokens.c.server_id)

# Servers that shall be together, or apart.
server_groups = Table(
    "server_groups",
    metadata,
    Column("id", Id, primary_key=True),
    Column("project_id", Id, nullable=False, index=True),
    Column("user_id", Id, nullable=False),
    Column("name", Name, nullable=False),
    Column("policy", String(32), nullable=False),  # 'affinity', 'anti-affinity', or one of them with 'soft-'
    Column("rules", JSON, nullable=False, default=dict),  # 'max_server_per_host' of anti-affinity
    Column("created_at", Time, nullable=False),
    # written by nova-scheduler: moves on when it places a member, so that two schedulers cannot both place the last
    Column("generation", Integer, nullable=False, default=1),
)

flavors = Table(
    "flavors",
    metadata,
    Column("id", Name, primary_key=True),  # the flavorid, which an administrator may choose
    Column("name", Name, nullable=False, unique=True),
    Column("description", Text),
    Column("vcpus", Integer, nullable=False),
    Column("memory_mb", Integer, nullable=False),
    Column("root_gb", Integer, nullable=False),
    Column("ephemeral_gb", Integer, nullable=False, default=0),
    Column("swap_mb", Integer, nullable=False, default=0),
    Column("rxtx_factor", Float, nullable=False, default=1.0),
    Column("is_public", Boolean, nullable=False, default=True),
    Column("extra_specs", JSON, nullable=False, default=dict),
    Column("created_at", Time, nullable=False),
    Column("generation", Integer, nullable=False, default=1),  # grows with every change; guards it
)

flavor_access = Table(
    "flavor_access",
    metadata,
    Column("flavor_id", Name, ForeignKey("flavors.id", ondelete="CASCADE"), primary_key=True),
    Column("project_id", Id, primary_key=True),
)

keypairs = Table(
    "keypairs",
    metadata,
    Column("user_id", Id, primary_key=True),
    Column("name", Name, primary_key=True),
    Column("type", String(8), nullable=False, default="ssh"),
    Column("fingerprint", Name, nullable=False),
    Column("public_key", Text, nullable=False),
    Column("created_at", Time, nullable=False),
)

# Sets of compute hosts.
aggregates = Table(
    "aggregates",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("uuid", Id, nullable=False),
    Column("name", Name, nullable=False, unique=True),
    Column("zone", Name),  # its hosts' availability zone; null: it says nothing of it
    Column("metadata", JSON, nullable=False, default=dict),
    Column("created_at", Time, nullable=False),
    Column("updated_at", Time),
    Column("generation", Integer, nullable=False, default=1),  # grows with every change; guards it
)

aggregate_hosts = Table(
    "aggregate_hosts",
    metadata,
    Column("aggregate_id", Integer, ForeignKey("aggregates.id"), primary_key=True),
    Column("host", Name, primary_key=True),
)
Index("ix_aggregate_hosts_host", aggregate_hosts.c.host)

# Limits that an administrator has set for a project, or for one user in it; what is not here has its default
# (``nova.quotas``).
quota_limits = Table(
    "quota_limits",
    metadata,
    Column("project_id", Id, primary_key=True),
    Column("user_id", Id, primary_key=True, default=""),  # '': the whole project's
    Column("resource", String(64), primary_key=True),
    Column("hard_limit", Integer, nullable=False),  # -1: none
)

# Limits by class; those of the class 'default' are every project's where nothing else is set.
quota_class_limits = Table(
    "quota_class_limits",
    metadata,
    Column("class_name", Name, primary_key=True),
    Column("resource", String(64), primary_key=True),
    Column("hard_limit", Integer, nullable=False),
)

# One row per project that has made servers, and per user that has made key pairs: whoever makes more changes it
# before they count, so that two requests at once cannot both take the last of a quota.
quota_guards = Table(
    "quota_guards",
    metadata,
    Column("project_id", Id, primary_key=True),
    Column("generation", Integer, nullable=False, default=1),
)
