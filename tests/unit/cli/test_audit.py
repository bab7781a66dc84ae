"""What `godwit audit` prints, and when it fails."""

from godwit.cli.audit import is_failure, report
from godwit.cli.tenant import table

FOUND = {
    "counts": {"critical": 0, "high": 1, "medium": 0, "low": 0, "info": 2},
    "findings": [
        {
            "severity": "high", "title": "Title", "why": "Why.", "todo": "Do it.", "count": 7,
            "affected": [{"kind": "device", "name": f"d-{number}", "detail": "x"} for number in range(7)],
        }
    ],
    "passed": [{}] * 3,
}  # fmt: skip


def test_it_fails_at_the_severity_that_is_said_or_more() -> None:
    assert is_failure(FOUND, "high")
    assert is_failure(FOUND, "info")
    assert not is_failure(FOUND, "critical")
    assert not is_failure(FOUND, "never")


def test_the_report_names_the_first_and_says_what_to_do() -> None:
    text = report(FOUND)
    assert text.startswith("HIGH     Title (7)\n")
    assert "- device d-4: x" in text
    assert "d-5" not in text
    assert "and 2 more" in text
    assert "What to do: Do it." in text
    assert text.endswith("1 high, 2 info; 3 checks found nothing.")
    nothing = {"counts": dict.fromkeys(FOUND["counts"], 0), "findings": [], "passed": [{}]}
    assert report(nothing) == "Nothing found; 1 checks found nothing."


def test_tenants_are_a_table() -> None:
    fields = ("devices", "connections", "messagesPerS", "bytesPerS", "retainedBytes", "quarantineBytes", "requestsPerS")
    quota = dict.fromkeys(fields, 0)
    use = {"connections": 3, "messagesPerS": 0.25}
    rows = table([
        {"name": "acme", "devices": 12, "quota": quota | {"messagesPerS": 5}, "use": use},
        {"name": "b", "devices": 0, "quota": quota, "use": use},
    ]).splitlines()  # fmt: skip
    assert rows[1].split() == ["acme", "12", "3", "0.2", "messages", "5"]
    assert rows[2].endswith("as the settings say")
