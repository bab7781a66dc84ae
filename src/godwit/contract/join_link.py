"""The link of a claim, as a QR code holds it: all that a new device has to know to get its certificate. Pure.

    godwit://iot.example.org:8883/join?https=8443&device=press-7&claim=gwc_...&ca=5f1d...

It holds the claim's token: who sees the code can enroll with it. `ca` is the SHA-256 of the platform's root.
"""

import re
from typing import Final, NamedTuple
from urllib.parse import parse_qs, quote, urlencode, urlsplit

from godwit.contract.errors import MalformedError
from godwit.contract.ids import parse_device_id

SCHEME: Final = "godwit"
LINK_CHARACTERS_MAX: Final = 1_024
_FINGERPRINT: Final = re.compile(r"[0-9a-f]{64}")
_CLAIM: Final = re.compile(r"gwc_[A-Za-z0-9_-]{16,128}")


class JoinLink(NamedTuple):
    """Where a device enrolls, with which claim, and whom it trusts. `device_id` empty: the claim is for any."""

    host: str
    mqtts_port: int
    https_port: int
    claim: str
    ca: str
    device_id: str = ""

    def text(self) -> str:
        """Return the link."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        named = {"https": str(self.https_port or ""), "device": self.device_id, "claim": self.claim, "ca": self.ca}
        query = urlencode({name: value for name, value in named.items() if value}, quote_via=quote, safe=":")
        return f"{SCHEME}://{host}:{self.mqtts_port}/join?{query}"


def read_join_link(text: str) -> JoinLink:
    """Return what a link says. Raises MalformedError (`invalid-link`, `invalid-device-id`)."""
    if len(text) > LINK_CHARACTERS_MAX:
        raise MalformedError("this link is too long", code="invalid-link")
    try:
        found = urlsplit(text.strip())
        port = found.port
        query = {name: values[-1] for name, values in parse_qs(found.query, strict_parsing=True).items()}
        https_port = int(query.get("https", "0"))
    except ValueError as error:
        raise MalformedError(f"this link cannot be read: {error}", code="invalid-link") from None
    if (
        found.scheme != SCHEME
        or found.path != "/join"
        or not found.hostname
        or not port
        or not 0 <= https_port < 65_536
    ):
        raise MalformedError("a link of a claim begins with godwit://host:port/join", code="invalid-link")
    link = JoinLink(
        found.hostname, port, https_port, query.get("claim", ""), query.get("ca", ""), query.get("device", "")
    )
    if _CLAIM.fullmatch(link.claim) is None or _FINGERPRINT.fullmatch(link.ca) is None:
        raise MalformedError("this link lacks its claim, or the fingerprint of whom to trust", code="invalid-link")
    if link.device_id:
        parse_device_id(link.device_id)
    return link
