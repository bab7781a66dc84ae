"""Server redirect (MQTT 5, 4.11): clients are told which other server to use, for a while or for good."""

from typing import Final

import msgspec

from godwit.contract.errors import RejectedError
from godwit.mqtt import reasons

REFERENCE_CHARACTERS_MAX: Final = 1_024


class Redirect(msgspec.Struct, frozen=True):
    """Where clients are sent. `server_reference` is host:port, or several of them with spaces between."""

    server_reference: str
    is_permanent: bool = False

    @property
    def reason_code(self) -> int:
        """0x9D when it is for good, else 0x9C. 3.1.1 knows neither and is told that the server is unavailable."""
        return reasons.SERVER_MOVED if self.is_permanent else reasons.USE_ANOTHER_SERVER

    @property
    def text(self) -> str:
        """The reason string."""
        return f"{'from now on' if self.is_permanent else 'for now'} use {self.server_reference}"


def redirect_to(server_reference: str, *, is_permanent: bool) -> Redirect:
    """Return a redirect. Raises RejectedError (`invalid-server-reference`) where clients could not read it."""
    if not server_reference.strip() or not server_reference.isprintable():
        raise RejectedError(
            f"{server_reference[:64]!r} is no server reference: host:port is, such as mqtt2.example.com:8883",
            code="invalid-server-reference",
        )
    if len(server_reference) > REFERENCE_CHARACTERS_MAX:
        raise RejectedError(
            f"a server reference has at most {REFERENCE_CHARACTERS_MAX} characters", code="invalid-server-reference"
        )
    return Redirect(server_reference, is_permanent)
