"""The security audit: what is weak in the fleet and in the platform, why it matters, and what to do."""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Response

from godwit.server.api.access import Admin, Rooms
from godwit.server.api.answers import answer, time_or_none
from godwit.server.api.problems import documented
from godwit.server.api.strict import StrictRoute
from godwit.server.checks.audit import Audit, audit
from godwit.server.checks.facts import gather
from godwit.server.checks.model import Severity

router = APIRouter(prefix="/api/v1/security", tags=["security"], route_class=StrictRoute)


def _document(found: Audit, least: Severity) -> dict[str, Any]:
    shown = [each for each in found.findings if each.severity.rank >= least.rank]
    counts = {str(each): 0 for each in reversed(Severity)}
    for finding in found.findings:
        counts[finding.severity] += 1
    return {
        "at": time_or_none(found.at),
        "worst": found.worst,
        "counts": counts,
        "findings": [_finding(msgspec.to_builtins(each)) for each in shown],
        "passed": [{"code": each.code, "severity": each.severity, "title": each.title} for each in found.passed],
    }


def _finding(document: dict[str, Any]) -> dict[str, Any]:
    document["affected"] = [
        {"kind": kind, "name": name, "detail": detail} for kind, name, detail in document["affected"]
    ]
    return document


@router.get("/audit", responses=documented(403), summary="What is weak, and what to do")
def look(
    who: Admin,
    rooms: Rooms,
    severity: Annotated[Severity, Query(description="the least that is told")] = Severity.INFO,
) -> Response:
    """Make all checks now. Who administers some tenants gets what concerns them; `affected` names a hundred at most."""
    return answer(_document(audit(gather(rooms, who), is_whole=who.tenants is None), severity))
