"""Quarantine: what was refused, whole, with its reason; send it down the road again, or let it go."""

import base64
from asyncio import to_thread
from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response
from pydantic import Field

from godwit.contract.errors import RejectedError
from godwit.server.accounts.acts import record_act
from godwit.server.api.access import Operator, Rooms, Who
from godwit.server.api.answers import answer, time_or_none
from godwit.server.api.problems import documented
from godwit.server.api.strict import Body, StrictRoute
from godwit.server.platform import Platform
from godwit.server.registry.access import sees
from godwit.server.registry.model import Principal
from godwit.server.telemetry.model import Quarantined

router = APIRouter(prefix="/api/v1/quarantine", tags=["quarantine"], route_class=StrictRoute)

SHOWN_BYTES = 4_096
PURGE_PAGE = 100
Number = Annotated[int, Path(ge=1, le=2**62)]


class Purge(Body):
    """What leaves: numbers, or all that a filter finds."""

    numbers: list[Annotated[int, Field(ge=1, le=2**62)]] | None = Field(None, max_length=10_000)
    deviceId: str | None = Field(None, max_length=64)  # noqa: N815
    code: str | None = Field(None, max_length=64)


def _document(kept: Quarantined, *, whole: bool = False) -> dict[str, Any]:
    document: dict[str, Any] = {
        "number": kept.number,
        "deviceId": kept.device_id,
        "tenant": kept.tenant,
        "topic": kept.topic,
        "code": kept.code,
        "detail": kept.detail,
        "contentType": kept.content_type or None,
        "received": time_or_none(kept.received),
        "sample": kept.sample if kept.sample >= 0 else None,
        "bytes": len(kept.payload),
        "payload": kept.payload[:SHOWN_BYTES].decode("utf-8", "replace"),
    }
    if whole:
        document["payloadBase64"] = base64.b64encode(kept.payload).decode()
    return document


@router.get("", responses=documented(), summary="List quarantined messages")
def list_quarantine(
    who: Who,
    rooms: Rooms,
    deviceId: Annotated[str | None, Query(max_length=64)] = None,  # noqa: N803
    code: Annotated[str | None, Query(max_length=64)] = None,
    before: Annotated[int | None, Query(ge=1, le=2**62, description="numbers below this one")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Response:
    """Return quarantined messages, newest first; payloads are cut at 4 KiB."""
    found = rooms.store.quarantine(tenants=who.tenants, device_id=deviceId, code=code, before=before, limit=limit)
    items = [_document(each) for each in found]
    return answer({"items": items, "before": found[-1].number if len(found) == limit else None})


def _kept(rooms: Platform, who: Principal, number: int) -> Quarantined:
    kept = rooms.store.quarantined(number)
    if kept is None or not sees(who, kept.tenant):
        raise _not_there(number)
    return kept


def _not_there(number: int) -> RejectedError:
    return RejectedError(f"nothing in quarantine has number {number}", code="not-found")


@router.get("/{number}", responses=documented(404), summary="Look at a quarantined message")
def inspect(number: Number, who: Who, rooms: Rooms) -> Response:
    """Return one message, its payload whole in Base64."""
    return answer(_document(_kept(rooms, who, number), whole=True))


@router.post("/{number}/replay", responses=documented(404), summary="Send a message down the road again")
async def replay(number: Number, who: Operator, rooms: Rooms) -> Response:
    """Replay a message; it leaves quarantine when it is accepted now."""
    kept = await to_thread(_kept, rooms, who, number)
    if not rooms.ingest.may_speak_for(who.tenants, kept.device_id):  # the name has become another tenant's since
        raise _not_there(number)
    outcome = await rooms.ingest.replay(number)
    about, after = kept.device_id, {"number": number}
    await to_thread(
        record_act, rooms.database, who, "quarantine.replay", about, after=after, tenant=str(kept.tenant or "")
    )
    return answer(outcome._asdict())


@router.post("/purge", responses=documented(413), summary="Remove quarantined messages")
async def purge(body: Purge, who: Operator, rooms: Rooms) -> Response:
    """Remove messages by number, or all that a filter finds. Says how many there were."""
    if body.numbers is None and body.deviceId is None and body.code is None:
        raise RejectedError("numbers, deviceId or code says what is to leave", code="invalid-request")
    numbers = await to_thread(_to_purge, rooms, who, body)
    purged = await rooms.ingest.purge(numbers) if numbers else 0
    if purged:
        await to_thread(
            record_act, rooms.database, who, "quarantine.purge", body.deviceId or "", after={"purged": purged}
        )
    return answer({"purged": purged})


def _to_purge(rooms: Platform, who: Principal, body: Purge) -> list[int]:
    return [
        each.number
        for each in _found(rooms, who, body)
        if body.deviceId in (None, each.device_id) and body.code in (None, each.code)
    ]


def _found(rooms: Platform, who: Principal, body: Purge) -> Iterator[Quarantined]:
    """Return what may leave, a page in memory at a time: payloads are large."""
    if body.numbers is not None:
        for number in set(body.numbers):
            kept = rooms.store.quarantined(number)
            if kept is not None and sees(who, kept.tenant):
                yield kept
        return
    before = None
    while page := rooms.store.quarantine(
        tenants=who.tenants, device_id=body.deviceId, code=body.code, before=before, limit=PURGE_PAGE
    ):
        yield from page
        before = page[-1].number
