"""Twin documents: what the owner wants, what the device reports, and what they differ in."""

from typing import Any

import msgspec


class TwinDocument(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A whole or partial twin state with its version."""

    state: dict[str, Any]
    version: int = 0
    timestamp: str | None = None
