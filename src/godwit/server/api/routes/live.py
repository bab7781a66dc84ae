"""`/api/v1/live`: committed readings and presence as they happen, over a WebSocket.

The first message of the client says who it is and what it wants, as JSON with `token`, `devices` and `readings`, the
last two lists that may be left out. A program may send the token as a bearer header instead. A browser's Origin has
to be this host.
"""

import asyncio
from contextlib import suppress
from typing import Any

import msgspec
from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from godwit.contract.errors import RejectedError
from godwit.contract.times import format_time
from godwit.server.accounts.principal import Principal
from godwit.server.api.access import token_of, who_has
from godwit.server.ingest.door import eyes
from godwit.server.telemetry.live import News, Reading

router = APIRouter()

HELLO_S_MAX = 10.0
BATCH_S = 0.1
CHECK_S = 1.0
"""How long a socket stays open after its token was revoked."""


class Hello(msgspec.Struct):
    """What a client wants. Lists left out mean all."""

    token: str = ""
    devices: list[str] | None = None
    readings: list[str] | None = None


@router.websocket("/api/v1/live")
async def live(socket: WebSocket) -> None:
    """Serve one listener."""
    origin = socket.headers.get("origin")
    if origin is not None and origin.partition("://")[2] != socket.headers.get("host"):
        await socket.close(1008, "a foreign origin")
        return
    await socket.accept()
    try:
        async with asyncio.timeout(HELLO_S_MAX):
            hello = msgspec.json.decode(await socket.receive_text(), type=Hello)
    except (TimeoutError, msgspec.DecodeError, KeyError):
        await socket.close(1008, 'the first message is {"token": "...", "devices": [...]}')
        return
    except WebSocketDisconnect:
        return
    token = hello.token or token_of(socket)
    who = await listener(socket, token, "telemetry:read")
    if who is None:
        return
    await _feed(socket, hello, who, token)


async def listener(socket: WebSocket, token: str, scope: str) -> Principal | None:
    """Return whose token it is, who may look; None closes the socket."""
    try:
        who = await who_has(socket, token)
        who.require("viewer")
        who.require_scope(scope)
    except RejectedError as error:
        await socket.close(1008, error.code)
        return None
    return who


async def _feed(socket: WebSocket, hello: Hello, who: Principal, token: str) -> None:
    loop, news_there = asyncio.get_running_loop(), asyncio.Event()
    devices = frozenset(hello.devices) if hello.devices is not None else None
    readings = frozenset(hello.readings) if hello.readings is not None else None
    gone = asyncio.create_task(until_gone(socket, token, who))
    platform = socket.app.state.platform
    may_see = eyes(platform.ingest, who)
    with platform.live.listen(lambda: loop.call_soon_threadsafe(news_there.set), devices, may_see) as listener:
        await socket.send_text('{"type":"ready"}')
        while not gone.done():
            waiting = asyncio.create_task(news_there.wait())
            await asyncio.wait([waiting, gone], return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            if gone.done():
                return
            news_there.clear()
            items = [_document(each) for each in listener.take() if _is_wanted(each, readings)]
            if items:
                try:
                    await socket.send_text(
                        msgspec.json.encode({"type": "news", "items": items, "lost": listener.lost}).decode()
                    )
                except (WebSocketDisconnect, RuntimeError):
                    return
            await asyncio.sleep(BATCH_S)  # batches, however fast it goes


async def until_gone(socket: WebSocket, token: str, who: Principal) -> None:
    """Return when the other side has left, or may look no longer: then it is sent away."""
    leaving = asyncio.create_task(_until_left(socket))
    try:
        while not leaving.done():
            await asyncio.wait([leaving], timeout=CHECK_S)
            if (await who_has(socket, token)).tenants != who.tenants:
                raise RejectedError("what it may see has changed", code="forbidden")
    except RejectedError as error:
        with suppress(WebSocketDisconnect, RuntimeError):
            await socket.close(1008, error.code)
    finally:
        leaving.cancel()


async def _until_left(socket: WebSocket) -> None:
    while (await socket.receive())["type"] != "websocket.disconnect":
        pass


def _is_wanted(news: News, readings: frozenset[str] | None) -> bool:
    return readings is None or not isinstance(news, Reading) or news.name in readings


def _document(news: News) -> dict[str, Any]:
    if isinstance(news, Reading):
        return {
            "kind": "reading",
            "deviceId": news.device_id,
            "reading": news.name,
            "unit": news.unit or None,
            "time": format_time(news.time),
            "value": news.value,
            "quality": news.quality,
        }
    return {"kind": "presence", "deviceId": news.device_id, "online": news.online, "since": format_time(news.since)}
