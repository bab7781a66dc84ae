"""Labels: what a person who installs a device needs of its claim, as this installation says it."""

from godwit.contract.join_link import JoinLink
from godwit.server.identity.model import Claim
from godwit.server.identity.room import Identity
from godwit.server.settings import Settings


def link_of(settings: Settings, identity: Identity, claim: Claim, token: str) -> JoinLink:
    """Return the link of a claim. Raises RejectedError (`no-authority`)."""
    issuing = identity.authorities.signer().authority
    root = identity.authorities.root_of(issuing) or issuing
    return JoinLink(
        identity.server.host,
        settings.mqtts_port,
        settings.device_port,
        token,
        root.fingerprint,
        str(claim.device_id or ""),
    )
