"""Devices that all come at once with their certificates, in a process of their own: the server shares none of it.

`python mtls_rush.py PORT AUTHORITY COUNT BUNDLE...` prints how many were admitted and in how many seconds, as JSON.
"""

import asyncio
import contextlib
import json
import sys
import time
from pathlib import Path

from godwit.mqtt.codec import encode
from godwit.mqtt.packets import Connect
from godwit.mqtt.tls import client_context

PATIENCE_S = 60


async def come(port, context):
    """Return whether a full handshake and a CONNECT went well."""
    reader, writer = await asyncio.open_connection("localhost", port, ssl=context, ssl_handshake_timeout=PATIENCE_S)
    writer.write(encode(Connect("", keep_alive=600), 5))
    answer = await asyncio.wait_for(reader.readexactly(4), PATIENCE_S)
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return answer[0] == 0x20 and answer[3] == 0


async def rush(port, authority, count, bundles):
    # a context for each: none resumes the session of another
    contexts = [
        client_context(authority=authority, certificate=bundle / "device.crt", key=bundle / "device.key")
        for bundle in (bundles[number % len(bundles)] for number in range(count))
    ]
    began = time.monotonic()
    told = await asyncio.gather(*(come(port, each) for each in contexts), return_exceptions=True)
    failures = sorted({repr(each) for each in told if each is not True})
    return {"admitted": told.count(True), "seconds": time.monotonic() - began, "failures": failures}


if __name__ == "__main__":
    port, authority, count, *bundles = sys.argv[1:]
    print(json.dumps(asyncio.run(rush(int(port), Path(authority), int(count), [Path(each) for each in bundles]))))
