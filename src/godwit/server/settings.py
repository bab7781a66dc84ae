"""Settings: what is in force, and where each value came from.

Each field is an environment variable and a line of `.env`, in upper case. Flags win over the environment, the
environment over `.env`, that over the default. An empty value means unset.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, get_type_hints
from urllib.parse import urlsplit, urlunsplit

import msgspec

from godwit.contract.credentials import AUDIENCE
from godwit.contract.errors import RejectedError

SECRETS: Final = frozenset({"mqtt_password", "database_url", "key_passphrase", "oidc_client_secret"})
_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})
_CHOICES: Final[dict[str, tuple[str, ...]]] = {
    "log_level": ("debug", "info", "warning", "error"),
    "mqtt_broker": ("embedded", "external"),
    "topic_layout": ("native", "placed"),
    "tls_minimum": ("1.2", "1.3"),
}
_PORTS: Final = frozenset({"server_port", "mqtt_port", "mqtts_port"})
_DAYS_MAX: Final = {"renewal_grace_days": 366}
_PORTS_OR_NONE: Final = frozenset({"mqtt_ws_port", "device_port"})


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What is in force. Sizes in bytes, times in seconds."""

    server_host: str = "127.0.0.1"
    server_port: int = 8080
    log_level: str = "info"
    mqtt_broker: str = "embedded"
    mqtt_host: str = "127.0.0.1"
    mqtt_port: int = 1883
    mqtts_port: int = 8883
    mqtt_ws_port: int = 9001
    mqtts_host: str = "0.0.0.0"  # noqa: S104 - TLS is the listener that a fleet reaches
    mqtt_client_id: str = "godwit"
    mqtt_keep_alive: int = 60
    mqtt_clean_session: bool = True
    mqtt_username: str = ""
    mqtt_password: str = ""
    mqtt_tls: bool = False
    mqtt_ca_file: str = ""
    mqtt_cert_file: str = ""
    mqtt_key_file: str = ""
    mqtt_share_group: str = ""
    mqtt_register_devices: bool = False
    bridges: str = ""
    local_listener: bool = True
    database_url: str = ""
    data_dir: Path = Path("godwit-data")
    topic_layout: str = "native"
    tls_certificate: str = ""
    tls_key: str = ""
    tls_minimum: str = "1.2"
    key_passphrase: str = ""
    key_passphrase_file: str = ""
    device_certificate_days: int = 90
    device_certificate_s: int = 0
    renewal_grace_days: int = 120
    device_certificates: bool = True
    device_tokens: bool = True
    device_jwt: bool = True
    jwt_audience: str = AUDIENCE
    device_host: str = "0.0.0.0"  # noqa: S104 - the HTTPS port of devices
    device_port: int = 8443
    public_host: str = ""
    console_url: str = ""
    oidc_issuer: str = ""
    oidc_client_id: str = ""
    oidc_client_secret: str = ""
    oidc_name: str = "OIDC"
    oidc_claim: str = "groups"
    oidc_grants: str = ""
    oidc_admit: str = ""
    oidc_session_s_max: int = 14_400
    session_idle_s: int = 7_200
    session_s_max: int = 43_200
    payload_bytes_max: int = 1_048_576
    disk_free_bytes_min: int = 536_870_912
    hot_rows_max: int = 5_000_000
    seal_after_s: int = 3_600
    store_memory: str = "512MB"
    query_memory: str = "512MB"
    workers: int = 0
    keep_alive_max: int = 3_600
    connections_max: int = 100_000
    tenant_connections_max: int = 0
    connects_per_s: int = 0
    client_messages_per_s: int = 0
    client_bytes_per_s: int = 0
    client_subscriptions_max: int = 1_000
    tenant_messages_per_s: int = 0
    tenant_bytes_per_s: int = 0
    total_messages_per_s: int = 0
    total_bytes_per_s: int = 0
    server_reference: str = ""
    server_moved: bool = False
    retained_bytes_max: int = 268_435_456
    tenant_retained_bytes_max: int = 0
    queued_bytes_max: int = 536_870_912
    quarantine_bytes_max: int = 1_073_741_824
    quarantine_device_bytes_max: int = 16_777_216
    clock_error_ms_max: int = 1_000


