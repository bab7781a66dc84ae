"""Tokens that an OIDC provider signs: whether they are its word, for us, and now. Pure: keys and time are given."""

from typing import Any, Final

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from godwit.contract.errors import RejectedError

ALGORITHMS: Final = ["RS256", "PS256", "ES256", "ES384", "EdDSA"]
"""Signatures that are taken. Never `none`, and nothing with a shared key."""
LEEWAY_S: Final = 60
LOGOUT_S_MAX: Final = 300
LOGOUT_EVENT: Final = "http://schemas.openid.net/event/backchannel-logout"


def read_id_token(token: str, keys: KeySet, issuer: str, client_id: str, *, nonce: str, now: int) -> dict[str, Any]:
    """Return the claims of an ID token (OpenID Connect Core 1.0, 3.1.3.7). Raises RejectedError (`oidc-invalid`)."""
    claims = _read(
        token, keys, issuer, client_id, now, exp={"essential": True}, nonce={"essential": True, "value": nonce}
    )
    audience = claims["aud"]
    is_of_many = isinstance(audience, list) and len(audience) > 1
    if (is_of_many or "azp" in claims) and claims.get("azp") != client_id:
        raise RejectedError("the provider's ID token is for somebody else", code="oidc-invalid")
    return claims


def read_logout_token(token: str, keys: KeySet, issuer: str, client_id: str, *, now: int) -> dict[str, Any]:
    """Return the claims of a logout token (Back-Channel Logout 1.0, 2.6). Raises RejectedError (`oidc-invalid`)."""
    claims = _read(token, keys, issuer, client_id, now)
    events = claims.get("events")
    if not isinstance(events, dict) or not isinstance(events.get(LOGOUT_EVENT), dict) or "nonce" in claims:
        raise RejectedError("this is no logout token", code="oidc-invalid")
    if abs(now - float(claims["iat"])) > LOGOUT_S_MAX:
        raise RejectedError("this logout token is old", code="oidc-invalid")
    return claims


def _read(token: str, keys: KeySet, issuer: str, client_id: str, now: int, **required: Any) -> dict[str, Any]:
    registry = jwt.JWTClaimsRegistry(
        now=now,
        leeway=LEEWAY_S,
        iss={"essential": True, "value": issuer},
        sub={"essential": True},
        aud={"essential": True, "value": client_id},
        iat={"essential": True},
        **required,
    )
    try:
        claims = jwt.decode(token, keys, algorithms=ALGORITHMS).claims
        registry.validate(claims)
    except (JoseError, ValueError) as error:
        raise RejectedError(f"the provider's token is not valid: {error}"[:200], code="oidc-invalid") from error
    return claims
