"""Telemetry: read it by range, bucket or chart, in four formats; hand it in over HTTP."""

from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Request, Response

from godwit.contract.errors import MalformedError, RejectedError
from godwit.contract.limits import PAYLOAD_BYTES_MAX
from godwit.contract.topics import Channel
from godwit.server.api.access import Id, Operator, Rooms, Who
from godwit.server.api.answers import answer, time_or_none
from godwit.server.api.bodies import read_body
from godwit.server.api.columns import chosen_format, respond
from godwit.server.api.encodings import ARROW, CSV, JSON, PARQUET
from godwit.server.api.problems import documented
from godwit.server.api.spans import duration_ns, span
from godwit.server.api.strict import StrictRoute
from godwit.server.api.tables import Coded, Table, named, points_table
from godwit.server.platform import Platform
from godwit.server.telemetry.store import Aggregate, Buckets

router = APIRouter(prefix="/api/v1", tags=["telemetry"], route_class=StrictRoute)

AGGREGATES: Final[tuple[Aggregate, ...]] = ("avg", "min", "max", "sum", "count", "first", "last", "p50", "p95")
ROWS_MAX: Final = 1_000_000
BUCKETS_MAX: Final = 200_000
_CONTENT: Final[dict[str, Any]] = {JSON: {}, CSV: {}, ARROW: {}, PARQUET: {}}
_FORMATS: Final[dict[int | str, dict[str, Any]]] = {200: {"description": "Columns", "content": _CONTENT}}

From = Annotated[str | None, Query(alias="from", max_length=64, description="RFC 3339, or a number since 1970")]
To = Annotated[str | None, Query(alias="to", max_length=64, description="exclusive")]
Last = Annotated[str | None, Query(max_length=16, description="back from now, such as 24h")]
Format = Annotated[Literal["json", "csv", "arrow", "parquet"] | None, Query(description="instead of Accept")]


def _aggregates(text: str) -> list[Aggregate]:
    asked = [each.strip() for each in text.split(",") if each.strip()]
    for each in asked:
        if each not in AGGREGATES:
            raise RejectedError(f"aggregate={each[:20]!r}: one of {', '.join(AGGREGATES)}", code="invalid-aggregate")
    if not asked:
        raise RejectedError(f"aggregate: some of {', '.join(AGGREGATES)}", code="invalid-aggregate")
    return list(dict.fromkeys(asked))  # type: ignore[arg-type]


def _every(text: str, start: int, end: int) -> int:
    every = duration_ns(text, "every")
    if (end - start) // every > BUCKETS_MAX:
        raise RejectedError(
            f"more than {BUCKETS_MAX} buckets: a shorter range or wider buckets", code="query-too-large"
        )
    return every


def _series(rooms: Platform, device_id: str, readings: str | None) -> dict[int, str]:
    """Return series number -> name of the readings that are asked for. Raises RejectedError (`not-found`)."""
    known = rooms.ingest.series_of(device_id)
    if readings is None:
        return {number: name for name, number in known.items()}
    asked = [each for each in readings.split(",") if each]
    for each in asked:
        if each not in known:
            raise RejectedError(f"the device has no reading {each[:64]!r}", code="not-found")
    return {known[each]: each for each in asked}


@router.get("/devices/{device_id}/telemetry", responses={**_FORMATS, **documented(404, 406)}, summary="Read telemetry")
def read(
    device_id: Id,
    request: Request,
    who: Who,
    rooms: Rooms,
    readings: Annotated[str | None, Query(max_length=4096, description="names, by commas; all without it")] = None,
    start: From = None,
    end: To = None,
    last: Last = None,
    every: Annotated[str | None, Query(max_length=16, description="bucket width, such as 5m")] = None,
    aggregate: Annotated[str, Query(max_length=128)] = "avg",
    points: Annotated[int | None, Query(ge=3, le=100_000, description="a chart of so many points (LTTB)")] = None,
    limit: Annotated[int, Query(ge=1, le=ROWS_MAX)] = 10_000,
    order: Literal["asc", "desc"] = "asc",
    format: Format = None,  # noqa: A002 - the query's own word
) -> Response:
    """Return points of a device by time; aggregated per bucket with `every`, or as a chart with `points`."""
    rooms.registry.device(who, device_id)
    media_type, encoders = chosen_format(request, format), request.app.state.encoders
    begins, ends = span(start, end, last)
    names = _series(rooms, device_id, readings)
    about = {"deviceId": device_id, "from": time_or_none(begins), "to": time_or_none(ends)}
    wanted = list(names)
    if every is not None and points is not None:
        raise RejectedError("every and points exclude each other", code="invalid-request")
    if every is not None:
        width, kinds = _every(every, begins, ends), _aggregates(aggregate)
        found = rooms.store.buckets(wanted or [-1], begins, ends, width, kinds)
        columns = {"time": found.time, "reading": named(found.series, names), **_by_name(found)}
        return respond(Table(columns), media_type, {**about, "every": every}, encoders)
    if points is not None:
        return respond(_chart(rooms, names, begins, ends, points), media_type, about, encoders)
    found_points = rooms.store.range(wanted or [-1], begins, ends, limit=limit + 1, newest_first=order == "desc")
    table = points_table(found_points, names)
    is_cut = len(table) > limit
    if is_cut:
        table = table.first(limit)
    return respond(table, media_type, {**about, "isCut": is_cut}, encoders)


