"""Bundles: the files that a device needs to connect, and archives of them. Pure."""

import zipfile
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

CERTIFICATE: Final = "device.crt"
KEY: Final = "device.key"
AUTHORITY: Final = "ca.crt"
CONFIG: Final = "config.json"
_SECRET_MODE: Final = 0o600
_MODE: Final = 0o644
_LONG_AGO: Final = (1980, 1, 1, 0, 0, 0)


class BundleConfig(msgspec.Struct, frozen=True, rename="camel"):
    """What a bundle's `config.json` says: who the device is, and where the platform is."""

    device_id: str
    tenant: str
    host: str
    mqtts_port: int
    https_port: int
    not_after: str


def files_of(
    certificate: str, chain: Iterable[str], authorities: Iterable[str], config: BundleConfig, key: str | None
) -> dict[str, bytes]:
    """Return a bundle's files. Without `key`, whoever asked has it."""
    files = {
        CERTIFICATE: "".join([certificate, *chain]).encode(),
        AUTHORITY: "".join(authorities).encode(),
        CONFIG: msgspec.json.format(msgspec.json.encode(config), indent=2) + b"\n",
    }
    if key is not None:
        files[KEY] = key.encode()
    return files


def mode_of(name: str) -> int:
    """Return who may read a file of a bundle: its key only the owner."""
    return _SECRET_MODE if name.endswith(KEY) else _MODE


class _Pipe:
    """Where a zip is written to that is sent while it grows: nobody can go back in it."""

    def __init__(self) -> None:
        self._held = bytearray()

    def write(self, data: Any, /) -> int:
        """Hold some bytes."""
        self._held += data
        return len(data)

    def flush(self) -> None:
        """Do nothing: what is held is taken."""

    def close(self) -> None:
        """Do nothing: a zip that nobody has finished may be forgotten at any time."""

    def take(self) -> bytes:
        """Return what was written since the last time."""
        taken, self._held = bytes(self._held), bytearray()
        return taken


class Archive:
    """A zip of bundles that is made piece by piece, each device's files in a directory of its name (`:` as `%3A`)."""

    def __init__(self) -> None:
        self._pipe = _Pipe()
        self._zip = zipfile.ZipFile(self._pipe, "w", zipfile.ZIP_DEFLATED, compresslevel=1)

    def add(self, device_id: str, files: Mapping[str, bytes]) -> None:
        """Add a bundle; files of no device stand at the top."""
        directory = f"{directory_of(device_id)}/" if device_id else ""
        for name, content in files.items():
            entry = zipfile.ZipInfo(f"{directory}{name}", _LONG_AGO)
            entry.external_attr = mode_of(name) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            self._zip.writestr(entry, content)

    def take(self) -> bytes:
        """Return what it grew by."""
        return self._pipe.take()

    def close(self) -> bytes:
        """Return its end."""
        self._zip.close()
        return self._pipe.take()


def archive(bundles: Mapping[str, Mapping[str, bytes]]) -> bytes:
    """Return a zip of bundles."""
    made = Archive()
    for device_id, files in bundles.items():
        made.add(device_id, files)
    return made.close()


def directory_of(device_id: str) -> str:
    """Return the name of a device's directory: one that every file system takes."""
    return device_id.replace(":", "%3A")
