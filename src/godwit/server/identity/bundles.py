"""Bundles: the files that a device needs to connect, and archives of them. Pure."""

import io
import zipfile
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

import msgspec

CERTIFICATE: Final = "device.crt"
KEY: Final = "device.key"
AUTHORITY: Final = "ca.crt"
CONFIG: Final = "config.json"
_SECRET_MODE: Final = 0o600
_MODE: Final = 0o644
_NOTHING: Final[Mapping[str, bytes]] = MappingProxyType({})
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


def archive(bundles: Mapping[str, Mapping[str, bytes]], beside: Mapping[str, bytes] = _NOTHING) -> bytes:
    """Return a zip of bundles, each in a directory of the device's name (a colon in it is written `%3A`)."""
    data = io.BytesIO()
    directories = {f"{directory_of(device_id)}/": files for device_id, files in bundles.items()}
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed:
        for directory, files in (directories | {"": beside}).items():
            for name, content in files.items():
                entry = zipfile.ZipInfo(f"{directory}{name}", _LONG_AGO)
                entry.external_attr = mode_of(name) << 16
                entry.compress_type = zipfile.ZIP_DEFLATED
                packed.writestr(entry, content)
    return data.getvalue()


def directory_of(device_id: str) -> str:
    """Return the name of a device's directory: one that every file system takes."""
    return device_id.replace(":", "%3A")
