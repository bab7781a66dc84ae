"""Does docs/contract.md say what the code does?"""

import re
from pathlib import Path

from godwit.contract import codes, limits, notices, telemetry
from godwit.contract.telemetry import decode
from godwit.contract.topics import Channel

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "contract.md").read_text()


def test_every_reason_code_is_explained_and_no_other() -> None:
    table = PAGE.partition("## Reason codes")[2]
    written = set(re.findall(r"`([a-z0-9]+(?:-[a-z0-9]+)+)`", table))
    assert written == {value for name, value in vars(codes).items() if name.isupper()}


def test_every_channel_is_named() -> None:
    def spread(found: re.Match[str]) -> str:
        return " ".join(f"{found[1]}/{each}" for each in found[2].split(","))

    names = re.sub(r"`(\w+)/\{([\w,]+)\}`", spread, PAGE)
    for channel in Channel:
        assert str(channel) in names, channel


def test_the_limits_are_those_of_the_code() -> None:
    table = PAGE.partition("## Limits")[2].partition("## Times")[0]
    assert f"{limits.PAYLOAD_BYTES_MAX >> 20} MiB, nested {limits.NESTING_MAX} deep" in table
    assert f"{limits.SAMPLES_PER_MESSAGE_MAX:,}; {limits.READINGS_PER_SAMPLE_MAX}" in table
    assert f"{limits.READING_NAME_CHARACTERS_MAX}; {limits.UNIT_CHARACTERS_MAX} printable" in table
    lengths = (limits.STREAM_CHARACTERS_MAX, limits.MESSAGE_ID_CHARACTERS_MAX, limits.FIRMWARE_VERSION_CHARACTERS_MAX)
    assert "{}; {}; {}".format(*lengths) in table
    assert limits.EPOCH_CHARACTERS_MAX == limits.STREAM_CHARACTERS_MAX


def test_gap_records_and_notices_that_are_shown_can_be_read() -> None:
    shown = [each.encode() for each in re.findall(r"```\n(\{.*?\})\n```", PAGE, re.DOTALL)]
    said = [each for each in shown if b'"code"' in each]
    codes_said = {notices.decode(each).code for each in said}
    assert codes_said == {
        notices.GAP_WANTED,
        notices.CLONE_DETECTED,
        notices.NEW_CA,
        notices.RENEW,
        notices.MESSAGE_KEYS,
    }
    assert all(notices.details_of(notices.decode(each)) for each in said)
    assert any(telemetry.decode(each).gaps for each in shown if each not in said)


def test_messages_about_clocks_that_are_shown_can_be_read() -> None:
    clocks = PAGE.partition("## Clocks")[2].partition("\n## ")[0]
    shown = re.findall(r"```json\n(.*?)```", clocks, re.DOTALL)
    assert len(shown) >= 2
    for each in shown:
        message = decode(each.encode())
        assert message.timing is not None
        assert not any(sample.code for sample in message.samples)
