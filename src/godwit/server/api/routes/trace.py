"""`/api/v1/trace?device=`: one device live, packet by packet and station by station, over a WebSocket.

Who asks is said by a bearer header, or by the first message, `{"token": "..."}`. Then JSON documents come: first
`{"type": "ready"}`, then `{"type": "events", "events": [...], "lost": 0}`.
"""

import asyncio
from collections.abc import Callable

import msgspec
from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from godwit.contract.errors import MalformedError
from godwit.contract.ids import parse_device_id
from godwit.contract.times import format_time
from godwit.server.api.access import token_of
from godwit.server.api.routes.live import HELLO_S_MAX, listener, until_gone
from godwit.server.ingest.door import eyes
from godwit.server.ingest.trace import Traced

router = APIRouter()

BATCH_S = 0.05


class Hello(msgspec.Struct):
    """Who asks, where no header says it."""

    token: str = ""


@router.websocket("/api/v1/trace")
async def trace(socket: WebSocket, device: str = "") -> None:
    """Serve one follower."""
    origin = socket.headers.get("origin")
    if origin is not None and origin.partition("://")[2] != socket.headers.get("host"):
        await socket.close(1008, "a foreign origin")
        return
    await socket.accept()
    token = token_of(socket)
    try:
        if not token:
            async with asyncio.timeout(HELLO_S_MAX):
                token = msgspec.json.decode(await socket.receive_text(), type=Hello).token
        device_id = parse_device_id(device)
    except (TimeoutError, msgspec.DecodeError, KeyError):
        await socket.close(1008, 'the first message is {"token": "..."}')
        return
    except MalformedError as error:
        await socket.close(1008, str(error)[:100])
        return
    except WebSocketDisconnect:
        return
    who = await listener(socket, token, "telemetry:read")
    if who is None:
        return
    may_see = eyes(socket.app.state.platform.ingest, who)
    if may_see is not None and not may_see(device_id):
        await socket.close(1008, "no such device")
        return
    await _follow(socket, device_id, may_see, asyncio.create_task(until_gone(socket, token, who)))


async def _follow(
    socket: WebSocket, device_id: str, may_see: Callable[[str], bool] | None, gone: asyncio.Task[None]
) -> None:
    loop, events_there = asyncio.get_running_loop(), asyncio.Event()
    trace = socket.app.state.platform.trace
    with trace.follow(device_id, lambda: loop.call_soon_threadsafe(events_there.set)) as follower:
        await socket.send_text('{"type":"ready"}')
        while not gone.done():
            waiting = asyncio.create_task(events_there.wait())
            await asyncio.wait([waiting, gone], return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            if gone.done():
                return
            events_there.clear()
            if may_see is not None and not may_see(device_id):  # it has become another tenant's
                await socket.close(1008, "no such device")
                return
            document = {"type": "events", "events": [_document(each) for each in follower.take()]}
            try:
                await socket.send_text(msgspec.json.encode(document | {"lost": follower.lost}).decode())
            except (WebSocketDisconnect, RuntimeError):
                return
            await asyncio.sleep(BATCH_S)


def _document(event: Traced) -> dict[str, object]:
    document: dict[str, object] = msgspec.to_builtins(event)
    document["at"] = format_time(event.at)
    return document
