"""keystone's data.  Everything is written by keystone's API (and by ``public.bootstrap``), except where said.

A domain is a project with ``is_domain``, as in upstream's API, where every domain can also be shown as a project;
its ``domain_id`` is empty and its ``parent_id`` null, so the line of parents of any project ends at its domain.
"""

from sqlalchemy import JSON, BigInteger, Boolean, Column, ForeignKey, Index, Integer, String, Table, Text

from cumulet.core.stamps import mark
from cumulet.core.tables import Id, Name, Time, metadata

projects = Table(
    "projects",
    metadata,
    Column("id", Id, primary_key=True),
    Column("domain_id", Id, nullable=False),  # '' for a domain
    Column("parent_id", Id),  # a project or the domain; never changes; null for a domain
    Column("is_domain", Boolean, nullable=False, default=False),
    Column("name", Name, nullable=False),
    Column("description", Text, nullable=False, default=""),
    Column("enabled", Boolean, nullable=False, default=True),
    Column("options", JSON, nullable=False, default=dict),
    Column("extra", JSON, nullable=False, default=dict),  # attributes that only the client knows
    Column("created_at", Time, nullable=False),
)
Index("uq_projects_domain_name", projects.c.domain_id, projects.c.name, unique=True)
Index("ix_projects_parent", projects.c.parent_id)

project_tags = Table(
    "project_tags",
    metadata,
    Column("project_id", Id, ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True),
    Column("name", Name, primary_key=True),
)

users = Table(
    "users",
    metadata,
    Column("id", Id, primary_key=True),
    Column("domain_id", Id, ForeignKey("projects.id"), nullable=False),
    Column("name", Name, nullable=False),
    Column("enabled", Boolean, nullable=False, default=True),
    Column("default_project_id", Id),
    Column("password_hash", String(100)),  # null: nobody can log in with a password
    Column("options", JSON, nullable=False, default=dict),
    Column("extra", JSON, nullable=False, default=dict),  # email, description and what only the client knows
    # goes up when the password changes or the user is disabled: tokens made under another number are dead
    Column("token_revision", Integer, nullable=False, default=1),
    Column("created_at", Time, nullable=False),
)
Index("uq_users_domain_name", users.c.domain_id, users.c.name, unique=True)

groups = Table(
    "groups",
    metadata,
    Column("id", Id, primary_key=True),
    Column("domain_id", Id, ForeignKey("projects.id"), nullable=False),
    Column("name", Name, nullable=False),
    Column("description", Text, nullable=False, default=""),
    Column("extra", JSON, nullable=False, default=dict),
    Column("created_at", Time, nullable=False),
)
Index("uq_groups_domain_name", groups.c.domain_id, groups.c.name, unique=True)

