"""Who is known, in memory: certificates, devices, tokens and keys; what it costs, and what stays final."""

import sys
import tracemalloc
from pathlib import Path
from time import process_time, time_ns

import msgspec
import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

sys.path.insert(0, str(Path(__file__).parent))

import jwt_by_hand

from godwit.contract.errors import RejectedError
from godwit.server.accounts.principal import Principal
from godwit.server.identity.device_keys import check_jwt
from godwit.server.identity.model import Certificate, CertificateState, DeviceKey, KeyPurpose, Source
from godwit.server.identity.room import open_identity
from godwit.server.identity.roster import Roster
from godwit.server.registry.model import Device, Lifecycle
from godwit.server.registry.service import Registry
from godwit.server.storage.database import Database
from godwit.server.storage.engine import open_engine
from godwit.server.storage.identity_tables import device_tokens
from godwit.server.storage.tables import audit

WHO = Principal("test")
NS = 1_000_000_000
NOW = 1_790_000_000 * NS


def certificate(number, state=CertificateState.ACTIVE):
    return Certificate(
        fingerprint=f"{number:064x}", device_id=f"press-{number}", tenant="default", authority="a" * 64,
        serial=f"{number:x}", key_fingerprint="k" * 64, state=state, source=Source.BATCH, certificate="PEM",
        not_before=NOW, not_after=NOW + NS, created=NOW,
    )  # fmt: skip


def test_a_hundred_thousand_certificates_fit_and_are_found_in_microseconds():
    roster, count = Roster(), 20_000
    tracemalloc.start()
    for number in range(count):
        roster.follow(certificate(number))
        roster.learn(Device(f"press-{number}"))
    size = tracemalloc.get_traced_memory()[0] / count
    tracemalloc.stop()
    assert size < 1_000, f"{size:.0f} bytes for a certificate and its device"  # 100,000: 100 MB at most
    began = process_time()
    for number in range(count):
        assert roster.certificate(number.to_bytes(32, "big")) is not None
    assert (process_time() - began) / count < 20e-6


def test_what_is_revoked_stays_so_in_whatever_order_it_is_told():
    roster = Roster()
    roster.follow(certificate(1, CertificateState.REVOKED))
    roster.follow(certificate(1))
    assert roster.certificate((1).to_bytes(32, "big")).state is CertificateState.REVOKED


def test_an_older_word_about_a_device_does_not_win():
    roster = Roster()
    roster.learn(Device("press-7", lifecycle=Lifecycle.SUSPENDED, updated=2))
    roster.learn(Device("press-7", lifecycle=Lifecycle.ACTIVE, updated=1))
    assert roster.devices["press-7"].lifecycle is Lifecycle.SUSPENDED
    assert roster.is_claimed("press-7")
    roster.learn("press-7")
    assert not roster.is_claimed("press-7")


@pytest.fixture
def rooms(tmp_path):
    database = Database(open_engine("", tmp_path))
    registry = Registry(database)
    registry.create_device(WHO, Device("meter-3"))
    return database, registry, open_identity(database, registry, tmp_path)


def test_a_device_token_is_found_until_it_is_revoked_and_after_a_restart(rooms, tmp_path):
    database, registry, identity = rooms
    tokens = identity.device_tokens
    token, secret = tokens.create(WHO, "meter-3", "hall")
    assert tokens.find(secret) == token
    assert tokens.find(secret[:-1] + ("a" if secret[-1] != "a" else "b")) is None
    with database.read() as connection:
        kept = [str(row) for table in (device_tokens, audit) for row in connection.execute(sa.select(table))]
    assert not any(secret in row for row in kept), "a secret is nowhere but with its owner"
    again = open_identity(database, registry, tmp_path)
    assert again.device_tokens.find(secret) == token
    tokens.flush()
    assert tokens.of_device(WHO, "meter-3")[0].last_used > 0
    tokens.revoke(WHO, "meter-3", token.token_id)
    assert tokens.find(secret) is None
    for _ in range(10):
        tokens.create(WHO, "meter-3")
    with pytest.raises(RejectedError) as refused:
        tokens.create(WHO, "meter-3")
    assert refused.value.code == "too-many-tokens"
    with pytest.raises(RejectedError) as refused:
        tokens.create(msgspec.structs.replace(WHO, role="viewer"), "meter-3")
    assert refused.value.code == "forbidden"


