"""Does the security page show what was found, as text, with where to go; and calm where nothing is?"""

from godwit.server.checks.audit import Audit, audit
from godwit.server.checks.model import NS, Affected, Facts, Finding, Severity
from godwit.server.console import security_parts
from godwit.server.settings import Settings

EVIL = "\"><script>alert(1)</script>'"


def finding(severity: Severity = Severity.HIGH, count: int = 1, kind: str = "device", name: str = "pump") -> Finding:
    things = [Affected(kind, f"{name}-{number}" if count > 1 else name, "said") for number in range(min(count, 100))]
    return Finding("some-code", severity, "A title", "Why.", "Do `this`.", count, things)


def test_nothing_that_somebody_called_something_becomes_markup() -> None:
    for kind in ("device", "client", "token", "authority"):
        shown = security_parts.findings([finding(kind=kind, name=EVIL)], is_filtered=False)
        assert "<script" not in shown
        assert "&lt;script" in shown


def test_a_finding_says_what_to_do_and_where() -> None:
    shown = security_parts.findings([finding(count=130)], is_filtered=False)
    assert "Why." in shown
    assert '<code class="mono">this</code>' in shown
    assert '/devices/pump-0"' in shown
    assert "130 devices" in shown
    assert "92 more, and 30 beyond these" in shown
    assert security_parts.address(Affected("client", "a b")) == "/broker?q=a+b"


def test_tiles_and_filters_count_by_severity() -> None:
    found = [finding(Severity.HIGH), finding(Severity.LOW), finding(Severity.LOW)]
    assert "All 3" in security_parts.filters(found, "")
    assert "Low 2" in security_parts.filters(found, "low")
    assert security_parts.filters([finding()], "") == ""
    assert "somebody could get in" in security_parts.tiles(found)


def test_calm_where_nothing_was_found() -> None:
    drawn = security_parts.render(Audit(NS, [], []), "")
    assert "Nothing found" in drawn["findings"]
    assert "godwit audit" in drawn["findings"]
    assert drawn["passed"] == drawn["filters"] == ""
    whole = security_parts.render(audit(Facts(now=NS, settings=Settings()), is_whole=True), "critical")
    assert "Nothing of this severity" in whole["findings"]
    assert "checks found nothing" in whole["passed"]
