"""With WORKERS=2, TLS is in other processes than the registry: does everything still count there within a second?"""

import contextlib
import datetime as dt
import os
import signal
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc import jwt
from joserfc.jwk import ECKey

sys.path.insert(0, str(Path(__file__).parent))

from fleet_certificates import Bundle, Maker, issue, pem_of, public_pem
from house import ADMIN, House
from line import Line, context_of, visit

from godwit.mqtt import packets as p
from godwit.server.accounts.principal import Principal
from godwit.server.identity.authorities import describe
from godwit.server.identity.model import AuthorityKind, AuthorityState
from godwit.server.registry.model import Device

pytestmark = pytest.mark.real

AT_ONCE_S = 1.0
SEVERAL = 6


@pytest.fixture(scope="module")
def house(house_of_all: Callable[..., House]) -> House:
    return house_of_all(workers=2, tls_minimum="1.3")


def workers(house: House) -> list[Any]:
    return list(house.server._road._crew.workers)


@contextlib.contextmanager
def only(house: House, at: int) -> Iterator[None]:
    """Have connections go to one worker: the other one sleeps for a moment."""
    others = [each for number, each in enumerate(workers(house)) if number != at % 2]
    for each in others:
        each.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for each in others:
            each.process.send_signal(signal.SIGCONT)


def come(house: House, at: int, bundle: Bundle | None, client_id: str, **how: Any) -> Line:
    """Come in at a worker."""
    with only(house, at):
        line = Line(house, bundle)
        assert line.come(client_id, **how) == 0, client_id
        there: Any = house.server._road._broker.clients[client_id].socket
        assert there.worker is workers(house)[at % 2]
    return line


def visits(house: House, bundle: Bundle | None, client_id: str, **how: Any) -> set[int]:
    """Come and go at each worker; return the reason codes."""
    found = set()
    for at in range(2):
        with only(house, at):
            found.add(visit(house, bundle, client_id, **how))
    return found


def check_end(line: Line, code: int, began: float) -> None:
    """See a session end with this code, and within a second."""
    assert line.end() == code
    assert time.monotonic() - began < AT_ONCE_S


def test_what_is_taken_away_ends_open_sessions_at_once_and_keeps_new_ones_out(house: House) -> None:
    bundles = {name: house.device(name) for name in ("w-revoked", "w-suspended", "w-retired", "w-moved")}
    house.registry.put_tenant(ADMIN, "acme")
    for name in ("w-token", "w-key", "w-erased"):
        house.registry.create_device(ADMIN, Device(name))
    token, secret = house.identity.device_tokens.create(ADMIN, "w-token")
    _, other = house.identity.device_tokens.create(ADMIN, "w-erased")
    key = ec.generate_private_key(ec.SECP256R1())
    known = house.identity.device_keys.register(ADMIN, "w-key", public_pem(key))
    now = int(time.time())
    signed = jwt.encode({"alg": "ES256"}, {"aud": "godwit", "iat": now, "exp": now + 60}, ECKey.import_key(pem_of(key)))
    program = house.server._accounts.tokens.create(
        Principal("admin"), "board", grants={"default": "operator"}, scopes=("mqtt:subscribe",)
    )
    ways: dict[str, tuple[Bundle | None, dict[str, Any]]] = {name: (each, {}) for name, each in bundles.items()}
    ways |= {
        "w-token": (None, {"username": "w-token", "password": secret.encode()}),
        "w-erased": (None, {"username": "w-erased", "password": other.encode()}),
        "w-key": (None, {"username": "w-key", "password": signed.encode()}),
        "board": (None, {"username": "board", "password": program.secret.encode()}),
    }
    acts: dict[str, Callable[[], object]] = {
        "w-revoked": lambda: house.identity.revocation.revoke(
            bundles["w-revoked"].fingerprint, "keyCompromise", "test"
        ),
        "w-suspended": lambda: house.registry.change_device(ADMIN, "w-suspended", {"lifecycle": "suspended"}),
        "w-retired": lambda: house.registry.retire_device(ADMIN, "w-retired"),
        "w-moved": lambda: house.identity.custody.transfer(ADMIN, "w-moved", "acme"),
        "w-erased": lambda: house.registry.erase_device(ADMIN, "w-erased"),
        "w-token": lambda: house.identity.device_tokens.revoke(ADMIN, "w-token", token.token_id),
        "w-key": lambda: house.identity.device_keys.retire(ADMIN, "w-key", known.key_id),
        "board": lambda: house.server._accounts.tokens.revoke(Principal("admin"), program.token.token_id),
    }
    lines = {name: come(house, at, bundle, name, **how) for at, (name, (bundle, how)) in enumerate(ways.items())}
    for name, act in acts.items():
        act()
        check_end(lines[name], 0x98, time.monotonic())
    refused = {name: visits(house, bundle, name, **how) for name, (bundle, how) in ways.items()}
    assert refused == {name: {0x87} for name in ways}


