"""The audit log: who changed what, from where, before and after; and who was refused. For administrators."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse

from godwit.contract.errors import RejectedError
from godwit.server.accounts import audit_file
from godwit.server.accounts.audit_file import MEDIA, download_headers, line_document
from godwit.server.accounts.principal import Principal
from godwit.server.api.access import Admin, Rooms
from godwit.server.api.answers import answer
from godwit.server.api.problems import documented
from godwit.server.api.spans import END_OF_TIME, time_of
from godwit.server.api.strict import StrictRoute
from godwit.server.storage import audit
from godwit.server.storage.audit import AuditFilter

router = APIRouter(prefix="/api/v1/audit", tags=["audit"], route_class=StrictRoute)

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
    content = audit_file.export(audit.pages(rooms.database, wanted), format)
    return StreamingResponse(content, media_type=MEDIA[format], headers=download_headers(format))
