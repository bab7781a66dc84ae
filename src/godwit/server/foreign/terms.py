"""How to reach a foreign broker, and what its refusals mean to the person who set it up."""

import ssl
from pathlib import Path
from typing import Final

import msgspec

from godwit.contract.errors import RejectedError
from godwit.mqtt import packets as p
from godwit.mqtt import reasons
from godwit.mqtt.reasons import ReasonError
from godwit.mqtt.server_session import NEVER_EXPIRES
from godwit.mqtt.tls import client_context
from godwit.server.settings import Settings

RECEIVE_MAXIMUM: Final = 65_534
"""Messages that the foreign broker may have under way to us: as many as there are packet ids, but said expressly.

A lower one Mosquitto 2.0 does not keep to after we were away; what we cannot take, the socket keeps from us.
"""
CLEAN_EXPIRY_S: Final = 3_600
"""How long a session that starts clean is kept while the connection is lost: an outage loses nothing, a stop all."""
CREDENTIALS: Final = (reasons.BAD_USER_NAME_OR_PASSWORD, reasons.NOT_AUTHORIZED)


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """Where a broker is and who we are there. `tls` is None for plain TCP."""

    host: str
    port: int
    client_id: str
    keep_alive: int = 60
    is_clean: bool = False
    username: str = ""
    password: str = ""
    tls: ssl.SSLContext | None = None
    names: tuple[str, str, str] = ("MQTT_USERNAME and MQTT_PASSWORD", "MQTT_CA_FILE", "MQTT_CLIENT_ID")
    """What the person who reads a refusal has to look at: credentials, authority, client id."""

    @property
    def address(self) -> str:
        """Where it is, for people."""
        return f"{self.host}:{self.port}"

    def connect(self, *, packet_bytes_max: int | None = None) -> p.Connect:
        """Return the CONNECT."""
        return p.Connect(
            self.client_id,
            clean_start=self.is_clean,
            keep_alive=self.keep_alive,
            username=self.username or None,
            password=self.password.encode() if self.password else None,
            session_expiry_interval=CLEAN_EXPIRY_S if self.is_clean else NEVER_EXPIRES,
            receive_maximum=RECEIVE_MAXIMUM,
            maximum_packet_size=packet_bytes_max,
        )

    def explain(self, error: Exception) -> str:
        """Return a sentence: what stands between us and the broker, and which setting to look at."""
        where = f"the broker at {self.address}"
        credentials, authority, client_id = self.names
        if isinstance(error, ReasonError):
            return self._explain_refusal(error, where, credentials, client_id)
        if isinstance(error, RejectedError):
            return f"{where} does not serve us: {error}"
        if isinstance(error, OSError):
            return f"{where} {_explain_system(error, authority)}"
        return f"{where} is away: {error}"

    def _explain_refusal(self, error: ReasonError, where: str, credentials: str, client_id: str) -> str:
        if error.reason_code in CREDENTIALS:
            return f"{where} does not let us in: {error} ({credentials})"
        if error.reason_code == reasons.CLIENT_IDENTIFIER_NOT_VALID:
            return f"{where} refuses the client id {self.client_id!r}: {error} ({client_id})"
        if error.reason_code == reasons.UNSUPPORTED_PROTOCOL_VERSION:
            return f"{where} does not speak MQTT 5, which is needed here"
        return f"{where} refuses: {error}"


def _explain_system(error: OSError, authority: str) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"shows a certificate that is not trusted: {error.verify_message} ({authority})"
    if isinstance(error, ssl.SSLError):
        return f"and we do not come to TLS: {error.reason or error}"
    if isinstance(error, ConnectionRefusedError):
        return "cannot be reached: nothing listens there"
    return f"cannot be reached: {error.strerror or error}"


def tls_of(authority: str, certificate: str, key: str, names: tuple[str, str, str]) -> ssl.SSLContext:
    """Return the TLS context of these files; empty names stand for none. Raises RejectedError naming the setting."""
    if bool(certificate) != bool(key):
        raise RejectedError(f"{names[1]} and {names[2]} belong together: give both or none", code="invalid-setting")
    for name, path in zip(names, (authority, certificate, key), strict=True):
        if path and not Path(path).is_file():
            raise RejectedError(f"{name}={path}: there is no such file", code="invalid-setting")
    try:
        return client_context(
            authority=Path(authority) if authority else None,
            certificate=Path(certificate) if certificate else None,
            key=Path(key) if key else None,
        )
    except OSError as error:
        files = ", ".join(f"{name}={path}" for name, path in zip(names, (authority, certificate, key), strict=True))
        raise RejectedError(f"{files}: cannot be used for TLS: {error}", code="invalid-setting") from error


def terms_of(settings: Settings) -> Terms:
    """Return the terms that the settings name. Raises RejectedError (`invalid-setting`)."""
    files = (settings.mqtt_ca_file, settings.mqtt_cert_file, settings.mqtt_key_file)
    has_tls = settings.mqtt_tls or any(files)
    if settings.mqtt_password and not settings.mqtt_username:
        raise RejectedError("MQTT_PASSWORD without MQTT_USERNAME: give both or none", code="invalid-setting")
    if settings.mqtt_keep_alive > 65_535:
        raise RejectedError(f"MQTT_KEEP_ALIVE={settings.mqtt_keep_alive}: at most 65535 s", code="invalid-setting")
    return Terms(
        host=settings.mqtt_host,
        port=settings.mqtt_port,
        client_id=settings.mqtt_client_id,
        keep_alive=settings.mqtt_keep_alive,
        is_clean=settings.mqtt_clean_session,
        username=settings.mqtt_username,
        password=settings.mqtt_password,
        tls=tls_of(*files, ("MQTT_CA_FILE", "MQTT_CERT_FILE", "MQTT_KEY_FILE")) if has_tls else None,
    )
