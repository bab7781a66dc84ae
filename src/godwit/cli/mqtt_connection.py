"""How `godwit mqtt` comes to a broker: options, settings where they are silent, TLS, and words for refusals.

Precedence: option, then the settings of this directory (environment, `.env`). Where the platform's plaintext listener
is turned off, its TLS listener is taken, and its own certificate is trusted.
"""

import argparse
import os
import secrets
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from godwit.contract.errors import RejectedError, UnavailableError
from godwit.mqtt.client import MqttClient
from godwit.mqtt.client_session import ClientSession
from godwit.mqtt.packets import Connect, Will
from godwit.mqtt.reasons import ReasonError
from godwit.mqtt.tls import client_context

if TYPE_CHECKING:
    from godwit.server.settings import Settings

VERSIONS: Final = {"5": 5, "mqttv5": 5, "311": 4, "3.1.1": 4, "mqttv311": 4}
MQTTS_PORT: Final = 8883
EVERYWHERE: Final = ("0.0.0.0", "::")  # noqa: S104 - what a server binds to is no address to go to
EXPIRY_S: Final = 0xFFFF_FFFF
"""Of a session that -c asks the broker to keep: for ever (MQTT 5, 3.1.2.11.2)."""


class _Help(argparse.Action):
    """`-h HOST`, but help when no host is given: -h is the host for users of mosquitto, and help for everybody else."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *_: Any) -> None:
        if values is None:
            parser.print_help()
            parser.exit()
        setattr(namespace, self.dest, values)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the connection."""
    parser.add_argument("--help", action="help", help="show this and end")
    to = parser.add_argument_group("connection (what is not said comes from the settings: godwit config)")
    to.add_argument("-h", "--host", nargs="?", action=_Help, metavar="HOST", help="of the broker (MQTT_HOST)")
    to.add_argument("-p", "--port", type=int, metavar="PORT", help="of the broker (MQTT_PORT; 8883 with TLS)")
    to.add_argument(
        "-V", "--version", choices=tuple(VERSIONS), default="5", help="of the protocol: 5 or 311 (default 5)"
    )
    to.add_argument("-i", "--id", metavar="ID", help="client id (default: made up)")
    to.add_argument(
        "-c", "--keep-session", action="store_true", help="go on with the session of this -i, and have it kept"
    )
    to.add_argument("-k", "--keepalive", type=int, default=60, metavar="S", help="keep-alive (default 60)")
    to.add_argument("-u", "--username", metavar="NAME", help="user name (MQTT_USERNAME)")
    to.add_argument("-P", "--password", metavar="WORD", help="password; other users of the machine can see it")
    to.add_argument("--password-file", metavar="FILE", help="file that holds the password (else MQTT_PASSWORD)")
    tls = parser.add_argument_group("TLS")
    tls.add_argument("--tls", action="store_true", help="trust the system's authorities")
    tls.add_argument("--cafile", metavar="FILE", help="PEM of whom to trust; alone it means TLS")
    tls.add_argument("--cert", metavar="FILE", help="PEM of the client's certificate")
    tls.add_argument("--key", metavar="FILE", help="PEM of its key")
    tls.add_argument("--insecure", action="store_true", help="do not check the server's name (for trials only)")
    will = parser.add_argument_group("will, published by the broker when this client vanishes")
    will.add_argument("--will-topic", metavar="TOPIC", help="where it is published")
    will.add_argument("--will-payload", default="", metavar="TEXT", help="what it says")
    will.add_argument("--will-qos", type=int, choices=(0, 1, 2), default=0, help="its quality of service (default 0)")
    will.add_argument("--will-retain", action="store_true", help="have the broker keep it")


class Address(NamedTuple):
    """Where to connect, and how."""

    host: str
    port: int
    tls: ssl.SSLContext | None


