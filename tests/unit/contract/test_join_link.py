"""Is the link of a claim read as it was written, and refused where it is not one?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from godwit.contract.errors import MalformedError
from godwit.contract.join_link import JoinLink, read_join_link

CLAIM = "gwc_" + "aB3-_" * 8
ROOT = "5f1d" * 16


@given(
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}", fullmatch=True), st.sampled_from(["iot.example.org", "fd00::7"])
)
def test_what_is_written_is_read(device_id: str, host: str) -> None:
    link = JoinLink(host, 8883, 8443, CLAIM, ROOT, device_id)
    assert read_join_link(link.text()) == link


def test_a_link_for_any_device() -> None:
    link = JoinLink("iot.example.org", 8883, 0, CLAIM, ROOT)
    assert link.text() == f"godwit://iot.example.org:8883/join?claim={CLAIM}&ca={ROOT}"
    assert read_join_link(link.text()).device_id == ""


@pytest.mark.parametrize(
    "text",
    [
        "", "godwit:", f"https://h:1/join?claim={CLAIM}&ca={ROOT}", f"godwit://h/join?claim={CLAIM}&ca={ROOT}",
        f"godwit://h:99999/join?claim={CLAIM}&ca={ROOT}", f"godwit://h:1/leave?claim={CLAIM}&ca={ROOT}",
        f"godwit://h:1/join?claim={CLAIM}&ca=5f", f"godwit://h:1/join?claim=secret&ca={ROOT}",
        f"godwit://h:1/join?claim={CLAIM}&ca={ROOT}&https=x", f"godwit://h:1/join?claim={CLAIM}&ca={ROOT}&https=70000",
        f"godwit://h:1/join?claim={CLAIM}&ca={ROOT}&device=%2F..", f"godwit://[h:1/join?claim={CLAIM}&ca={ROOT}",
        f"godwit://h:1/join?claim={CLAIM}&ca={ROOT}&device={'a' * 1_024}",
    ],
)  # fmt: skip
def test_what_is_no_link_is_refused(text: str) -> None:
    with pytest.raises(MalformedError):
        read_join_link(text)
