"""Identity and accounts: authorities, certificates, claims, credentials, users, tokens; the audit log knows tenants.

To be frozen (tables written out, as in 0001) by whoever writes 0003.
"""

import sqlalchemy as sa
from alembic import op

from godwit.server.storage import account_tables, identity_tables
from godwit.server.storage.tables import metadata

revision = "0002"
down_revision = "0001"

_TABLES = [
    each
    for room in (identity_tables, account_tables)
    for each in vars(room).values()
    if isinstance(each, sa.Table)
]  # fmt: skip


def upgrade() -> None:
    """Create the tables; add to those that are there."""
    with op.batch_alter_table("tenants") as tenants:
        tenants.add_column(sa.Column("policy", sa.JSON))
        tenants.add_column(sa.Column("quota", sa.JSON))
    with op.batch_alter_table("audit") as audit:
        audit.add_column(sa.Column("tenant", sa.String(64), nullable=False, server_default=""))
        audit.add_column(sa.Column("address", sa.String(64), nullable=False, server_default=""))
        audit.create_index("audit_by_tenant", ["tenant", "id"])
        audit.create_index("audit_by_about", ["about", "id"])
    metadata.create_all(op.get_bind(), tables=_TABLES)


def downgrade() -> None:
    """Drop what was added."""
    metadata.drop_all(op.get_bind(), tables=_TABLES)
    with op.batch_alter_table("audit") as audit:
        audit.drop_index("audit_by_tenant")
        audit.drop_index("audit_by_about")
        audit.drop_column("tenant")
        audit.drop_column("address")
    with op.batch_alter_table("tenants") as tenants:
        tenants.drop_column("policy")
        tenants.drop_column("quota")