def pem_of(key):
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    ).decode()  # fmt: skip


def test_a_key_signs_for_its_device_until_it_is_retired(rooms):
    _, registry, identity = rooms
    key, keys = ec.generate_private_key(ec.SECP256R1()), identity.device_keys
    registered = keys.register(WHO, "meter-3", pem_of(key))
    assert keys.register(WHO, "meter-3", pem_of(key)) == registered
    registry.create_device(WHO, Device("meter-4"))
    for device_id, pem, code in (
        ("meter-4", pem_of(key), "key-shared"),
        ("meter-4", pem_of(ec.generate_private_key(ec.SECP384R1())), "weak-key"),
        ("meter-4", "no key", "weak-key"),
    ):
        with pytest.raises(RejectedError) as refused:
            keys.register(WHO, device_id, pem)
        assert refused.value.code == code
    now = time_ns()
    token = jwt_by_hand.sign(key, {"aud": "godwit", "iat": now // NS, "exp": now // NS + 60})
    known = identity.roster.keys("meter-3")
    assert check_jwt(known, "meter-3", token, now, ("godwit",)).ends == (now // NS + 60) * NS
    keys.retire(WHO, "meter-3", registered.key_id)
    with pytest.raises(RejectedError):
        check_jwt(identity.roster.keys("meter-3"), "meter-3", token, now, ("godwit",))


@pytest.mark.parametrize(
    ("claims", "code"),
    [
        ({}, ""),
        ({"aud": ["godwit", "x"]}, ""),
        ({"sub": "meter-3"}, ""),
        ({"sub": "meter-4"}, "jwt-wrong-device"),
        ({"aud": "elsewhere"}, "jwt-audience"),
        ({"aud": None}, "jwt-audience"),
        ({"exp": NOW // NS}, "jwt-expired"),
        ({"exp": NOW // NS + 86_401}, "jwt-lifetime"),
        ({"iat": NOW // NS + 700, "exp": NOW // NS + 800}, "jwt-lifetime"),
        ({"iat": None}, "jwt-malformed"),
        ({"exp": True}, "jwt-malformed"),
        ({"exp": "soon"}, "jwt-malformed"),
    ],
)
def test_what_a_device_signs_is_judged(claims, code):
    key = ec.generate_private_key(ec.SECP256R1())
    known = [DeviceKey("k", "meter-3", "default", KeyPurpose.JWT, pem_of(key), NOW)]
    good = {"aud": "godwit", "iat": NOW // NS, "exp": NOW // NS + 86_400}
    token = jwt_by_hand.sign(key, good | claims)
    if not code:
        assert check_jwt(known, "meter-3", token, NOW, ("godwit",)).key.key_id == "k"
        return
    with pytest.raises(RejectedError) as refused:
        check_jwt(known, "meter-3", token, NOW, ("godwit",))
    assert refused.value.code == code


def test_nobody_else_signs_and_by_no_other_algorithm():
    key, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    known = [DeviceKey("k", "meter-3", "default", KeyPurpose.JWT, pem_of(key), NOW)]
    claims = {"aud": "godwit", "iat": NOW // NS, "exp": NOW // NS + 60}
    for token in (
        jwt_by_hand.sign(other, claims),
        jwt_by_hand.unsigned(claims),
        jwt_by_hand.sign_hs256(pem_of(key).encode(), claims),
        "eyJ.x.y",
        "eyJ" + "x" * 5_000,
    ):
        with pytest.raises(RejectedError):
            check_jwt(known, "meter-3", token, NOW, ("godwit",))
