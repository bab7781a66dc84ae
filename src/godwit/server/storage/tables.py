"""Tables of the registry, for SQLite and PostgreSQL alike. Changed only together with a migration."""

import sqlalchemy as sa

metadata = sa.MetaData()

tenants = sa.Table(
    "tenants",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("created", sa.BigInteger, nullable=False),
    # what its messages must be (signed, encrypted): `registry.model.TenantPolicy`
    sa.Column("policy", sa.JSON),
    sa.Column("quota", sa.JSON),  # registry.model.TenantQuota
)

device_types = sa.Table(
    "device_types",
    metadata,
    sa.Column("tenant", sa.String(64), sa.ForeignKey("tenants.name"), primary_key=True),
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("document", sa.JSON, nullable=False),
)

devices = sa.Table(
    "devices",
    metadata,
    sa.Column("device_id", sa.String(64), primary_key=True),
    sa.Column("tenant", sa.String(64), sa.ForeignKey("tenants.name"), nullable=False),
    sa.Column("device_type", sa.String(64), nullable=False),
    sa.Column("name", sa.String(256), nullable=False),
    sa.Column("lifecycle", sa.String(16), nullable=False),
    sa.Column("place", sa.String(128), nullable=False),
    sa.Column("latitude", sa.Float),
    sa.Column("longitude", sa.Float),
    sa.Column("altitude", sa.Float),
    sa.Column("tags", sa.JSON, nullable=False),
    sa.Column("metadata", sa.JSON, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("updated", sa.BigInteger, nullable=False),
    # presence: written by housekeeping, ordered by its number
    sa.Column("online", sa.Boolean, nullable=False),
    sa.Column("since", sa.BigInteger, nullable=False),
    sa.Column("last_seen", sa.BigInteger, nullable=False),
    sa.Column("presence_number", sa.BigInteger, nullable=False),
    sa.Column("presence_reason", sa.String(128), nullable=False),
    sa.Column("status", sa.JSON),
    sa.Index("devices_by_tenant", "tenant", "device_id"),
    sa.Index("devices_by_created", "created", "device_id"),
    sa.Index("devices_by_last_seen", "last_seen", "device_id"),
    sa.Index("devices_by_type", "device_type", "device_id"),
    sa.Index("devices_by_name", "name", "device_id"),
    sa.Index("devices_by_online", "online", "device_id"),
)

device_tags = sa.Table(
    "device_tags",
    metadata,
    sa.Column("device_id", sa.String(64), sa.ForeignKey("devices.device_id", ondelete="CASCADE"), primary_key=True),
    sa.Column("key", sa.String(64), primary_key=True),
    sa.Column("value", sa.String(256), nullable=False),
    sa.Index("devices_by_tag", "key", "value", "device_id"),
)

groups = sa.Table(
    "groups",
    metadata,
    sa.Column("tenant", sa.String(64), sa.ForeignKey("tenants.name"), primary_key=True),
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("description", sa.String(1024), nullable=False),
)

group_members = sa.Table(
    "group_members",
    metadata,
    sa.Column("tenant", sa.String(64), primary_key=True),
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("device_id", sa.String(64), sa.ForeignKey("devices.device_id", ondelete="CASCADE"), primary_key=True),
    sa.ForeignKeyConstraint(["tenant", "name"], ["groups.tenant", "groups.name"], ondelete="CASCADE"),
    sa.Index("groups_by_device", "device_id"),
)

audit = sa.Table(
    "audit",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("who", sa.String(128), nullable=False),
    sa.Column("what", sa.String(64), nullable=False),
    sa.Column("about", sa.String(256), nullable=False),
    sa.Column("before", sa.JSON),
    sa.Column("after", sa.JSON),
    # whose change it was ("": the installation's), and from which address it came, where one is known
    sa.Column("tenant", sa.String(64), nullable=False, server_default=""),
    sa.Column("address", sa.String(64), nullable=False, server_default=""),
    sa.Index("audit_by_tenant", "tenant", "id"),
    sa.Index("audit_by_about", "about", "id"),
)