class Loaded(msgspec.Struct, frozen=True):
    """Settings, and the source of each field: `flag`, `environment`, the file's name, or `default`."""

    settings: Settings
    sources: dict[str, str]


def load(environ: Mapping[str, str], env_file: Path | None, flags: Mapping[str, str]) -> Loaded:
    """Return the settings in force. Raises RejectedError (`invalid-setting`) naming variable, value and source."""
    file_values = read_env_file(env_file) if env_file is not None else {}
    layers = (("flag", flags), ("environment", environ), (str(env_file), file_values))
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    kinds = get_type_hints(Settings)
    for field in Settings.__struct_fields__:
        variable = field.upper()
        sources[field] = "default"
        for source, layer in layers:
            text = str(layer.get(variable, "")).strip()
            if text:
                values[field] = _parse(variable, text, kinds[field], source)
                sources[field] = source
                break
    return Loaded(Settings(**values), sources)


def load_settings(flags: Mapping[str, str]) -> Settings:
    """Return the settings of this process: flags, environment, `.env` in the working directory."""
    env_file = Path(".env")
    return load(os.environ, env_file if env_file.is_file() else None, flags).settings


def read_env_file(path: Path) -> dict[str, str]:
    """Return the variables of a `.env` file: `NAME=value` lines, comments, quotes, an optional `export`."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RejectedError(f"{path} cannot be read: {error}", code="invalid-setting") from error
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        text = line.strip().removeprefix("export ")
        if not text or text.startswith("#"):
            continue
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise RejectedError(f"{path}, line {number}: NAME=value is expected", code="invalid-setting")
        found[name.strip()] = _unquote(value.strip())
    return found


def _unquote(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
        return value[1:-1]
    return value.split(" #", 1)[0].strip()


def _parse(variable: str, text: str, kind: Any, source: str) -> Any:
    def refuse(allowed: str) -> RejectedError:
        shown = "***" if variable.lower() in SECRETS else repr(text)
        return RejectedError(f"{variable}={shown} (from {source}): {allowed}", code="invalid-setting")

    field = variable.lower()
    if field in _CHOICES:
        if text.lower() not in _CHOICES[field]:
            raise refuse(f"one of {', '.join(_CHOICES[field])}")
        return text.lower()
    if kind is bool:
        if text.lower() not in _TRUE | _FALSE:
            raise refuse("true or false")
        return text.lower() in _TRUE
    if kind is int:
        return _whole_number(field, text, refuse)
    if kind is Path:
        return Path(text).expanduser()
    if field == "database_url":
        return _database_url(text, refuse)
    return text


def _whole_number(field: str, text: str, refuse: Callable[[str], RejectedError]) -> int:
    if not text.isascii() or not text.isdigit():
        raise refuse("a whole number")
    if field in _PORTS and not 0 < int(text) < 65_536:
        raise refuse("a port, 1 to 65535")
    if field in _PORTS_OR_NONE and int(text) > 65_535:
        raise refuse("a port, 1 to 65535, or 0 for none")
    if int(text) > _DAYS_MAX.get(field, int(text)):
        raise refuse(f"days, {_DAYS_MAX[field]} at most")
    return int(text)


def _database_url(text: str, refuse: Callable[[str], RejectedError]) -> str:
    """Accept every usual spelling of the scheme; SQLAlchemy gets the driver that is installed."""
    scheme, colon, _rest = text.partition("://")
    name = scheme.partition("+")[0].lower()
    if not colon or name not in ("postgres", "postgresql", "sqlite"):
        raise refuse("postgresql://user:password@host/database or sqlite:///path")
    if name == "sqlite":
        return "sqlite" + text[len(scheme) :]
    parts = urlsplit("postgresql" + text[len(scheme) :])
    return urlunsplit(("postgresql+psycopg", *parts[1:]))


def shown(settings: Settings, field: str) -> str:
    """Return a field's value for people: secrets hidden."""
    value = getattr(settings, field)
    if field in SECRETS and value:
        if field != "database_url":
            return "***"
        parts = urlsplit(value)
        if parts.password is None:
            return str(value)
        return str(value).replace(f":{parts.password}@", ":***@")
    return str(value)
