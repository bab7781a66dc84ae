"""Does a device find its way in, and stay in, whatever its platform says?"""

import asyncio
import datetime as dt
from pathlib import Path
from typing import Any

import msgspec
import pytest
from authorities import DAY, Authority
from stage import DEVICE, NOTICES, RENEW, Stage, now, staged, until

from godwit.contract.enrollment import EnrollmentGrant, EnrollmentRequest, encode
from godwit.contract.notices import NewAuthorities, encode_new_authorities
from godwit.device import Device
from godwit.device.enrollment import read_grant
from godwit.device.identity import Identity
from godwit.device.identity_file import State, fingerprint
from godwit.device.power import PowerPolicy
from godwit.mqtt import reasons


def test_it_hands_on_its_configuration(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        given: list[dict[str, Any]] = [{"intervalS": 10}, {"intervalS": 10}, {"intervalS": 20}]
        left = list(given)
        stage.platform.answer = lambda asked: msgspec.structs.replace(stage.grant(asked), configuration=left.pop(0))
        heard: list[dict[str, Any]] = []
        async with stage.device(on_configuration=heard.append) as device:
            assert device.configuration is None
            for turn in range(1, 4):
                await until(lambda turn=turn: len(stage.certificates) == turn and device.is_settled)
                await until(lambda turn=turn: device.configuration == given[turn - 1])
                if turn < 3:
                    await device.send(n=turn, wait="stored")
                    stage.platform.publish(NOTICES, RENEW)
        assert heard == [given[0], given[2]], "what is the same is no news"
        async with stage.device(claim=None, on_configuration=heard.append) as device:
            assert device.configuration == given[2]
        assert len(heard) == 2

    staged(tmp_path, play)


def test_it_enrolls_and_renews_when_told(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        platform = stage.platform
        async with stage.device() as device:
            await device.send(n=0)
            for turn in range(1, 4):
                await device.send(n=turn, wait="stored")
                platform.publish(NOTICES, RENEW)
                await device.send(n=10 * turn)
                await until(lambda turn=turn: len(stage.certificates) == turn + 1)
            await device.flush()
        assert platform.connects[0] == ("", "claim-1")
        assert [each.claim for each in platform.requests] == [None] * 4, "the claim is the connection's"
        assert len({each.request for each in platform.requests}) == 4, "each with a key of its own"
        assert platform.requests[0].trusts == [fingerprint(stage.authority.root)]
        assert sorted(stage.sent) == [0, 1, 2, 3, 10, 20, 30]
        statuses = [msgspec.json.decode(each) for each in platform.payloads if each[:1] == b"{"]
        assert statuses[0]["trusts"] == [fingerprint(stage.authority.root)]
        async with stage.device(claim=None, identity=tmp_path / "identity", ca_fingerprint=None) as device:
            await device.send(n=99, wait="stored")
        assert len(platform.connects) == 6

    staged(tmp_path, play)


def test_it_renews_by_itself_and_wakes_for_it(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        stage.lifetime = dt.timedelta(seconds=3)
        sleepy = PowerPolicy(samples=1_000, linger_s=0.01)
        async with stage.device(power=sleepy, health_every_s=None) as device:
            await until(lambda: len(stage.certificates) == 1)
            await until(lambda: not device.is_connected)
            await until(lambda: len(stage.certificates) == 3)

    staged(tmp_path, play)


def test_a_new_certificate_that_does_not_work_costs_nothing(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        platform = stage.platform
        async with stage.device() as device:
            await device.send(n=1, wait="stored")
            (first,) = stage.certificates
            platform.is_welcome = lambda shown: shown == first
            platform.publish(NOTICES, RENEW)
            await until(lambda: len(platform.connects) == 3 and device.is_settled)
            assert platform.connects == [("", "claim-1"), (first, ""), (first, "")]
            await device.send(n=2, wait="stored")
            platform.is_welcome = lambda _: True
            platform.publish(NOTICES, RENEW)
            await until(lambda: len(stage.certificates) == 2)
            await device.send(n=3, wait="stored")
        assert stage.sent == [1, 2, 3]

    staged(tmp_path, play)


def test_silence_and_refusals_are_borne(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        stage.lifetime = dt.timedelta(seconds=60)  # an answer is waited for for 5 s at this pace
        platform, answers = stage.platform, ["weak-key", "rate-limited", "cut", "good"]

        def answer(asked: EnrollmentRequest) -> EnrollmentGrant | None:
            said = answers.pop(0)
            if said == "cut":
                asyncio.get_running_loop().call_soon(platform.cut)
                return None
            return stage.grant(asked) if said == "good" else EnrollmentGrant(asked.device_id, code=said, message="no")

        async with stage.device() as device:
            await device.send(n=1, wait="stored")
            platform.answer = answer
            platform.publish(NOTICES, RENEW)
            await until(lambda: "renewal" in device.errors)
            assert device.errors["renewal"].message == "weak-key: no"
            await until(lambda: len(stage.certificates) == 2)
            await until(lambda: "renewal" not in device.errors)
            await device.send(n=2, wait="stored")
        asked = [each.request for each in platform.requests]
        assert asked[0] != asked[1], "what is refused is not asked again"
        assert asked[1] != asked[2], "a request that was refused for good is made anew"
        assert len(set(asked[2:])) == 1, "what was not answered is"

    staged(tmp_path, play)


def test_a_wish_that_comes_while_a_refusal_is_written_down_is_not_put_off_by_it(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        platform = stage.platform
        async with stage.device() as device:
            await device.send(n=1, wait="stored")
            platform.answer = lambda asked: EnrollmentGrant(asked.device_id, code="weak-key", message="no")
            platform.publish(NOTICES, RENEW)
            await until(lambda: "renewal" in device.errors)
            platform.answer = stage.grant
            platform.publish(NOTICES, RENEW)
            async with asyncio.timeout(20):  # the wait after a refusal is longer: it has not begun anew
                await until(lambda: len(stage.certificates) == 2)

    staged(tmp_path, play)


def test_a_request_outlives_the_device(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        platform = stage.platform
        platform.answer = lambda _: None
        async with stage.device():
            await until(lambda: platform.requests)
        platform.answer = stage.grant
        async with stage.device() as device:
            await device.send(n=1, wait="stored")
        first, *others = [each.request for each in platform.requests]
        assert set(others) == {first}, "the same key asks again: a claim is bound to it"

    staged(tmp_path, play)


def test_another_root_is_announced_and_used(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        platform, old, new = stage.platform, stage.authority, Authority("new root", begins=now() - DAY)
        async with stage.device() as device:
            await device.send(n=1, wait="stored")
            both = [old.root, new.root]
            notice = encode_new_authorities(NewAuthorities(both, fingerprint(new.root)))
            platform.publish(NOTICES, notice)
            await until(lambda: fingerprint(new.root).encode() in b"".join(platform.payloads))  # it says so
            platform.serves, platform.trusted = stage.served(new), both
            platform.cut()
            await device.send(n=2, wait="stored")
            stage.authority = new
            platform.publish(NOTICES, RENEW)
            await until(lambda: len(stage.certificates) == 2)
            await device.send(n=3, wait="stored")
        identity = Identity(tmp_path / "identity", DEVICE)
        assert identity.kept.trusted == (new.root,), "the old one is gone"
        identity.close()

    staged(tmp_path, play)


@pytest.mark.parametrize("road", ["claim", "certificate", "token"])
def test_nothing_is_told_to_a_stranger(tmp_path: Path, road: str) -> None:
    async def play(stage: Stage) -> None:
        platform, stranger = stage.platform, Authority("stranger", begins=now() - DAY)
        ca = tmp_path / "ca.pem"
        ca.write_text(stage.authority.root)
        if road == "certificate":
            async with stage.device() as device:
                await device.send(n=1, wait="stored")
        platform.connects.clear()
        platform.serves = stage.served(stranger)
        more = {"token": "secret", "claim": None, "identity": False} if road == "token" else {}
        async with stage.device(ca=ca, ca_fingerprint=None, **more) as device:
            await until(lambda: "verify failed" in device.trouble)
        platform.serves = stage.served(stage.authority, ends=now() - DAY / 24)
        async with stage.device(ca=ca, ca_fingerprint=None, **more) as device:
            await until(lambda: "ended on" in device.trouble)
        assert not platform.connects

    staged(tmp_path, play)


def test_a_fingerprint_that_nobody_has(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        async with stage.device(ca_fingerprint="00" * 32) as device:
            await until(lambda: "somebody else answers in the server's place" in device.trouble)
            assert device.is_stuck
        assert not stage.platform.connects

    staged(tmp_path, play)


def test_a_claim_helps_where_the_certificate_has_ended(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        platform = stage.platform
        stage.lifetime = dt.timedelta(seconds=1)
        async with stage.device() as device:
            await until(lambda: device.is_settled)
        (ended,) = stage.certificates
        platform.is_welcome = lambda name: name != ended  # it has no grace
        await asyncio.sleep(1.1)
        stage.lifetime = 90 * DAY
        platform.claim = "claim-2"
        async with stage.device(claim="claim-2") as device:
            await device.send(n=1, wait="stored")
            await until(lambda: device.is_settled)
        assert ("", "claim-2") in platform.connects

    staged(tmp_path, play)


def test_an_answer_to_another_request_is_passed_over(tmp_path: Path) -> None:
    """One that comes late, for a key that was given up, does not cost the one that is asked for."""

    async def play(stage: Stage) -> None:
        stray = Identity(tmp_path / "stray", DEVICE)
        late = stage.grant(EnrollmentRequest(DEVICE, stray.ask().request))
        stray.close()
        whole = stage.grant

        def twice(asked: EnrollmentRequest) -> EnrollmentGrant:
            for wire in stage.platform.wires:
                wire.publish(f"enrollment/{DEVICE}/grant", encode(late))
            return whole(asked)

        stage.platform.answer = twice
        async with stage.device() as device:
            await until(lambda: device.is_settled)
            stage.platform.publish(NOTICES, RENEW)
            await until(lambda: len(stage.certificates) == 2 and device.is_settled)
            assert not device.errors
        assert len(stage.platform.requests) == 2, "neither was asked for again"

    staged(tmp_path, play)


@pytest.mark.parametrize("knows", ["the time", "no time", "of another"])
def test_a_certificate_that_ended_renews_itself_where_the_platform_has_grace(tmp_path: Path, knows: str) -> None:
    """With a clock that knows it, with one that does not, and after a cut between two certificates; without a claim."""

    async def play(stage: Stage) -> None:
        platform = stage.platform
        brief = 3.0  # it renews itself after two thirds of that: on a slow machine it has to be in use before
        stage.lifetime = dt.timedelta(seconds=brief) if knows == "the time" else 90 * DAY
        async with stage.device() as device:
            await until(lambda: device.is_settled)
        (ended,) = stage.certificates
        if knows == "of another":  # which never came into use, and ended with it
            identity = Identity(tmp_path / "identity", DEVICE)
            asked = identity.ask()
            grant = stage.grant(EnrollmentRequest(DEVICE, asked.request))
            identity.take(read_grant(grant, DEVICE, identity.key(asked).public_key()))
            assert identity.kept.next is not None
            unused = fingerprint(identity.kept.next.certificate)
            identity.close()
        else:
            unused = ""
            await asyncio.sleep(brief + 0.1 if knows == "the time" else 0.0)
        stage.lifetime = 90 * DAY
        platform.only_renews, platform.is_welcome = {ended}, lambda name: name != unused
        async with stage.device(claim=None) as device:
            await device.send(n=1, wait="stored")
            await until(lambda: device.is_settled)
            assert not device.errors
        assert stage.sent == [1]
        assert platform.renewed == [ended]
        identity = Identity(tmp_path / "identity", DEVICE)
        assert identity.state is State.SETTLED
        identity.close()

    staged(tmp_path, play)


@pytest.mark.parametrize(
    ("refusal", "is_stuck"), [(reasons.SERVER_BUSY, False), (reasons.QUOTA_EXCEEDED, False), (reasons.BANNED, True)]
)
def test_a_refusal_is_taken_for_what_it_is(tmp_path: Path, refusal: int, is_stuck: bool) -> None:
    async def play(stage: Stage) -> None:
        async with stage.device() as device:
            await until(lambda: device.is_settled)
        stage.platform.refusal, stage.platform.is_welcome = refusal, lambda _: False
        async with stage.device() as device:
            await until(lambda: "refuses us" in device.trouble)
            await asyncio.sleep(0)
            assert device.is_stuck is is_stuck

    staged(tmp_path, play)


def test_a_refused_claim_is_for_a_person(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        async with stage.device(claim="wrong") as device:
            await until(lambda: device.is_stuck)
            assert "not authorized" in device.trouble
        spent = EnrollmentGrant(DEVICE, code="claim-spent", message="it was used")
        stage.platform.answer = lambda _: spent
        async with stage.device() as device:
            await until(lambda: device.is_stuck)
            assert device.trouble == "it was used"
        identity = Identity(tmp_path / "identity", DEVICE)
        assert identity.state is State.ASKING
        identity.close()

    staged(tmp_path, play)


def test_tokens_are_not_for_plaintext() -> None:
    with pytest.raises(Exception, match="a token needs TLS"):
        Device(DEVICE, token="secret")
