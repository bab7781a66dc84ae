"""Tables of identity: authorities, certificates, claims, credentials, rules, campaigns.

Times are ns UTC. Fingerprints are SHA-256 of the DER, lower-case hexadecimal. What is secret is encrypted
(`identity.vault`) or only its hash is kept.
"""

import sqlalchemy as sa

from godwit.server.storage.tables import metadata

_NO = sa.BigInteger().with_variant(sa.Integer, "sqlite")

authorities = sa.Table(
    "authorities",
    metadata,
    sa.Column("fingerprint", sa.String(64), primary_key=True),
    sa.Column("name", sa.String(128), nullable=False),
    # None: the installation's own; else the one tenant whose devices it may name
    sa.Column("tenant", sa.String(64), sa.ForeignKey("tenants.name")),
    # root, issuing (ours), factory (devices come with its certificates), customer (issues for us or beside us)
    sa.Column("kind", sa.String(16), nullable=False),
    # next, active, retiring, retired
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("certificate", sa.Text, nullable=False),
    sa.Column("subject", sa.String(512), nullable=False),
    sa.Column("key_identifier", sa.String(64), nullable=False),
    sa.Column("issuer", sa.String(64)),  # fingerprint of the authority above, if we know it
    sa.Column("key", sa.LargeBinary),  # sealed PKCS#8; None: not here
    sa.Column("not_before", sa.BigInteger, nullable=False),
    sa.Column("not_after", sa.BigInteger, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
    # whose ids it may name, whether devices register just in time, into which group ...: identity.model.AuthorityTerms
    sa.Column("terms", sa.JSON, nullable=False),
    sa.Index("authorities_by_tenant", "tenant"),
)

certificates = sa.Table(
    "certificates",
    metadata,
    sa.Column("fingerprint", sa.String(64), primary_key=True),
    sa.Column("device_id", sa.String(64), nullable=False),
    sa.Column("tenant", sa.String(64), nullable=False),
    sa.Column("authority", sa.String(64), nullable=False),
    sa.Column("serial", sa.String(64), nullable=False),  # hexadecimal
    sa.Column("key_fingerprint", sa.String(64), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),  # pending, active, superseded, revoked
    sa.Column("source", sa.String(16), nullable=False),  # operator, batch, claim, renewal, est, scep, factory, api ...
    sa.Column("certificate", sa.Text, nullable=False),
    sa.Column("not_before", sa.BigInteger, nullable=False),
    sa.Column("not_after", sa.BigInteger, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("first_seen", sa.BigInteger, nullable=False),  # 0: never connected with
    sa.Column("revoked", sa.BigInteger, nullable=False),  # 0: not
    sa.Column("reason", sa.String(32), nullable=False),  # RFC 5280 5.3.1, camelCase
    sa.Index("certificates_by_device", "device_id", "created"),
    sa.Index("certificates_by_serial", "authority", "serial", unique=True),
    sa.Index("certificates_by_key", "key_fingerprint"),
    sa.Index("certificates_by_end", "not_after"),
    sa.Index("certificates_by_tenant", "tenant", "fingerprint"),
)

claims = sa.Table(
    "claims",
    metadata,
    sa.Column("claim_id", sa.String(32), primary_key=True),
    sa.Column("digest", sa.String(64), nullable=False, unique=True),  # SHA-256 of a random token of 256 bits
    sa.Column("tenant", sa.String(64), sa.ForeignKey("tenants.name"), nullable=False),
    sa.Column("name", sa.String(128), nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),  # one-time, fleet
    sa.Column("device_id", sa.String(64)),  # the only id that it is good for
    sa.Column("state", sa.String(16), nullable=False),  # open, bound, spent, revoked
    sa.Column("key_fingerprint", sa.String(64)),  # of the first request
    sa.Column("uses", sa.Integer, nullable=False),
    sa.Column("uses_max", sa.Integer),
    sa.Column("expires", sa.BigInteger, nullable=False),  # 0: never
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("created_by", sa.String(128), nullable=False),
    sa.Column("ids", sa.JSON, nullable=False),  # patterns of the ids that it is good for
    sa.Column("landing", sa.JSON, nullable=False),  # identity.model.Landing
    sa.Index("claims_by_tenant", "tenant", "created"),
    sa.Index("claims_by_key", "key_fingerprint"),
)

enrollment_rules = sa.Table(
    "enrollment_rules",
    metadata,
    sa.Column("tenant", sa.String(64), sa.ForeignKey("tenants.name"), primary_key=True),
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("document", sa.JSON, nullable=False),  # identity.model.EnrollmentRule
)

device_configurations = sa.Table(
    "device_configurations",
    metadata,
    sa.Column("device_id", sa.String(64), primary_key=True),
    sa.Column("document", sa.JSON, nullable=False),  # its first configuration, until the twin takes over
    sa.Column("created", sa.BigInteger, nullable=False),
)

device_grants = sa.Table(  # OAuth 2.0 device grants (RFC 8628), for as long as they last
    "device_grants",
    metadata,
    sa.Column("grant_id", sa.String(32), primary_key=True),
    sa.Column("device_digest", sa.String(64), nullable=False, unique=True),  # SHA-256 of the device code
    sa.Column("user_digest", sa.String(64), nullable=False, unique=True),  # of the user code
    sa.Column("device_id", sa.String(64), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),  # waiting, approved, denied, given
    sa.Column("tenant", sa.String(64)),  # whoever approved it chose
    sa.Column("groups", sa.JSON, nullable=False),
    sa.Column("decided_by", sa.String(128), nullable=False),
    sa.Column("address", sa.String(64), nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("expires", sa.BigInteger, nullable=False),
    sa.Column("interval", sa.Integer, nullable=False),  # s between two polls
    sa.Column("polled", sa.BigInteger, nullable=False),
)

# Who reads SCEP requests and signs the answers: RSA, certified by an issuing authority of ours.
registrars = sa.Table(
    "registrars",
    metadata,
    sa.Column("fingerprint", sa.String(64), primary_key=True),
    sa.Column("authority", sa.String(64), nullable=False),
    sa.Column("serial", sa.String(64), nullable=False),  # hexadecimal
    sa.Column("certificate", sa.Text, nullable=False),
    sa.Column("key", sa.LargeBinary, nullable=False),  # sealed PKCS#8
    sa.Column("not_after", sa.BigInteger, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
)

device_tokens = sa.Table(
    "device_tokens",
    metadata,
    sa.Column("token_id", sa.String(32), primary_key=True),
    sa.Column("digest", sa.String(64), nullable=False, unique=True),
    sa.Column("device_id", sa.String(64), nullable=False),
    sa.Column("tenant", sa.String(64), nullable=False),
    sa.Column("name", sa.String(128), nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("created_by", sa.String(128), nullable=False),
    sa.Column("expires", sa.BigInteger, nullable=False),  # 0: never
    sa.Column("revoked", sa.BigInteger, nullable=False),  # 0: not
    sa.Column("last_used", sa.BigInteger, nullable=False),
    sa.Index("device_tokens_by_device", "device_id"),
)

device_keys = sa.Table(
    "device_keys",
    metadata,
    sa.Column("key_id", sa.String(64), primary_key=True),  # SHA-256 of its SubjectPublicKeyInfo
    sa.Column("device_id", sa.String(64), primary_key=True),
    sa.Column("tenant", sa.String(64), nullable=False),
    sa.Column("purpose", sa.String(16), primary_key=True),  # jwt, sign, agree
    sa.Column("public", sa.Text, nullable=False),  # PEM
    sa.Column("secret", sa.LargeBinary),  # sealed: our half of an agreement, if any
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("retired", sa.BigInteger, nullable=False),  # 0: in use
    sa.Column("removed", sa.BigInteger, nullable=False, default=0, server_default="0"),  # by an operator; 0: it is not
    sa.Index("device_keys_by_device", "device_id", "purpose"),
)

platform_keys = sa.Table(
    "platform_keys",
    metadata,
    sa.Column("key_id", sa.String(64), primary_key=True),  # SHA-256 of its SubjectPublicKeyInfo
    sa.Column("tenant", sa.String(64), sa.ForeignKey("tenants.name"), nullable=False),
    sa.Column("purpose", sa.String(16), nullable=False),  # sign, agree: ours, for messages end to end
    sa.Column("public", sa.Text, nullable=False),  # PEM
    sa.Column("secret", sa.LargeBinary),  # sealed PKCS#8; NULL: it has ended, and opens nothing any more
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("retired", sa.BigInteger, nullable=False),  # 0: in use
    sa.Column("ended", sa.BigInteger, nullable=False, default=0, server_default="0"),  # 0: it opens what comes late
    sa.Column("removed", sa.BigInteger, nullable=False, default=0, server_default="0"),  # by an operator; 0: it is not
    sa.Index("platform_keys_by_tenant", "tenant", "purpose"),
)

held_keys = sa.Table(  # which of our keys a device encrypts to, as far as we know
    "held_keys",
    metadata,
    sa.Column("device_id", sa.String(64), primary_key=True),
    sa.Column("tenant", sa.String(64), nullable=False),
    sa.Column("key_id", sa.String(64), nullable=False),
    sa.Column("since", sa.BigInteger, nullable=False),
    sa.Index("held_keys_by_key", "key_id"),
)

campaigns = sa.Table(
    "campaigns",
    metadata,
    sa.Column("campaign_id", _NO, primary_key=True, autoincrement=True),
    sa.Column("kind", sa.String(16), nullable=False),  # intermediate, root
    sa.Column("state", sa.String(16), nullable=False),  # running, paused, finished, cancelled
    sa.Column("old", sa.String(64), nullable=False),  # authorities
    sa.Column("new", sa.String(64), nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("created_by", sa.String(128), nullable=False),
    sa.Column("finished", sa.BigInteger, nullable=False),
    sa.Column("terms", sa.JSON, nullable=False),
)

campaign_devices = sa.Table(
    "campaign_devices",
    metadata,
    sa.Column("campaign_id", _NO, sa.ForeignKey("campaigns.campaign_id", ondelete="CASCADE"), primary_key=True),
    sa.Column("device_id", sa.String(64), primary_key=True),
    sa.Column("state", sa.String(16), nullable=False),  # waiting, told, trusted, renewed, failed, gone
    sa.Column("detail", sa.String(256), nullable=False),
    sa.Column("changed", sa.BigInteger, nullable=False),
    sa.Index("campaign_devices_by_state", "campaign_id", "state"),
)
