"""Everything that somebody may say instead of a token that a device has signed: each is refused with its code."""

import base64
import hmac
import json
from hashlib import sha256
from time import time_ns

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from godwit.contract.errors import RejectedError
from godwit.mqtt.packets import Connect
from godwit.server.broker.authentication import FleetAuthenticator
from godwit.server.broker.switches import Switches, switches_of
from godwit.server.identity.device_keys import check_jwt
from godwit.server.identity.model import DeviceKey, KeyPurpose
from godwit.server.identity.roster import Roster
from godwit.server.registry.model import Device
from godwit.server.settings import load

NOW_S = 1_790_000_000
KEY, OTHER = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
CENTURY_S = 100 * 365 * 86_400


def public_pem(key):
    kind = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, kind).decode()


KNOWN = DeviceKey("k1", "pump-7", "acme", KeyPurpose.JWT, public_pem(KEY), 1)


def part(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def es256(key):
    def sign(text):
        r, s = decode_dss_signature(key.sign(text, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    return sign


def token(claims=None, header=None, sign=None, **more):
    head = {"alg": "ES256", "typ": "JWT"} | (header or {})
    body = {"aud": "godwit", "iat": NOW_S, "exp": NOW_S + 600} | (claims or {}) | more
    text = f"{part(json.dumps(head).encode())}.{part(json.dumps(body).encode())}"
    return f"{text}.{part((sign or es256(KEY))(text.encode()))}"


def by_public_key(text):
    """Sign with HMAC under the public key, which everybody knows: taken for a key of HS256 it would verify."""
    return hmac.digest(public_pem(KEY).encode(), text, sha256)


def check(said, keys=(KNOWN,), now_s=NOW_S, audiences=("godwit",)):
    return check_jwt(list(keys), "pump-7", said, now_s * 10**9, audiences)


def test_a_good_one_is_taken_whatever_key_id_it_says_and_as_often_as_it_comes():
    """It is a bearer token until its end; on a second connection it takes the first one's session over."""
    for header in ({}, {"kid": "k1"}, {"kid": "somebody-else"}, {"typ": "at+jwt"}):
        said = token(header=header, sub="pump-7", nbf=NOW_S)
        assert [check(said).key.key_id for _ in range(2)] == ["k1", "k1"]
    assert check(token(aud=["elsewhere", "godwit"])).ends == (NOW_S + 600) * 10**9


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (token(header={"alg": "none"}, sign=lambda _text: b""), "jwt-signature"),
        (token(header={"alg": "None"}), "jwt-signature"),
        (token(header={"alg": "HS256"}, sign=by_public_key), "jwt-signature"),
        (token(header={"alg": "ES384"}), "jwt-signature"),
        (token(sign=lambda _text: bytes(64)), "jwt-signature"),
        (token(sign=lambda text: KEY.sign(text, ec.ECDSA(hashes.SHA256()))), "jwt-signature"),  # DER, as X.509 has it
        (token(sign=es256(OTHER)), "jwt-signature"),
        (token(header={"kid": "k1"}, sign=es256(OTHER)), "jwt-signature"),
        (token(header={"jwk": {"kty": "EC"}, "jku": "http://192.0.2.1/k"}, sign=es256(OTHER)), "jwt-signature"),
        (token(header={"crit": ["b64"], "b64": False}), "jwt-signature"),
        (token(header={"crit": ["x-new"], "x-new": 1}), "jwt-signature"),
        (token()[:-8] + "AAAAAAAA", "jwt-signature"),
        (token() + ".x.y", "jwt-signature"),
        ("eyJ..", "jwt-signature"),
        ("eyJ." + "A" * 8_000 + ".A", "jwt-malformed"),
        (token(exp=NOW_S + CENTURY_S), "jwt-lifetime"),
        (token(iat=0), "jwt-lifetime"),
        (token(exp=NOW_S + 86_401), "jwt-lifetime"),
        (token(iat=NOW_S + 601, exp=NOW_S + 700), "jwt-lifetime"),
        (token(iat=NOW_S + 1, exp=NOW_S + 1), "jwt-lifetime"),
        (token(nbf=NOW_S + 601), "jwt-lifetime"),
        (token(nbf="soon"), "jwt-malformed"),
        (token(iat=NOW_S - 600, exp=NOW_S), "jwt-expired"),
        (token(aud="another-platform"), "jwt-audience"),
        (token(aud=[]), "jwt-audience"),
        (token(aud={"godwit": 1}), "jwt-audience"),
        (token(sub="pump-8"), "jwt-wrong-device"),
        (token(exp=str(NOW_S + 600)), "jwt-malformed"),
        (token(iat=True), "jwt-malformed"),
        (token(exp=None), "jwt-malformed"),
    ],
)
def test_everything_else_is_refused(said, code):
    with pytest.raises(RejectedError) as refused:
        check(said)
    assert refused.value.code == code


def test_a_platform_is_called_as_its_settings_say():
    """JWT_AUDIENCE has one name or several; what is meant for another platform opens nothing here."""
    audiences = switches_of(load({"JWT_AUDIENCE": "plant-north, plant-south,"}, None, {}).settings).audiences
    assert audiences == ("plant-north", "plant-south")
    for good in ("plant-north", "plant-south", ["godwit", "plant-south"]):
        assert check(token(aud=good), audiences=audiences).key.key_id == "k1"
    for other in ("godwit", "plant-north, plant-south", "plant", [], [["plant-north"]], None):
        with pytest.raises(RejectedError, match="'plant-north' or 'plant-south'") as refused:
            check(token(aud=other), audiences=audiences)
        assert refused.value.code == "jwt-audience"
    for unset in ({}, {"JWT_AUDIENCE": ","}):
        assert switches_of(load(unset, None, {}).settings).audiences == ("godwit",)


def test_the_door_asks_for_that_name():
    roster = Roster()
    roster.learn(Device("pump-7", "acme"))
    roster.follow(KNOWN)
    switches = Switches(audiences=("plant-north",))
    door = FleetAuthenticator(roster, lambda *_: False, None, switches, now_ns=lambda: NOW_S * 10**9)
    for name, code in (("plant-north", ""), ("godwit", "jwt-audience")):
        asked = Connect("pump-7", username="pump-7", password=token(aud=name).encode())
        assert getattr(door.authenticate("tls", asked, None, ""), "code", "") == code


def test_no_key_no_entry():
    with pytest.raises(RejectedError) as refused:
        check(token(), ())
    assert refused.value.code == "jwt-signature"


@pytest.mark.parametrize(("ahead_s", "is_in"), [(0, True), (590, True), (610, False), (-590, True), (-610, False)])
def test_a_devices_clock_may_be_off_by_ten_minutes(ahead_s, is_in):
    """A token that lives ten minutes: ahead by our tolerance, behind by its own life."""
    said = token(iat=NOW_S + ahead_s, exp=NOW_S + ahead_s + 600)
    if is_in:
        check(said)
    else:
        with pytest.raises(RejectedError):
            check(said)


def test_an_rsa_signature_is_none_of_ours():
    key = rsa.generate_private_key(65_537, 2_048)
    said = token(header={"alg": "RS256"}, sign=lambda text: key.sign(text, padding.PKCS1v15(), hashes.SHA256()))
    with pytest.raises(RejectedError) as refused:
        check(said, now_s=time_ns() // 10**9)
    assert refused.value.code == "jwt-signature"