group_members = Table(
    "group_members",
    metadata,
    Column("group_id", Id, ForeignKey("groups.id", ondelete="CASCADE"), primary_key=True),
    Column("user_id", Id, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
)
Index("ix_group_members_user", group_members.c.user_id)

roles = Table(
    "roles",
    metadata,
    Column("id", Id, primary_key=True),
    Column("domain_id", Id, nullable=False, default=""),  # '' for a role of the whole cloud
    Column("name", Name, nullable=False),
    Column("description", Text),
    Column("options", JSON, nullable=False, default=dict),
    Column("extra", JSON, nullable=False, default=dict),
    Column("created_at", Time, nullable=False),
)
Index("uq_roles_domain_name", roles.c.domain_id, roles.c.name, unique=True)

implied_roles = Table(
    "implied_roles",
    metadata,
    Column("prior_role_id", Id, ForeignKey("roles.id", ondelete="CASCADE"), primary_key=True),
    Column("implied_role_id", Id, ForeignKey("roles.id", ondelete="CASCADE"), primary_key=True),
)

# Who has which role where.  An inherited one holds in all projects below its target, not in the target.
assignments = Table(
    "assignments",
    metadata,
    Column("actor_type", String(8), primary_key=True),  # 'user', 'group'
    Column("actor_id", Id, primary_key=True),
    Column("target_type", String(8), primary_key=True),  # 'project', 'domain', 'system'
    Column("target_id", Id, primary_key=True),  # 'system' for the system
    Column("role_id", Id, ForeignKey("roles.id", ondelete="CASCADE"), primary_key=True),
    Column("inherited", Boolean, primary_key=True),
)
Index("ix_assignments_target", assignments.c.target_type, assignments.c.target_id)

regions = Table(
    "regions",
    metadata,
    Column("id", Name, primary_key=True),
    Column("parent_region_id", Name, ForeignKey("regions.id")),
    Column("description", Text, nullable=False, default=""),
    Column("extra", JSON, nullable=False, default=dict),
    Column("created_at", Time, nullable=False),
)

services = Table(
    "services",
    metadata,
    Column("id", Id, primary_key=True),
    Column("type", Name, nullable=False),
    Column("name", Name),
    Column("description", Text),
    Column("enabled", Boolean, nullable=False, default=True),
    Column("extra", JSON, nullable=False, default=dict),
    Column("created_at", Time, nullable=False),
)

endpoints = Table(
    "endpoints",
    metadata,
    Column("id", Id, primary_key=True),
    Column("service_id", Id, ForeignKey("services.id", ondelete="CASCADE"), nullable=False),
    Column("region_id", Name, ForeignKey("regions.id")),
    Column("interface", String(8), nullable=False),  # 'public', 'internal', 'admin'
    Column("url", Text, nullable=False),
    Column("enabled", Boolean, nullable=False, default=True),
    Column("extra", JSON, nullable=False, default=dict),
    Column("created_at", Time, nullable=False),
)

# How much of a service's resource everybody has by default.  Kept for the services; keystone enforces nothing.
registered_limits = Table(
    "registered_limits",
    metadata,
    Column("id", Id, primary_key=True),
    Column("service_id", Id, ForeignKey("services.id", ondelete="CASCADE"), nullable=False),
    Column("region_id", Name, nullable=False, default=""),  # '' for all regions
    Column("resource_name", Name, nullable=False),
    Column("default_limit", Integer, nullable=False),
    Column("description", Text),
    Column("created_at", Time, nullable=False),
)
Index(
    "uq_registered_limits_service_region_resource",
    registered_limits.c.service_id,
    registered_limits.c.region_id,
    registered_limits.c.resource_name,
    unique=True,
)

_DEFAULT = ForeignKey("registered_limits.id", ondelete="CASCADE")
# What one project or domain has instead.
limits = Table(
    "limits",
    metadata,
    Column("id", Id, primary_key=True),
    Column(
        "registered_limit_id",
        Id,
        ForeignKey("registered_limits.id", ondelete="CASCADE"),
        nullable=False,
        index=True,
    ),
    Column("project_id", Id, ForeignKey("projects.id", ondelete="CASCADE"), nullable=False),
    Column("resource_limit", Integer, nullable=False),
    Column("description", Text),
    Column("created_at", Time, nullable=False),
)
Index("uq_limits_project_registered", limits.c.project_id, limits.c.registered_limit_id, unique=True)

# What operators keep here for other programs; nothing in the cloud reads it.
stored_policies = Table(
    "stored_policies",
    metadata,
    Column("id", Id, primary_key=True),
    Column("type", Name, nullable=False),
    Column("blob", JSON, nullable=False),
    Column("extra", JSON, nullable=False, default=dict),
    Column("created_at", Time, nullable=False),
)

# Tokens that were given back.  Rows go when the token would have died anyway, so the table stays small.
revocations = Table(
    "revocations",
    metadata,
    Column("audit_id", String(32), primary_key=True),
    Column("expires_at", BigInteger, nullable=False, index=True),  # seconds since 1970
)

# By which an application acts for a user in one project, with some of the roles that the user has there.
application_credentials = Table(
    "application_credentials",
    metadata,
    Column("id", Id, primary_key=True),
    Column("user_id", Id, ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("project_id", Id, ForeignKey("projects.id", ondelete="CASCADE"), nullable=False),
    Column("name", Name, nullable=False),
    Column("description", Text),
    Column("secret_hash", String(100), nullable=False),
    Column("unrestricted", Boolean, nullable=False, default=False),
    Column("ruled", Boolean, nullable=False, default=False),  # good for its access rules only, even for none
    Column("expires_at", Time),
    Column("created_at", Time, nullable=False),
)
Index(
    "uq_application_credentials_user_name",
    application_credentials.c.user_id,
    application_credentials.c.name,
    unique=True,
)

application_credential_roles = Table(
    "application_credential_roles",
    metadata,
    Column("credential_id", Id, ForeignKey("application_credentials.id", ondelete="CASCADE"), primary_key=True),
    Column("role_id", Id, ForeignKey("roles.id", ondelete="CASCADE"), primary_key=True),
)

# What a user's application credentials may be bounded to; shared by those that name the same.
access_rules = Table(
    "access_rules",
    metadata,
    Column("id", Id, primary_key=True),
    Column("user_id", Id, ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("service", Name, nullable=False),
    Column("method", String(16), nullable=False),
    Column("path", String(128), nullable=False),
    Column("created_at", Time, nullable=False),
)
Index(
    "uq_access_rules_user_what",
    access_rules.c.user_id,
    access_rules.c.service,
    access_rules.c.method,
    access_rules.c.path,
    unique=True,
)

application_credential_rules = Table(
    "application_credential_rules",
    metadata,
    Column("credential_id", Id, ForeignKey("application_credentials.id", ondelete="CASCADE"), primary_key=True),
    Column("rule_id", Id, ForeignKey("access_rules.id", ondelete="CASCADE"), primary_key=True),
)

# By which one user (the trustor) lets another (the trustee) act with some of their roles in one project.
trusts = Table(
    "trusts",
    metadata,
    Column("id", Id, primary_key=True),
    Column("trustor_user_id", Id, ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("trustee_user_id", Id, ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("project_id", Id, ForeignKey("projects.id", ondelete="CASCADE"), nullable=False),
    Column("impersonation", Boolean, nullable=False),
    Column("expires_at", Time),
    Column("remaining_uses", Integer),  # logins; null: any number
    Column("extra", JSON, nullable=False, default=dict),
    Column("created_at", Time, nullable=False),
)

trust_roles = Table(
    "trust_roles",
    metadata,
    Column("trust_id", Id, ForeignKey("trusts.id", ondelete="CASCADE"), primary_key=True),
    Column("role_id", Id, ForeignKey("roles.id", ondelete="CASCADE"), primary_key=True),
)

# Secrets that users keep here, e.g. the keys of the EC2 API.
credentials = Table(
    "credentials",
    metadata,
    Column("id", Id, primary_key=True),  # of type 'ec2': the SHA-256 of the access key
    Column("user_id", Id, ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("project_id", Id),
    Column("type", Name, nullable=False),
    Column("sealed_blob", Text, nullable=False),  # encrypted with the keys in ``etc/credential-keys``
    Column("extra", JSON, nullable=False, default=dict),
    Column("created_at", Time, nullable=False),
)

STAMP = "identity"
"""Whatever a token stands on is here: what was remembered of one ends with any change."""
for _table in [one for one in globals().values() if isinstance(one, Table)]:
    mark(_table, STAMP)
