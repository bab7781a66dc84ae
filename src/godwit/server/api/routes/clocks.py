"""Clocks: how far off that of a device is and how it drifts, and the whole fleet's, the worst first."""

from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Query, Response

from godwit.server.api.access import Id, Rooms, Who
from godwit.server.api.answers import answer, time_or_none
from godwit.server.api.problems import documented
from godwit.server.api.strict import StrictRoute
from godwit.server.ingest import clock_report
from godwit.server.ingest.clock_report import ClockReport

router = APIRouter(prefix="/api/v1", tags=["clocks"], route_class=StrictRoute)


def _document(report: ClockReport) -> dict[str, Any]:
    document: dict[str, Any] = msgspec.to_builtins(report)
    document["measured"], document["stepped"] = time_or_none(report.measured), time_or_none(report.stepped)
    if not report.is_drift_known:
        document["driftPpm"] = None
    return document


@router.get("/clocks", responses=documented(), summary="The clocks of the fleet")
def clocks(
    who: Who,
    rooms: Rooms,
    search: Annotated[str, Query(max_length=128, description="part of the device id")] = "",
    sort: Literal["offset", "drift", "uncertainty", "measured", "steps", "deviceId"] = "offset",
    order: Literal["asc", "desc"] = "desc",
    offset: Annotated[int, Query(ge=0, le=10_000_000)] = 0,
    limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
) -> Response:
    """Return devices whose clock was compared with the platform's, the worst first, and the fleet at a glance.

    Offset is the device's clock minus ours; it may be off by `uncertaintyNs`. `driftPpm` is null until it is known.
    """
    reports = rooms.ingest.clocks(who.tenants)
    items, total = clock_report.page(reports, search, sort, offset, limit, descending=order == "desc")
    fleet = clock_report.fleet(reports)
    return answer({"items": [_document(each) for each in items], "total": total, "fleet": fleet})


@router.get("/devices/{device_id}/clock", responses=documented(404), summary="The clock of a device")
def clock(device_id: Id, who: Who, rooms: Rooms) -> Response:
    """Return what is known of a device's clock; `measured` is null while it was never compared with ours."""
    rooms.registry.device(who, device_id)
    report = rooms.ingest.clock(device_id)
    return answer(_document(report) if report is not None else {"deviceId": device_id, "measured": None})
