"""The way in at first start: the administrator's token, in a file only its owner reads, and links that sign in once."""

import hmac
import threading
from pathlib import Path
from typing import Final

from godwit.runtime.files import write_whole
from godwit.server.accounts.digests import digest_of, new_secret

PREFIX: Final = "gw_"


class FirstToken:
    """Thread-safe. Links are kept in memory: they do not outlive the process that printed them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.token = self._load_or_make()
        self._digest = digest_of(self.token)
        self._lock = threading.Lock()
        self._links: set[str] = set()

    def _load_or_make(self) -> str:
        if self._path.exists():
            token = self._path.read_text(encoding="ascii").strip()
            if token:
                return token
        token = new_secret(PREFIX)
        write_whole(self._path, token.encode() + b"\n", mode=0o600)
        return token

    def is_it(self, token: str) -> bool:
        """Whether this is the administrator's token."""
        return hmac.compare_digest(digest_of(token), self._digest)

    def issue_link(self) -> str:
        """Return a token that signs in once."""
        token = new_secret()
        with self._lock:
            self._links.add(digest_of(token))
        return token

    def use(self, token: str) -> bool:
        """Whether this signs in: the administrator's token, or a link's, which is used up by it."""
        digest = digest_of(token)
        with self._lock:
            is_link = digest in self._links
            self._links.discard(digest)
        return is_link or self.is_it(token)