def address_of(options: argparse.Namespace, settings: "Settings") -> Address:
    """Return where to connect. Raises RejectedError (`tls-files`) where a file of TLS cannot be read."""
    authority = options.cafile
    wants_tls = options.tls or any((options.cafile, options.cert, options.key)) or options.port == MQTTS_PORT
    host, port = options.host or settings.mqtt_host, options.port
    is_own = options.host is None and settings.mqtt_broker == "embedded"
    if is_own and (wants_tls or not settings.local_listener):
        wants_tls = True
        port = port or settings.mqtts_port
        host = "localhost" if settings.mqtts_host in EVERYWHERE else settings.mqtts_host
        own = settings.data_dir / "tls" / "ca.crt"
        if authority is None and not options.tls and own.is_file():
            authority = own
    if port is None:
        port = MQTTS_PORT if wants_tls else settings.mqtt_port
    return Address(host, port, _context(options, authority) if wants_tls else None)


def _context(options: argparse.Namespace, authority: str | Path | None) -> ssl.SSLContext:
    def path(name: str | Path | None) -> Path | None:
        return Path(name) if name else None

    try:
        context = client_context(authority=path(authority), certificate=path(options.cert), key=path(options.key))
    except OSError as error:
        files = ", ".join(str(each) for each in (authority, options.cert, options.key) if each)
        raise RejectedError(f"TLS: {files or 'certificate'}: {error}", code="tls-files") from error
    if options.insecure:
        context.check_hostname = False
    return context


def connect_packet(options: argparse.Namespace, settings: "Settings") -> Connect:
    """Return the CONNECT that the options ask for."""
    if options.keep_session and not options.id:
        raise RejectedError("-c goes on with the session of a client id: say which with -i")
    username = options.username or settings.mqtt_username or None
    password = _password(options, settings)
    version = VERSIONS[options.version]
    will = None
    if options.will_topic:
        will = Will(options.will_topic, options.will_payload.encode(), options.will_qos, options.will_retain)
    return Connect(
        client_id=options.id or f"godwit-{secrets.token_hex(4)}",
        version=version,
        clean_start=not options.keep_session,
        keep_alive=options.keepalive,
        username=username,
        password=password.encode() if password else None,
        will=will,
        session_expiry_interval=EXPIRY_S if options.keep_session and version == 5 else 0,
    )


def _password(options: argparse.Namespace, settings: "Settings") -> str:
    if options.password is not None:
        return str(options.password)
    if options.password_file:
        try:
            return Path(options.password_file).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise RejectedError(f"{options.password_file} cannot be read: {error}") from error
    return settings.mqtt_password


class Broker:
    """The broker of the options. `open` connects, and goes on with the same session when called again."""

    def __init__(self, options: argparse.Namespace) -> None:
        from godwit.server.settings import load_settings  # noqa: PLC0415 - reads the environment: when it is run

        settings = load_settings({})
        self.address = address_of(options, settings)
        self._session = ClientSession(connect_packet(options, settings))

    async def open(self) -> MqttClient:
        """Connect. Raises RejectedError with a sentence when the broker says no, UnavailableError when none answers."""
        host, port, tls = self.address
        where = f"{host}:{port}"
        try:
            return await MqttClient.connect(host, port, self._session.connect, tls=tls, session=self._session)
        except ReasonError as refusal:
            raise RejectedError(f"{where} refuses the connection: {said(refusal)}") from refusal
        except ssl.SSLCertVerificationError as error:
            hint = f"{where}: the certificate is not trusted ({error.verify_message}); --cafile says whom to trust"
            raise RejectedError(hint, code="tls") from error
        except ssl.SSLError as error:
            raise RejectedError(f"{where}: TLS: {error.reason or error}", code="tls") from error
        except OSError as error:
            why = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
            raise UnavailableError(f"no broker at {where}: {why}") from error


def said(refusal: ReasonError) -> str:
    """Return a refusal in words, with its reason code."""
    return f"{refusal} (reason 0x{refusal.reason_code:02X})"