def test_a_session_ends_with_its_certificate(house: House) -> None:
    house.registry.create_device(ADMIN, Device("w-short"))
    brief = issue(house.identity, house.directory / "w-short", "w-short", lifetime=dt.timedelta(seconds=6))
    line = come(house, 1, brief, "w-short")
    assert line.end() == 0xA0
    assert 0 <= time.time() - brief.x509.not_valid_after_utc.timestamp() < AT_ONCE_S
    assert visits(house, brief, "w-short") == {0x87}


def test_an_authority_counts_in_every_worker_and_so_does_its_end(house: House, eventually: Callable[..., Any]) -> None:
    factory = Maker("works")
    devices = [f"w-part-{number}" for number in range(SEVERAL)]
    for name in devices:
        house.registry.create_device(ADMIN, Device(name))
    bundles = [factory.device(house.directory / name, name) for name in devices]
    assert visits(house, bundles[0], devices[0]) == {-1}
    eventually(lambda: "authority-unknown" in {each["code"] for each in house.refusals()})
    authority = msgspec.structs.replace(
        describe(factory.certificate, AuthorityKind.CUSTOMER), tenant="default", name="works"
    )
    house.identity.authorities.keep([(authority, None)], "test")
    eventually(lambda: visits(house, bundles[0], devices[0]) == {0})
    pairs = list(zip(devices, bundles, strict=True))
    lines = [come(house, at, bundle, name) for at, (name, bundle) in enumerate(pairs)]
    house.identity.authorities.set_state(authority.fingerprint, AuthorityState.RETIRED, "test")
    began = time.monotonic()
    for line in lines:
        check_end(line, 0x98, began)
    eventually(lambda: visits(house, bundles[0], devices[0]) == {-1})


def test_another_certificate_of_the_server_is_shown_by_every_worker(
    house: House, eventually: Callable[..., Any]
) -> None:
    def shown() -> set[bytes]:
        found = set()
        for at in range(2):
            with only(house, at):
                line = Line(house)
                found.add(line.wire.getpeercert(binary_form=True))
                line.close()
        return found

    before = shown()
    assert len(before) == 1
    house.identity.server.files.certificate.unlink()
    house.server._loop.call(house.identity.server.look())
    eventually(lambda: len(shown()) == 1 and shown() != before)
    pids = [worker.process.pid for worker in house.server._road._crew.workers]
    house.identity.server.files.certificate.write_text("half written")
    house.server._loop.soon(house.server._road.renew_tls)
    press = house.device("w-half")
    # a worker hears of the certificate before it hears that the device may come in: so it has survived that
    assert visits(house, press, "w-half") == {0}
    between = shown()
    house.server._loop.call(house.identity.server.look())
    eventually(lambda: len(found := shown()) == 1 and found != between)
    assert [worker.process.pid for worker in house.server._road._crew.workers] == pids


def test_only_the_same_identity_takes_over_whichever_worker_it_comes_to(house: House) -> None:
    press, other = house.device("w-twin"), house.device("w-other")
    _, secret = house.identity.device_tokens.create(ADMIN, "w-twin")
    program = house.server._accounts.tokens.create(
        Principal("admin"), "other", grants={"default": "operator"}, scopes=("mqtt:subscribe",)
    )
    by_token = {"username": "w-twin", "password": secret.encode()}
    lines: list[Line] = []

    for at in range(SEVERAL):  # by certificate against itself by token and back, at this worker and that
        is_token, where = bool(at & 1), at >> 1
        lines.append(come(house, where, None if is_token else press, "w-twin", **(by_token if is_token else {})))
        if at:
            assert lines[-2].end() == 0x8E
    assert visits(house, other, "w-twin") == {0x85}
    assert visits(house, None, "w-twin", username="x", password=program.secret.encode()) == {0x85}
    assert isinstance(lines[-1].say(p.PingReq()), p.PingResp)
    lines[-1].close()


def test_tls_1_2_is_not_spoken_by_a_worker_that_is_told_so_nor_by_one_that_takes_its_place(house: House) -> None:
    press, gone = house.device("w-new"), house.device("w-gone")
    house.identity.revocation.revoke(gone.fingerprint, "keyCompromise", "test")
    old = context_of(house, press)
    old.maximum_version = ssl.TLSVersion.TLSv1_2

    def check() -> None:
        for at in range(2):
            with only(house, at), pytest.raises(ssl.SSLError):
                Line(house, context=old)
        assert visits(house, press, "w-new") == {0}
        assert visits(house, gone, "w-gone") == {0x87}

    check()
    crew = house.server._road._crew
    before = {worker.process.pid for worker in crew.workers}
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    end = time.monotonic() + 20
    while len(crew.workers) < 2 or before & {worker.process.pid for worker in crew.workers}:
        assert time.monotonic() < end
        time.sleep(0.05)
    check()
