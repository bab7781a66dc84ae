"""Does the broker page show what strangers named themselves as text, and find its way from an address?"""

from urllib.parse import parse_qsl

from godwit.server.broker.inspection import ConnectionRow, SessionRow, SubscriptionRow
from godwit.server.console.pages.broker import Wanted, render_rows, wanted_from

EVIL = "\"><script>alert(1)</script>'"


def test_nothing_that_a_client_calls_itself_becomes_markup() -> None:
    connection = ConnectionRow(EVIL, EVIL, 1, EVIL, EVIL, "5", 1, 60, 1, 1, 1, 1, 1, 1, 1.0, 1, 1)
    session = SessionRow(EVIL, True, True, 60, 0, 1, 1, 1, 1, 1)
    subscription = SubscriptionRow(EVIL, EVIL, True, 1, True, True, 1)
    for table, row in (("connections", connection), ("sessions", session), ("subscriptions", subscription)):
        shown = render_rows(Wanted(table), [row], 1)
        assert "&lt;script" in shown
        assert "<script" not in shown
        assert EVIL not in shown


def test_an_address_says_what_is_wanted() -> None:
    wanted = wanted_from({"table": "sessions", "q": "a", "sort": "-queued"})
    assert wanted == Wanted("sessions", "a", "queued", descending=True)
    assert wanted_from(dict(parse_qsl(wanted.address()))) == wanted
    assert wanted_from({"table": "nothing", "sort": "topicFilter"}) == Wanted()


def test_where_nothing_is_it_says_what_to_do() -> None:
    assert "godwit mqtt sub" in render_rows(Wanted(), [], 0)
    assert "Loosen the search" in render_rows(Wanted(search="x"), [], 0)
