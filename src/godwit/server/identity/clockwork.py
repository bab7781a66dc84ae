"""What identity does by the clock: first uses are written down, rollovers go on, certificates and keys are renewed."""

import asyncio
import logging
from time import time_ns
from typing import Final

from godwit.contract.errors import UnavailableError
from godwit.server.identity.room import Identity

log = logging.getLogger(__name__)

TICK_S: Final = 0.5
LOOK_TICKS: Final = 10
"""How seldom the server's certificate is looked at."""
ROTATE_TICKS: Final = 60
"""How seldom our keys of messages are."""


async def run(identity: Identity) -> None:
    """Tick until cancelled. Whatever blocks goes to a thread."""
    ticks = 0
    while True:
        await asyncio.sleep(TICK_S)
        ticks += 1
        try:
            if identity.revocation.has_seen:
                await asyncio.to_thread(identity.revocation.flush)
            if ticks % LOOK_TICKS == 0 and identity.device_tokens.has_used:
                await asyncio.to_thread(identity.device_tokens.flush)
            if ticks % 2 == 0:
                await asyncio.to_thread(identity.campaigns.tick, time_ns())
            if ticks % ROTATE_TICKS == 1:
                await asyncio.to_thread(identity.key_rotation.tick, time_ns())
        except UnavailableError as error:  # kept for the next time
            log.warning("uses of certificates and tokens are not written down yet: %s", error)
        if ticks % LOOK_TICKS == 0:
            await identity.server.look()
