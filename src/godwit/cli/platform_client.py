"""The platform's API as commands use it: one call, one answer, and errors in one sentence.

Which platform: `--server`, GODWIT_SERVER, else the one on this machine. Which token: `--token-file`, GODWIT_TOKEN,
else the administrator's, in DATA_DIR/admin-token.
"""

import argparse
import json
import os
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from email.message import Message
from pathlib import Path
from typing import Any, Final

from godwit.contract.errors import RejectedError, UnavailableError

TIMEOUT_S: Final = 60.0


def add_server_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which platform, and as whom."""
    to = parser.add_argument_group("platform")
    to.add_argument("--server", metavar="URL", help="(default: GODWIT_SERVER, else http://127.0.0.1:8080)")
    to.add_argument(
        "--token-file", type=Path, metavar="FILE", help="(default: GODWIT_TOKEN, else DATA_DIR/admin-token)"
    )
    to.add_argument("--server-ca", type=Path, metavar="FILE", help="PEM of whom to trust (default: the system's)")


class PlatformClient:
    """Calls the API. Raises RejectedError with the code of the problem, UnavailableError when nobody answers."""

    def __init__(self, url: str, token: str, ca: Path | None = None) -> None:
        self.url, self._token = url.rstrip("/"), token
        self._tls = ssl.create_default_context(cafile=ca) if url.startswith("https:") else None

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
        request.add_header("authorization", f"Bearer {self._token}")
        if body is not None:
            request.add_header("content-type", "application/json")
        for name, value in (headers or {}).items():
            request.add_header(name, value)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S, context=self._tls) as answer:  # noqa: S310
                return bytes(answer.read()), answer.headers
        except urllib.error.HTTPError as error:
            raise _refusal(error) from error
        except (OSError, urllib.error.URLError) as error:
            raise UnavailableError(
                f"no platform answers at {self.url} ({error}); start it with `godwit up`, or say --server URL",
                code="platform-unreachable",
            ) from error


def client_of(options: argparse.Namespace) -> PlatformClient:
    """Return the client that the options and the environment ask for. Raises RejectedError (`token-missing`)."""
    url = options.server or os.environ.get("GODWIT_SERVER") or "http://127.0.0.1:8080"
    if options.token_file is not None:
        token = _read(options.token_file)
    else:
        token = os.environ.get("GODWIT_TOKEN") or _read(
            Path(os.environ.get("DATA_DIR") or "godwit-data") / "admin-token"
        )
    return PlatformClient(url, token, options.server_ca)


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
