"""Which credentials open the doors of devices, by the settings. All doors are told by `switches_of`. Pure."""

import msgspec

from godwit.contract.credentials import AUDIENCE
from godwit.server.settings import Settings


class Switches(msgspec.Struct, frozen=True):
    """Which credentials count (settings)."""

    certificates: bool = True
    tokens: bool = True
    jwt: bool = True
    grace_days: int = 0
    """For so long a certificate of ours that has ended opens its own renewal."""
    audiences: tuple[str, ...] = (AUDIENCE,)
    """One of these a device says as `aud` of a JWT."""


def switches_of(settings: Settings) -> Switches:
    """Return what the settings say."""
    return Switches(
        settings.device_certificates,
        settings.device_tokens,
        settings.device_jwt,
        settings.renewal_grace_days,
        tuple(each.strip() for each in settings.jwt_audience.split(",") if each.strip()) or (AUDIENCE,),
    )
