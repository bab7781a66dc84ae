"""OAuth 2.0 device grant (RFC 8628): what a poll is answered, and what codes look like. Pure."""

from typing import Final

import msgspec

from godwit.server.identity.model import DeviceGrant, GrantState

GRANT_TYPE: Final = "urn:ietf:params:oauth:grant-type:device_code"
LIFETIME_S: Final = 600
INTERVAL_S: Final = 5
SLOWER_S: Final = 5
"""RFC 8628, 3.5: `slow_down` makes the interval so much longer, for this and all later requests."""
ALPHABET: Final = "BCDFGHJKLMNPQRSTVWXZ"
"""RFC 8628, 6.1: no vowels, so no words; upper case, and nothing that looks like something else."""
CODE_CHARACTERS: Final = 8
_NS: Final = 1_000_000_000


def poll(grant: DeviceGrant, now: int) -> tuple[DeviceGrant, str | None]:
    """Return the grant after a poll, and the error that answers it (RFC 8628, 3.5); None: it gets its token."""
    if now >= grant.expires:
        return grant, "expired_token"
    is_early = grant.polled and now - grant.polled < grant.interval * _NS
    polled = msgspec.structs.replace(grant, polled=now)
    if is_early:
        return msgspec.structs.replace(polled, interval=grant.interval + SLOWER_S), "slow_down"
    if grant.state is GrantState.WAITING:
        return polled, "authorization_pending"
    if grant.state is GrantState.DENIED:
        return polled, "access_denied"
    if grant.state is GrantState.GIVEN:
        return polled, "invalid_grant"
    return msgspec.structs.replace(polled, state=GrantState.GIVEN), None


def normal(user_code: str) -> str:
    """Return a user code as it is kept: what people put between the letters is left out."""
    return "".join(each for each in user_code.upper() if each in ALPHABET)[: CODE_CHARACTERS + 1]


def shown(user_code: str) -> str:
    """Return a user code as people read it: `WDJB-MJHT`."""
    return f"{user_code[:4]}-{user_code[4:]}"
