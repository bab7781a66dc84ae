"""Bearer tokens and sessions.

The first token, an administrator's, is made at first start, in a file only its owner reads.

Sessions live in memory: a restart signs people out, and nothing has to be kept secret on disk for them.
"""

import hashlib
import hmac
import secrets
import threading
from pathlib import Path
from time import monotonic
from typing import Final

from godwit.runtime.files import write_whole
from godwit.server.accounts.principal import Principal

SESSION_S_MAX: Final = 12 * 3_600
SESSIONS_MAX: Final = 1_000
ADMINISTRATOR: Final = Principal("admin")


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


class Tokens:
    """Thread-safe."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.admin_token = self._load_or_make()
        self._admin = _digest(self.admin_token)
        self._lock = threading.Lock()
        self._sign_in: set[bytes] = set()
        self._sessions: dict[bytes, tuple[Principal, float]] = {}

    def _load_or_make(self) -> str:
        if self._path.exists():
            token = self._path.read_text(encoding="ascii").strip()
            if token:
                return token
        token = "gw_" + secrets.token_urlsafe(32)
        write_whole(self._path, token.encode() + b"\n", mode=0o600)
        return token

    def issue_sign_in(self) -> str:
        """Return a token that signs in once."""
        token = secrets.token_urlsafe(24)
        with self._lock:
            self._sign_in.add(_digest(token))
        return token

    def redeem(self, token: str) -> str | None:
        """Exchange a one-time sign-in token, or the administrator's token, for a session; None when it is not valid."""
        digest = _digest(token)
        with self._lock:
            is_valid = digest in self._sign_in or hmac.compare_digest(digest, self._admin)
            self._sign_in.discard(digest)
            if not is_valid:
                return None
            session = secrets.token_urlsafe(32)
            if len(self._sessions) >= SESSIONS_MAX:
                del self._sessions[next(iter(self._sessions))]
            self._sessions[_digest(session)] = (ADMINISTRATOR, monotonic() + SESSION_S_MAX)
            return session

    def principal(self, token: str) -> Principal | None:
        """Return whose bearer token or session it is."""
        digest = _digest(token)
        if hmac.compare_digest(digest, self._admin):
            return ADMINISTRATOR
        with self._lock:
            found = self._sessions.get(digest)
            if found is None:
                return None
            principal, until = found
            if monotonic() > until:
                del self._sessions[digest]
                return None
            return principal

    def sign_out(self, session: str) -> None:
        """End a session."""
        with self._lock:
            self._sessions.pop(_digest(session), None)
