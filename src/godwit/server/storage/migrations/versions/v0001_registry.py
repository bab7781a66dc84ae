"""The registry as it began: tenants, types, devices with presence, tags, groups, audit."""

from alembic import op

from godwit.server.storage.tables import metadata

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the tables."""
    metadata.create_all(op.get_bind())


def downgrade() -> None:
    """Drop the tables."""
    metadata.drop_all(op.get_bind())
