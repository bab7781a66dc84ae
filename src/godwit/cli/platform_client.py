"""The platform's API as commands use it: one call, one answer, and errors in one sentence.

Which platform: `--server`, GODWIT_SERVER, else the one that the settings of this directory describe (SERVER_HOST,
SERVER_PORT, DATA_DIR), with its own certificate. Which token: `--token-file`, GODWIT_TOKEN, else the administrator's,
in DATA_DIR/admin-token.
"""

import argparse
import json
import os
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from email.message import Message
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from godwit.contract.errors import RejectedError, UnavailableError
from godwit.runtime.hosts import is_loopback

if TYPE_CHECKING:
    from godwit.server.settings import Settings

TIMEOUT_S: Final = 60.0


def add_server_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which platform, and as whom."""
    to = parser.add_argument_group("platform")
    to.add_argument("--server", metavar="URL", help="(default: GODWIT_SERVER, else as SERVER_HOST and SERVER_PORT say)")
    to.add_argument(
        "--token-file", type=Path, metavar="FILE", help="(default: GODWIT_TOKEN, else DATA_DIR/admin-token)"
    )
    to.add_argument(
        "--server-ca", type=Path, metavar="FILE", help="PEM of whom to trust besides the system's authorities"
    )


class PlatformClient:
    """Calls the API. Raises RejectedError with the code of the problem, UnavailableError when nobody answers."""

    def __init__(self, url: str, token: str, ca: Path | None = None) -> None:
        self.url, self._token = url.rstrip("/"), token
        self._tls = trusting(ca) if url.startswith("https:") else None

    def call(self, method: str, path: str, body: object = None) -> Any:
        """Return the answer's JSON, None where it has none."""
        data = self.raw(method, path, None if body is None else json.dumps(body).encode())
        return json.loads(data) if data else None

    def mark(self, path: str) -> str:
        """Return the `ETag` of what is at `path`: a change sends it back as `If-Match`."""
        return self._ask("GET", path)[1].get("etag", "*")

    def raw(self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> bytes:
        """Return the answer's bytes."""
        return self._ask(method, path, body, headers)[0]

    def _ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[bytes, Message]:
        request = urllib.request.Request(self.url + path, data=body, method=method)  # noqa: S310 - the owner's URL
        request.add_unredirected_header("authorization", f"Bearer {self._token}")  # it is for nobody else
        if body is not None:
            request.add_header("content-type", "application/json")
        for name, value in (headers or {}).items():
            request.add_header(name, value)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S, context=self._tls) as answer:  # noqa: S310
                return bytes(answer.read()), answer.headers
        except urllib.error.HTTPError as error:
            raise _refusal(error) from error
        except (OSError, HTTPException, ValueError) as error:
            raise _unreachable(self.url, error) from error


def client_of(options: argparse.Namespace) -> PlatformClient:
    """Return the client that the options and the environment ask for.

    Raises RejectedError (`token-missing`, `server-address`, `server-plaintext`, `tls-files`).
    """
    from godwit.server.settings import load_settings  # noqa: PLC0415 - reads the environment: when it is run

    settings = load_settings({})
    said = options.server or os.environ.get("GODWIT_SERVER")
    url = said or address_of(settings)
    _check_address(url)
    if options.token_file is not None:
        token = _read(options.token_file)
    else:
        token = os.environ.get("GODWIT_TOKEN") or _read(settings.data_dir / "admin-token")
    return PlatformClient(url, token, options.server_ca or own_authority(settings))


def address_of(settings: "Settings") -> str:
    """Return where the platform of these settings is asked from this machine."""
    host = settings.server_host
    scheme = "http" if is_loopback(host) else "https"
    if host in ("0.0.0.0", "::"):  # noqa: S104
        own_domain = settings.public_host.split(",")[0].strip() if settings.tls_certificate else ""
        host = own_domain or "localhost"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{settings.server_port}"


def own_authority(settings: "Settings") -> Path | None:
    """Return the file that says whom to trust at the platform of these settings, if it is on this machine."""
    own = Path(settings.tls_certificate) if settings.tls_certificate else settings.data_dir / "tls" / "ca.crt"
    return own if own.is_file() else None


def trusting(authority: Path | None) -> ssl.SSLContext:
    """Return what trusts the system's authorities, and those of a file. Raises RejectedError (`tls-files`)."""
    context = ssl.create_default_context()
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the file may hold the server's certificate, and no root
    if authority is not None:
        try:
            context.load_verify_locations(authority)
        except OSError as error:
            raise RejectedError(
                f"{authority} cannot be read as PEM of whom to trust: {error}", code="tls-files"
            ) from error
    return context


def _check_address(url: str) -> None:
    """Raise RejectedError unless a token may travel to this address."""
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname or "", parts.port
    except ValueError:
        host, parts = "", urlsplit("")
    if parts.scheme not in ("http", "https") or not host:
        raise RejectedError(f"{url!r} is no address of a platform: https://HOST:PORT", code="server-address")
    if parts.scheme == "http" and not is_loopback(host):
        raise RejectedError(
            f"{url}: a token does not travel to another machine unencrypted; say https://", code="server-plaintext"
        )


def _unreachable(url: str, error: Exception) -> UnavailableError:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, ssl.SSLCertVerificationError):
        hint = (
            f"its certificate is not trusted ({reason.verify_message}): say --server-ca FILE, the platform's tls/ca.crt"
        )
    elif isinstance(reason, (HTTPException, ssl.SSLError)) or "reset" in str(reason):
        hint = f"no HTTP comes back ({reason}): it is https:// on every address but loopback's"
    else:
        hint = f"no platform answers ({reason}); start it with `godwit up`, or say --server URL"
    return UnavailableError(f"{url}: {hint}", code="platform-unreachable")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise RejectedError(
            f"no token: {path} cannot be read; say --token-file FILE or set GODWIT_TOKEN", code="token-missing"
        ) from error


def _refusal(error: urllib.error.HTTPError) -> RejectedError:
    text = error.read().decode("utf-8", "replace")
    try:
        problem = json.loads(text)
        return RejectedError(str(problem.get("detail") or problem.get("title")), code=str(problem.get("code")))
    except (ValueError, AttributeError):
        return RejectedError(f"the platform answered {error.code}: {text[:200]}", code="http-error")