def _by_name(found: Buckets) -> dict[str, Any]:
    return {str(name): column for name, column in found.columns.items()}


def _no_times() -> Any:
    import numpy as np  # noqa: PLC0415

    return np.zeros(0, np.int64)


def _chart(rooms: Platform, names: dict[int, str], begins: int, ends: int, points: int) -> Table:
    import numpy as np  # noqa: PLC0415

    times, values, codes = [_no_times()], [np.zeros(0)], [np.zeros(0, np.int32)]
    for code, number in enumerate(names):
        time, value = rooms.store.chart(number, begins, ends, points)
        times.append(time)
        values.append(value)
        codes.append(np.full(len(time), code, np.int32))
    labels = Coded(np.concatenate(codes), list(names.values()))
    return Table({"time": np.concatenate(times), "reading": labels, "value": np.concatenate(values)})


@router.get("/devices/{device_id}/telemetry/latest", responses=documented(404), summary="The newest values")
def latest(device_id: Id, who: Who, rooms: Rooms) -> Response:
    """Return the newest value of each reading, with unit and quality."""
    rooms.registry.device(who, device_id)
    readings = {
        each.name: {
            "value": each.value,
            "unit": each.unit or None,
            "quality": each.quality,
            "time": time_or_none(each.time),
            "received": time_or_none(each.received),
        }
        for each in rooms.ingest.latest(device_id)
    }
    return answer({"deviceId": device_id, "readings": readings})


@router.post(
    "/devices/{device_id}/telemetry",
    status_code=204,
    responses=documented(404, 413),
    summary="Hand in telemetry",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {"type": "object"},
                    "example": {"timestamp": "2024-01-15T10:30:00Z", "sensors": {"temperature": 23.5}},
                }
            },
        }
    },
)
async def submit(device_id: Id, request: Request, who: Operator, rooms: Rooms) -> Response:
    """Ingest a message in any shape of the contract; answered once it is stored.

    A message that cannot be accepted is kept in quarantine and answered 422 with its reason.
    """
    from asyncio import to_thread  # noqa: PLC0415

    await to_thread(rooms.registry.device, who, device_id)
    payload = await read_body(request, PAYLOAD_BYTES_MAX)
    content_type = request.headers.get("content-type")
    outcome = await rooms.ingest.submit(device_id, Channel.TELEMETRY, payload, content_type=content_type)
    if outcome.code:
        raise MalformedError(f"{outcome.detail} (the message is in quarantine)", code=outcome.code)
    return Response(status_code=204)


@router.get("/telemetry", responses={**_FORMATS, **documented(404, 406)}, summary="One reading over the fleet")
def fleet(
    request: Request,
    who: Who,
    rooms: Rooms,
    reading: Annotated[str, Query(min_length=1, max_length=128)],
    start: From = None,
    end: To = None,
    last: Last = None,
    every: Annotated[str, Query(max_length=16)] = "1h",
    aggregate: Annotated[str, Query(max_length=128)] = "avg",
    format: Format = None,  # noqa: A002
) -> Response:
    """Aggregate a reading over all devices that have it, per bucket."""
    media_type, encoders = chosen_format(request, format), request.app.state.encoders
    begins, ends = span(start, end, last)
    series = rooms.ingest.series_named(reading, who.tenants)
    about = {"reading": reading, "devices": len(series), "every": every}
    width = _every(every, begins, ends)
    wanted = _aggregates(aggregate)
    found = rooms.store.fleet_buckets(list(series.values()) or [-1], begins, ends, width, wanted)
    return respond(Table({"time": found.time, **_by_name(found)}), media_type, about, encoders)
