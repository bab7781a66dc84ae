"""New unclaimed devices reach the registry with the group that brought them, before anything of it is acknowledged."""

from time import time_ns

from godwit.contract.ids import DeviceId
from godwit.server.ingest.directory import Directory
from godwit.server.registry.door import RegistryDoor


class Registration:
    """A participant of the group commit."""

    def __init__(self, directory: Directory, registry: RegistryDoor) -> None:
        self._directory = directory
        self._registry = registry

    def seal(self) -> list[DeviceId] | None:
        """Hand over the devices that registered themselves."""
        devices, self._directory.unclaimed = self._directory.unclaimed, []
        return devices or None

    def write(self, work: object) -> None:
        """Insert them; those that exist are kept."""
        assert isinstance(work, list)
        self._registry.register_unclaimed(work, time_ns())
