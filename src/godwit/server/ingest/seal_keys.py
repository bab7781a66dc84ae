"""What the road knows of keys and policies, from identity and registry; and what it refused, for the audit log."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final, TypeVar

from godwit.contract.errors import UnavailableError
from godwit.contract.ids import DeviceId
from godwit.server.identity.message_keys import MessageKeys
from godwit.server.identity.model import Change, DeviceKey, PlatformKey
from godwit.server.identity.news import News
from godwit.server.ingest.directory import Directory
from godwit.server.ingest.seals import Seals
from godwit.server.registry.model import Device, DeviceType
from godwit.server.registry.policies import Policies
from godwit.server.registry.service import Registry
from godwit.server.storage.audit import record
from godwit.server.storage.database import Database

Soon = Callable[..., None]
"""Has the broker loop call something; from any thread."""
WHO: Final = "godwit"
K = TypeVar("K")
V = TypeVar("V")


class SealKeys:
    """Keeps keys and policies of the hot path as they are in the database."""

    def __init__(self, directory: Directory, seals: Seals, message_keys: MessageKeys) -> None:
        self._directory, self._seals, self._keys = directory, seals, message_keys

    def load(self, policies: Policies) -> None:
        """Take up what is there, before any message comes, and before the directory learns its devices."""
        for policy in policies.load():
            self._directory.learn(policy)
        for device_id, name in self._keys.held().items():
            self._seals.hold(device_id, name)
        for device_key in self._keys.load():
            self._seals.learn(device_key)
        for key in self._keys.load_ours():
            self._seals.learn(key, None if key.ended else self._keys.private(key.key_id))

    def follow(self, news: News, registry: Registry, soon: Soon) -> None:
        """Follow what changes; the keys of an erased device go with it, so that none of its name inherits them."""
        news.on_change(partial(self._follow, soon))
        self._keys.on_held = partial(soon, self._seals.hold)
        registry.policies.on_change(lambda policy: soon(self._directory.learn, policy))
        registry.on_change(self._erase)

    def _erase(self, changed: Device | DeviceType | DeviceId) -> None:
        if isinstance(changed, str):
            self._keys.erase(DeviceId(changed))

    def _follow(self, soon: Soon, changed: Change) -> None:
        if isinstance(changed, PlatformKey):
            soon(self._seals.learn, changed, None if changed.ended else self._keys.private(changed.key_id))
        elif isinstance(changed, DeviceKey):
            soon(self._seals.learn, changed)

    def write(self) -> None:
        """Write down which keys have come into use since the last time: of devices, and of ours. Blocks.

        What cannot be written down now is kept for the next time: a device does not say it again.
        """
        with _taken(self._seals.used) as used:
            self._keys.confirm(used)
        with _taken(self._seals.newly_held) as held:
            self._keys.hold((DeviceId(device_id), tenant, name) for device_id, (tenant, name) in held.items())

    def audit(self, database: Database) -> None:
        """Tell the audit log what was refused since the last time: a line for each device and reason. Blocks."""
        if not self._seals.refused:
            return
        with _taken(self._seals.refused) as refused, database.write() as connection:
            for (device_id, code), each in refused.items():
                record(
                    connection, WHO, "message.refuse", device_id, tenant=each.tenant,
                    after={"code": code, "detail": each.detail, "messages": each.count, "client": each.client_id[:64]},
                )  # fmt: skip


@contextmanager
def _taken(waiting: dict[K, V]) -> Iterator[dict[K, V]]:
    """Yield what the broker loop has left to be written down, which goes on to add to it; back where it could not be.

    One by one, since nothing of the loop's comes in between within one step.
    """
    taken: dict[K, V] = {}
    while waiting:
        key, value = waiting.popitem()
        taken[key] = value
    try:
        yield taken
    except UnavailableError:
        for key, value in taken.items():
            waiting.setdefault(key, value)
        raise
