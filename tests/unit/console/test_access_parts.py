"""What the pages about access draw, and what their forms say."""

import asyncio

import pytest
from starlette.requests import Request

from godwit.contract.errors import RejectedError
from godwit.server.accounts.principal import Principal
from godwit.server.console.changes import changes
from godwit.server.console.forms import form_of, number, posted
from godwit.server.console.pages.access import grants_from_lines
from godwit.server.console.token_parts import grants_from, token_form

EVIL = "<script>alert(1)</script>"


def test_a_change_is_told_field_by_field() -> None:
    before = {"name": "Press", "tags": {"hall": "1"}, "updated": 1, "same": "x", "created": 10**18}
    after = {"name": "Press 7", "tags": {"hall": "2"}, "updated": 2, "same": "x", "note": None, "created": 10**18 + 1}
    shown = changes(before, after)
    assert "<del>Press</del> <ins>Press 7</ins>" in shown
    assert "<dt>tags.hall</dt><dd><del>1</del> <ins>2</ins></dd>" in shown
    assert "2001-09-09T01:46:40" in shown  # times are for people
    assert "updated" not in shown
    assert "same" not in shown
    assert "note" not in shown
    assert "nothing differs" in changes(None, None)


def test_of_much_that_differs_the_first_fields_are_seen_and_the_others_opened() -> None:
    shown = changes(None, {f"field{number}": "x" for number in range(9)} | {"created": 10**18}, "line-7")
    seen, folded = shown.split("<details")
    assert (seen.count("<dt>"), folded.count("<dt>")) == (2, 7)
    assert 'data-key="line-7"' in folded  # it stays open when the page is pushed anew
    assert "7 more fields" in folded
    assert "created" not in shown
    assert "<details" not in changes({"a": 1}, {"a": 2, "b": "x", "c": "y"})


def test_what_strangers_wrote_does_not_run_in_the_audit_log() -> None:
    assert EVIL not in changes({EVIL: EVIL}, {"x": [EVIL]})
    assert EVIL not in changes(None, EVIL)


def test_rights_in_words() -> None:
    assert grants_from_lines("*: viewer, acme: admin") == {"*": "viewer", "acme": "admin"}
    assert grants_from_lines("") == {}
    for wrong in ("viewer", "acme: king", "acme=admin"):
        with pytest.raises(RejectedError):
            grants_from_lines(wrong)
    assert grants_from({"role": "viewer", "tenants": "a, b,"}) == {"a": "viewer", "b": "viewer"}
    assert grants_from({"role": "viewer", "tenants": " "}) == {"*": "viewer"}


@pytest.mark.parametrize("argument", ["", "[]", "null", "{", "1"])
def test_a_form_that_was_made_up_is_refused(argument: str) -> None:
    with pytest.raises(RejectedError) as refused:
        form_of(argument)
    assert refused.value.code == "invalid-form"


def test_numbers_of_a_form_are_bounded() -> None:
    assert number({"uses": "12"}, "uses", 1) == 12
    assert (number({}, "uses", 1), number({"uses": ""}, "uses", 1)) == (1, 1)
    for wrong in ("-1", "1.5", "٣", "9" * 10, "9" * 5_000):
        with pytest.raises(RejectedError) as refused:
            number({"uses": wrong}, "uses", 1)
        assert refused.value.code == "invalid-form"


def test_a_form_is_read_no_further_than_it_may_be_long() -> None:
    taken = []

    async def receive() -> dict[str, object]:
        taken.append(1)
        return {"type": "http.request", "body": b"ids=" + b"x" * 1_000, "more_body": True}

    with pytest.raises(RejectedError) as refused:
        asyncio.run(posted(Request({"type": "http", "method": "POST", "headers": []}, receive), 5_000))
    assert refused.value.code == "payload-too-large"
    assert len(taken) == 5


def test_nobody_is_offered_a_role_above_his_own() -> None:
    assert 'value="admin"' not in token_form(Principal("eve", role="operator"))
    assert 'value="admin"' in token_form(Principal("ada"))
