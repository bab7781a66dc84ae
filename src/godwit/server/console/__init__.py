"""The console: what a person sees of the platform, in a browser.

Pages ask the doors of `Platform` and nothing else. A page is HTML made by pure functions (`parts`, `pages/*`), sent
once; afterwards only what changed is pushed (`screen`), and charts are appended to, never sent again. Whatever may
block runs in a thread. Nothing is loaded from another host.
"""

import importlib
import sys
from typing import Any


def _load_socketio_without_its_client() -> None:
    """Import socket.io as a server that never calls out.

    Its client parts would bring in aiohttp and requests where they are installed, 14 MB that nobody uses here; they are
    written to do without.
    """
    modules: dict[str, Any] = sys.modules
    absent = [name for name in ("aiohttp", "requests") if name not in modules]
    modules.update(dict.fromkeys(absent))  # None makes an import fail (importlib documentation, sys.modules)
    try:
        importlib.import_module("socketio")
    finally:
        for name in absent:
            del modules[name]


_load_socketio_without_its_client()
