"""Is the right server let in whatever the device's clock says, and the wrong one never?"""

import datetime as dt
import ssl
from pathlib import Path

import pytest
from authorities import DAY, NOW, NS, Authority

from godwit.contract.errors import MalformedError, RejectedError, UnavailableError
from godwit.device.clock import BUILT_NS
from godwit.device.identity_file import fingerprint
from godwit.device.trust import TimeGuard, Trust, read_fingerprint, read_pems
from godwit.mqtt.tls import server_context
from godwit.runtime.clock import VirtualClock

YEAR = 365 * DAY


def ns(time: dt.datetime) -> int:
    return int(time.timestamp()) * NS


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def wire(tmp_path: Path, authority: Authority) -> "Wire":
    return Wire(tmp_path, authority)


class Wire:
    """A TLS handshake in memory."""

    def __init__(self, directory: Path, authority: Authority) -> None:
        self._directory, self._authority = directory, authority

    def __call__(
        self, context: ssl.SSLContext, begins: dt.datetime, ends: dt.datetime, *, name: str = "127.0.0.1",
        authority: Authority | None = None,
    ) -> ssl.SSLObject:  # fmt: skip
        chain, key = (authority or self._authority).server(begins, ends)
        files = self._directory / "server.crt", self._directory / "server.key"
        for path, text in zip(files, (chain, key), strict=True):
            path.write_text(text)
        there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
        server = server_context(*files).wrap_bio(there, back, server_side=True)
        client = context.wrap_bio(back, there, server_hostname=name)
        for _ in range(3):
            for side in (client, server):
                try:
                    side.do_handshake()
                except ssl.SSLWantReadError:
                    continue
        return client


@pytest.mark.parametrize(
    "wall",
    [dt.datetime(1970, 1, 1, tzinfo=dt.UTC), dt.datetime(2000, 1, 1, tzinfo=dt.UTC), NOW - DAY, NOW],
    ids=["1970", "2000", "yesterday", "right"],
)
def test_a_clock_that_is_behind_locks_nobody_out(wire: Wire, authority: Authority, wall: dt.datetime) -> None:
    guard = TimeGuard(VirtualClock(max(0, ns(wall))))
    trust = Trust(guard)
    seen = trust.inspect(wire(trust.context((authority.root,)), NOW, NOW + YEAR))
    assert seen.root == fingerprint(authority.root)
    assert guard.now_ns() >= ns(NOW), "a certificate of our authority says that it is not earlier"


@pytest.mark.parametrize("wall", [0, ns(NOW - 400 * DAY)], ids=["1970", "set back"])
def test_what_ended_stays_ended_whatever_the_clock_says(wire: Wire, authority: Authority, wall: int) -> None:
    trust = Trust(TimeGuard(VirtualClock(wall), floor=ns(NOW)))
    with pytest.raises(UnavailableError, match="ended on 2026-05-31") as refused:
        trust.inspect(wire(trust.context((authority.root,)), NOW - 90 * DAY, NOW - DAY))
    assert refused.value.code == "server-certificate-ended"
    assert "our clock says 2026-06-01 00:00 UTC" in str(refused.value)


def test_strangers_are_strangers(wire: Wire, authority: Authority) -> None:
    trust = Trust(TimeGuard(VirtualClock(ns(NOW))))
    context = trust.context((authority.root,))
    with pytest.raises(ssl.SSLCertVerificationError, match=r"unable to get|self-signed"):
        wire(context, NOW, NOW + DAY, authority=Authority("somebody"))
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        wire(context, NOW, NOW + DAY, name="127.0.0.2")
    system = Trust.context((Authority("another").root,))
    with pytest.raises(ssl.SSLCertVerificationError):
        wire(system, NOW, NOW + DAY)


def test_time_goes_on_from_what_is_known() -> None:
    clock = VirtualClock(0)
    guard = TimeGuard(clock, floor=0)
    assert guard.now_ns() == BUILT_NS, "never before it was built"
    guard = TimeGuard(clock, floor=ns(NOW))
    clock.advance(60)
    assert guard.now_ns() == ns(NOW) + 60 * NS
    clock.set_now_ns(ns(NOW + DAY))
    assert guard.now_ns() == ns(NOW + DAY), "a clock that may be right is believed"
    clock.set_now_ns(ns(NOW - DAY))
    assert guard.now_ns() == ns(NOW) + 60 * NS
    clock.set_now_ns(2**62)
    assert guard.now_ns() == ns(NOW) + 60 * NS, "no clock is right that says 2116"


def test_the_platforms_time_counts_for_more_than_our_clock() -> None:
    clock = VirtualClock(ns(NOW + 3_000 * DAY))  # years ahead
    guard = TimeGuard(clock)
    latest = ns(NOW + 5_000 * DAY)
    assert guard.told(ns(NOW), latest)
    clock.advance(5)
    assert guard.now_ns() == ns(NOW) + 5 * NS
    assert not guard.told(ns(NOW - DAY), latest), "it does not go back"
    assert not guard.told(latest, latest), "nor to where there is no way back from"
    assert guard.known_ns == ns(NOW) + 5 * NS


def test_fingerprints_as_people_write_them(authority: Authority, tmp_path: Path) -> None:
    plain = fingerprint(authority.root)
    colons = ":".join(plain[at : at + 2] for at in range(0, 64, 2)).upper()
    for text in (plain, colons, f"SHA256:{plain}", f" {plain}\n"):
        assert read_fingerprint(text) == plain
    for wrong in ("", plain[:-1], "x" * 64):
        with pytest.raises(MalformedError):
            read_fingerprint(wrong)
    both = tmp_path / "ca.pem"
    both.write_text(authority.root + Authority("other").root)
    assert len(read_pems(both)) == 2
    for wrong_file in (tmp_path / "none", tmp_path / "empty"):
        (tmp_path / "empty").touch()
        with pytest.raises(RejectedError) as refused:
            read_pems(wrong_file)
        assert refused.value.code == "ca-file"
