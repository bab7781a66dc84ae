"""What the settings say of the OIDC provider. Apart from `oidc`, whose libraries few platforms need."""

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

import msgspec

from godwit.contract.errors import RejectedError
from godwit.server.accounts.principal import EVERYWHERE, ROLES

_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


class OidcSettings(msgspec.Struct, frozen=True):
    """Who the provider is, and what follows from what it says. See docs/accounts.md."""

    issuer: str
    client_id: str
    client_secret: str = ""
    name: str = "OIDC"
    claim: str = "groups"
    grants: Mapping[str, Mapping[str, str]] = {}
    """By value of the claim: the grants."""
    admit: Mapping[str, str] = {}
    """Grants of whom nobody knows; empty: he is refused."""
    session_s_max: int = 14_400
    """How long a session lasts before the provider is asked anew."""


def oidc_settings(
    issuer: str,
    client_id: str,
    client_secret: str,
    *,
    name: str,
    claim: str,
    grants: str,
    admit: str,
    session_s_max: int = 14_400,
) -> OidcSettings | None:
    """Return what the settings say; None without an issuer. Raises RejectedError (`invalid-setting`)."""
    if not issuer:
        return None
    if not client_id:
        raise RejectedError("OIDC_CLIENT_ID is needed beside OIDC_ISSUER", code="invalid-setting")
    check_url(issuer, "OIDC_ISSUER")
    by_value: dict[str, dict[str, str]] = {}
    for each in filter(None, (part.strip() for part in grants.split(","))):
        value, equals, grant = each.rpartition("=")
        if not equals:
            raise RejectedError("OIDC_GRANTS is such as staff=acme:operator,root=*:admin", code="invalid-setting")
        by_value.setdefault(value.strip(), {}).update(_grant(grant, "OIDC_GRANTS"))
    admitted = _grant(admit, "OIDC_ADMIT") if admit else {}
    return OidcSettings(issuer, client_id, client_secret, name, claim, by_value, admitted, session_s_max)


def _grant(text: str, variable: str) -> dict[str, str]:
    tenant, _, role = text.strip().rpartition(":")
    if role not in ROLES:
        raise RejectedError(f"{variable}: a role is one of {', '.join(ROLES)}, not {role!r}", code="invalid-setting")
    return {tenant.strip() or EVERYWHERE: role}


def check_url(url: str, what: str) -> str:
    """Return an address that may be spoken to. Raises RejectedError (`invalid-setting`) for plain http elsewhere."""
    parts = urlsplit(url)
    if parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        return url
    raise RejectedError(f"{what} is an https address, not {url[:100]!r}", code="invalid-setting")
