"""Devices that all come at once with their certificates, in a process of their own: the server shares none of it.

`python rush.py HOST:PORT AUTHORITY COUNT DIRECTORY...` prints how many were admitted and in how many seconds, as JSON.
The directories have a bundle for each device (`device.crt`, `device.key`); where there are fewer, some come more often.
"""

import asyncio
import contextlib
import json
import ssl
import sys
import time
from pathlib import Path
from typing import Any

from godwit.mqtt.codec import encode
from godwit.mqtt.packets import Connect
from godwit.mqtt.tls import client_context

PATIENCE_S = 120


async def come(where: str, context: ssl.SSLContext) -> bool:
    """Return whether a full handshake and a CONNECT went well."""
    host, _, port = where.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port), ssl=context, ssl_handshake_timeout=PATIENCE_S)
    writer.write(encode(Connect("", keep_alive=600), 5))
    answer = await asyncio.wait_for(reader.readexactly(4), PATIENCE_S)
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return answer[0] == 0x20 and answer[3] == 0


async def rush(where: str, authority: Path, count: int, bundles: list[Path]) -> dict[str, Any]:
    """Let so many come at once."""
    # a context for each: none resumes the session of another
    contexts = [
        client_context(authority=authority, certificate=bundle / "device.crt", key=bundle / "device.key")
        for bundle in (bundles[number % len(bundles)] for number in range(count))
    ]
    began = time.monotonic()
    told = await asyncio.gather(*(come(where, each) for each in contexts), return_exceptions=True)
    failures = sorted({repr(each) for each in told if each is not True})
    return {"admitted": told.count(True), "seconds": time.monotonic() - began, "failures": failures}


if __name__ == "__main__":
    where, authority, count, *directories = sys.argv[1:]
    bundles = [each.parent for directory in directories for each in sorted(Path(directory).rglob("device.key"))]
    print(json.dumps(asyncio.run(rush(where, Path(authority), int(count), bundles))))
