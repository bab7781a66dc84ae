"""Tables of accounts: users, their sessions, API tokens. Passwords are argon2 hashes, tokens SHA-256. Times ns UTC."""

import sqlalchemy as sa

from godwit.server.storage.tables import metadata

users = sa.Table(
    "users",
    metadata,
    sa.Column("name", sa.String(128), primary_key=True),
    sa.Column("display", sa.String(128), nullable=False),
    sa.Column("email", sa.String(256), nullable=False),
    sa.Column("password", sa.String(256)),  # None: signs in elsewhere (OIDC)
    sa.Column("must_change", sa.Boolean, nullable=False),
    # subject at its issuer, where it signs in by OIDC
    sa.Column("issuer", sa.String(256)),
    sa.Column("subject", sa.String(256)),
    # {"*": role} for all tenants, else {tenant: role}
    sa.Column("grants", sa.JSON, nullable=False),
    sa.Column("is_disabled", sa.Boolean, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("last_sign_in", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("issuer", "subject", name="users_by_subject"),
)

sessions = sa.Table(
    "sessions",
    metadata,
    sa.Column("digest", sa.String(64), primary_key=True),
    sa.Column("user", sa.String(128), nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("seen", sa.BigInteger, nullable=False),
    sa.Column("expires", sa.BigInteger, nullable=False),
    sa.Column("address", sa.String(64), nullable=False),
    sa.Column("agent", sa.String(256), nullable=False),
    # one sign-in: its secret is changed now and then, and the former ones are kept to know a thief by
    sa.Column("family", sa.String(32), nullable=False),
    sa.Column("replaced", sa.BigInteger, nullable=False),  # 0: this secret is in use
    sa.Index("sessions_by_user", "user"),
    sa.Index("sessions_by_family", "family"),
)

api_tokens = sa.Table(
    "api_tokens",
    metadata,
    sa.Column("token_id", sa.String(32), primary_key=True),
    sa.Column("digest", sa.String(64), nullable=False, unique=True),
    sa.Column("owner", sa.String(128), nullable=False),
    sa.Column("name", sa.String(128), nullable=False),
    # like a user's, never more than its owner has
    sa.Column("grants", sa.JSON, nullable=False),
    # of accounts.model.SCOPES; empty: all that its role has
    sa.Column("scopes", sa.JSON, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("expires", sa.BigInteger, nullable=False),  # 0: never
    sa.Column("revoked", sa.BigInteger, nullable=False),  # 0: not
    sa.Column("last_used", sa.BigInteger, nullable=False),
    sa.Index("api_tokens_by_owner", "owner"),
)
