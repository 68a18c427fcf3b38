"""The kernel's own tables, and the one ``metadata`` that every project's tables join.

Text is bounded, since MariaDB indexes only bounded text; times are ``core.clock`` text.
"""

from sqlalchemy import JSON, Boolean, Column, Index, MetaData, String, Table, Text

from cumulet.core import clock

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

Id = String(64)
Name = String(255)
Time = String(clock.LENGTH)

# Who is alive: one row per running service, written by that service (agents: through their controller).
agents = Table(
    "agents",
    metadata,
    Column("id", Id, primary_key=True),  # stable: a name-based UUID of binary and host
    Column("binary", Name, nullable=False),  # the service's name on the map
    Column("host", Name, nullable=False),
    Column("created_at", Time, nullable=False),
    Column("started_at", Time, nullable=False),
    Column("seen_at", Time, nullable=False),  # the last heartbeat
    Column("enabled", Boolean, nullable=False, default=True),  # written by the API (an operator's wish)
    Column("disabled_reason", Name),
    Column("forced_down", Boolean, nullable=False, default=False),  # likewise: it counts as dead, whatever it says
    Column("details", JSON, nullable=False, default=dict),  # capabilities
    Column("loops", JSON, nullable=False, default=list),  # core.reconcile.LoopStatus of each of its loops
)
Index("uq_agents_binary_host", agents.c.binary, agents.c.host, unique=True)

# The transactional outbox: notifications in upstream's format, written with the change they tell of.
notifications = Table(
    "notifications",
    metadata,
    Column("id", Id, primary_key=True),  # the message id: a consumer drops what it has seen
    Column("created_at", Time, nullable=False, index=True),
    Column("publisher_id", Name, nullable=False),
    Column("event_type", Name, nullable=False),
    Column("request_id", Id, nullable=False),
    Column("context", JSON, nullable=False),
    Column("payload", JSON, nullable=False),
    Column("relayed_at", Time),  # written by the relay; null where there is no broker
    Column("claim", Id),  # until when it is one relay's, and which one's: a time and a UUID
)
Index("ix_notifications_untold", notifications.c.relayed_at, notifications.c.created_at)

# Invitations of nodes: each is good once, for one name.  Written by ``cumulet node token`` and by who takes them.
join_tokens = Table(
    "join_tokens",
    metadata,
    Column("id", Id, primary_key=True),
    Column("node", Name, nullable=False),
    Column("expires_at", Time, nullable=False),
    Column("used_at", Time),
)

# Requests that somebody traces over all nodes: written by ``cumulet trace``, answered by hosts, kept for an hour.
traces = Table(
    "traces",
    metadata,
    Column("request_id", Id, primary_key=True),
    Column("asked_at", Time, nullable=False),
)
trace_answers = Table(
    "trace_answers",
    metadata,
    Column("request_id", Id, primary_key=True),
    Column("host", Name, primary_key=True),
    Column("answered_at", Time, nullable=False),
    Column("moments", JSON, nullable=False),  # core.moments.Moment
)

# Small facts of the whole cloud that must be agreed on, e.g. when the schema was made.
facts = Table(
    "facts",
    metadata,
    Column("name", Name, primary_key=True),
    Column("value", Text, nullable=False),
)

# When a group of tables changed: another random text from each commit that did it.  Written by ``core.db``.
stamps = Table(
    "stamps",
    metadata,
    Column("name", Name, primary_key=True),
    Column("value", String(32), nullable=False),
)
