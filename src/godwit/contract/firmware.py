"""Firmware messages: an offer, and how an update gets on."""

import msgspec


class FirmwareOffer(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A release that a device should install. The manifest is signed; this only points to it."""

    release_id: str
    version: str
    manifest_url: str
    size: int = 0


class FirmwareProgress(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """How an update gets on: downloading, verifying, installing, trial, committed, rolledBack, failed."""

    release_id: str
    state: str
    progress: float | None = None
    code: str | None = None
    message: str | None = None
