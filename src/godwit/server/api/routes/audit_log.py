"""The audit log: who changed what, from where, before and after; and who was refused. For administrators."""

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse

from godwit.contract.errors import RejectedError
from godwit.server.accounts.principal import Principal
from godwit.server.api.access import Admin, Rooms
from godwit.server.api.answers import answer, time_or_none
from godwit.server.api.problems import documented
from godwit.server.api.spans import END_OF_TIME, time_of
from godwit.server.api.strict import StrictRoute
from godwit.server.storage import audit
from godwit.server.storage.audit import AuditFilter, AuditLine

router = APIRouter(prefix="/api/v1/audit", tags=["audit"], route_class=StrictRoute)

COLUMNS = ("number", "at", "who", "what", "about", "tenant", "address", "before", "after")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")

WhoWas = Annotated[str, Query(alias="who", max_length=128, description="a user; his tokens count as he")]
What = Annotated[str, Query(max_length=64, description="room.verb, or `room.` for all of a room")]
About = Annotated[str, Query(max_length=256, description="a device, user, certificate, ...")]
Tenant = Annotated[str | None, Query(max_length=64, description="'' for the installation's own")]
Begins = Annotated[str | None, Query(alias="from", max_length=64)]
Ends = Annotated[str | None, Query(alias="to", max_length=64)]


def filter_of(
    who: Principal, name: str, what: str, about: str, tenant: str | None, begins: str | None, ends: str | None
) -> AuditFilter:
    """Return which lines are asked for, as far as `who` may see them."""
    first = time_of(begins, "from") if begins is not None else 0
    last = time_of(ends, "to") if ends is not None else END_OF_TIME
    if last <= first:
        raise RejectedError("to lies before from", code="invalid-time")
    return AuditFilter(who.tenants, name, what, about, tenant, first, last)


def line_document(line: AuditLine) -> dict[str, Any]:
    """Return a line as the API shows it."""
    document: dict[str, Any] = msgspec.to_builtins(line)
    document["at"] = time_or_none(line.at)
    return document


@router.get("", responses=documented(), summary="Read the audit log")
def read(
    admin: Admin,
    rooms: Rooms,
    who: WhoWas = "",
    what: What = "",
    about: About = "",
    tenant: Tenant = None,
    begins: Begins = None,
    ends: Ends = None,
    before: Annotated[int | None, Query(ge=1, le=2**62, description="lines with numbers below this one")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Response:
    """Return lines of the tenants that you administer, the newest first; `before` of the answer opens the next page."""
    wanted = filter_of(admin, who, what, about, tenant, begins, ends)
    found = audit.lines(rooms.database, wanted, below=before, limit=limit)
    items = [line_document(each) for each in found]
    return answer({"items": items, "before": found[-1].number if len(found) == limit else None})


@router.get(
    "/export",
    responses={200: {"content": {"text/csv": {}, "application/x-ndjson": {}}}, **documented()},
    response_class=Response,
    summary="Export the audit log",
)
def export(
    admin: Admin,
    rooms: Rooms,
    who: WhoWas = "",
    what: What = "",
    about: About = "",
    tenant: Tenant = None,
    begins: Begins = None,
    ends: Ends = None,
    format: Literal["csv", "ndjson"] = "ndjson",  # noqa: A002 - the query's own word
) -> Response:
    """Return all lines as CSV or NDJSON, streamed."""
    wanted = filter_of(admin, who, what, about, tenant, begins, ends)
    return exported(audit.pages(rooms.database, wanted), format)


def exported(pages: Iterator[Sequence[AuditLine]], form: str) -> StreamingResponse:
    """Return the lines as a download."""
    content, media = (as_csv(pages), "text/csv; charset=utf-8") if form == "csv" else (
        as_ndjson(pages), "application/x-ndjson"
    )  # fmt: skip
    name = f"audit.{form}"
    headers = {"content-disposition": f'attachment; filename="{name}"', "cache-control": "no-store"}
    return StreamingResponse(content, media_type=media, headers=headers)


def as_ndjson(pages: Iterator[Sequence[AuditLine]]) -> Iterator[bytes]:
    """Return one JSON document a line."""
    for page in pages:
        yield b"".join(msgspec.json.encode(line_document(each)) + b"\n" for each in page)


def as_csv(pages: Iterator[Sequence[AuditLine]]) -> Iterator[bytes]:
    """Return a table; before and after are JSON. What a spreadsheet would take for a formula is kept from being one."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for page in pages:
        for each in page:
            document = line_document(each)
            document["before"], document["after"] = (
                "" if value is None else msgspec.json.encode(value).decode() for value in (each.before, each.after)
            )
            writer.writerow([_cell(document[name]) for name in COLUMNS])
        yield _taken(text)
    if rest := _taken(text):
        yield rest


def _taken(text: io.StringIO) -> bytes:
    data = text.getvalue().encode()
    text.seek(0)
    text.truncate()
    return data


def _cell(value: object) -> str:
    shown = "" if value is None else str(value)
    return f"'{shown}" if shown.startswith(_FORMULA) else shown
