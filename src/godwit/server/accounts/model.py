"""Rows of accounts, and what a token may be made for. Pure."""

from typing import Final

import msgspec

_LOOK_AND_CHANGE: Final = (
    "account", "audit", "authorities", "broker", "campaigns", "certificates", "claims", "clocks",
    "device-grants", "devices", "enrollment-rules", "enrollments", "groups", "keys", "quarantine", "scopes", "security",
    "sessions", "stats", "telemetry", "tenants", "tokens", "types", "users",
)  # fmt: skip
SCOPES: Final = frozenset(
    {f"{noun}:{verb}" for noun in _LOOK_AND_CHANGE for verb in ("read", "write")}
    | {"metrics:read", "mqtt:subscribe", "mqtt:publish"}
)
"""What a token may be limited to. Nouns are those of the API's addresses; `write` does not include `read`."""

ADMINISTRATOR: Final = "admin"
"""The name of who has the token in DATA_DIR/admin-token; nobody else is called so."""


class User(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Somebody who signs in, by password or at an OIDC provider. Times in ns UTC."""

    name: str
    display: str = ""
    email: str = ""
    grants: dict[str, str] = {}
    has_password: bool = False
    must_change: bool = False
    issuer: str | None = None
    subject: str | None = None
    is_disabled: bool = False
    created: int = 0
    last_sign_in: int = 0


class Session(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A browser that is signed in. `session_id` names it and opens nothing."""

    session_id: str
    user: str
    created: int
    seen: int
    expires: int
    address: str
    agent: str


class ApiToken(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A program's way in, never more than its owner has. `expires` and `revoked` 0: never, not."""

    token_id: str
    owner: str
    name: str
    grants: dict[str, str]
    scopes: tuple[str, ...]
    created: int
    expires: int
    revoked: int
    last_used: int
