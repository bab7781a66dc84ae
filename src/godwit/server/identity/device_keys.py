"""Keys of devices that sign their own tokens: JWT (RFC 7519) with ES256. We have the public half only."""

from time import time_ns
from typing import Any, Final

import msgspec
import sqlalchemy as sa
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from godwit.contract.errors import RejectedError
from godwit.contract.ids import DeviceId
from godwit.server.accounts.principal import Principal
from godwit.server.identity import rows
from godwit.server.identity.model import DeviceKey, KeyPurpose
from godwit.server.identity.news import News
from godwit.server.identity.requests import key_fingerprint
from godwit.server.registry.access import not_found
from godwit.server.registry.service import Registry
from godwit.server.storage import identity_tables as t
from godwit.server.storage.audit import record
from godwit.server.storage.database import Database

LIFETIME_S_MAX: Final = 24 * 3_600
AHEAD_S_MAX: Final = 600
"""How far ahead of ours a device's clock may be."""
BYTES_MAX: Final = 4_096
KEYS_MAX: Final = 5
"""Of one device: the next one, and some that were forgotten."""
_SECONDS_MAX: Final = 1 << 40
_NS: Final = 1_000_000_000


class Signed(msgspec.Struct, frozen=True):
    """What a device's own token proves: by which key, and until when, ns UTC."""

    key: DeviceKey
    ends: int


class DeviceKeys:
    """Thread-safe; blocks."""

    def __init__(self, database: Database, registry: Registry, news: News) -> None:
        self._database, self._registry, self._news = database, registry, news

    def register(self, who: Principal, device_id: DeviceId, pem: str) -> DeviceKey:
        """Register a public key (PEM, P-256); again is no error.

        Raises RejectedError (`not-found`, `forbidden`, `weak-key`, `key-retired`, `key-shared`, `too-many-keys`).
        """
        device = self._registry.device(who, device_id)
        who.require("operator", device.tenant)
        public = read_public_key(pem)
        text = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        key = DeviceKey(
            key_fingerprint(public), device_id, device.tenant, KeyPurpose.JWT, text.decode(), time_ns()
        )  # fmt: skip
        c = t.device_keys.c
        with self._database.write() as connection:
            same = connection.execute(sa.select(t.device_keys).where(c.key_id == key.key_id)).all()
            if any(row.device_id != device_id for row in same):
                raise RejectedError("another device has this key: every device makes its own", code="key-shared")
            mine = [rows.device_key_of(row) for row in same if row.purpose == KeyPurpose.JWT]
            if mine:
                if mine[0].retired:
                    raise RejectedError("this key was retired: make a new one", code="key-retired")
                return mine[0]
            held = sa.select(sa.func.count()).select_from(t.device_keys).where(_in_use(device_id))
            if connection.execute(held).scalar_one() >= KEYS_MAX:
                raise RejectedError(f"a device has at most {KEYS_MAX} keys: retire one", code="too-many-keys")
            connection.execute(t.device_keys.insert(), rows.row_of_device_key(key, None))
            record(
                connection, who.name, "device.key-register", device_id, tenant=device.tenant, address=who.address,
                after={"keyId": key.key_id},
            )  # fmt: skip
        self._news.tell(key)
        return key

    def of_device(self, who: Principal, device_id: DeviceId) -> list[DeviceKey]:
        """Return the keys that sign a device's tokens, the newest first. Raises RejectedError (`not-found`)."""
        self._registry.device(who, device_id)
        c = t.device_keys.c
        where = sa.and_(c.device_id == device_id, c.purpose == str(KeyPurpose.JWT))
        with self._database.read() as connection:
            found = connection.execute(sa.select(t.device_keys).where(where).order_by(c.created.desc()))
            return [rows.device_key_of(each) for each in found]

    def retire(self, who: Principal, device_id: DeviceId, key_id: str) -> DeviceKey:
        """Retire a key: what it signed counts no more. Raises RejectedError (`not-found`, `forbidden`)."""
        device = self._registry.device(who, device_id)
        who.require("operator", device.tenant)
        c = t.device_keys.c
        where = sa.and_(c.key_id == key_id, c.device_id == device_id, c.purpose == str(KeyPurpose.JWT))
        with self._database.write() as connection:
            row = connection.execute(sa.select(t.device_keys).where(where)).one_or_none()
            if row is None:
                raise not_found("key", key_id[:64])
            key = rows.device_key_of(row)
            if key.retired:
                return key
            key = msgspec.structs.replace(key, retired=time_ns())
            connection.execute(t.device_keys.update().where(where).values(retired=key.retired))
            record(
                connection, who.name, "device.key-retire", device_id, tenant=device.tenant, address=who.address,
                before={"keyId": key_id},
            )  # fmt: skip
        self._news.tell(key)
        return key


def _in_use(device_id: str) -> "sa.ColumnElement[bool]":
    c = t.device_keys.c
    return sa.and_(c.device_id == device_id, c.purpose == str(KeyPurpose.JWT), c.retired == 0)


def read_public_key(pem: str) -> ec.EllipticCurvePublicKey:
    """Return a public key that may sign ES256. Raises RejectedError (`weak-key`)."""
    try:
        key = serialization.load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise RejectedError(f"this is no public key in PEM: {error}", code="weak-key") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise RejectedError("ES256 is signed by an ECDSA key on P-256", code="weak-key")
    return key


def check_jwt(keys: list[DeviceKey], device_id: str, token: str, now: int, audiences: tuple[str, ...]) -> Signed:
    """Return what a device's token proves, that is meant for one of `audiences`.

    Raises RejectedError (`jwt-malformed`, `jwt-signature`, `jwt-wrong-device`, `jwt-audience`, `jwt-expired`,
    `jwt-lifetime`).
    """
    if len(token) > BYTES_MAX:
        raise RejectedError("the token is too long", code="jwt-malformed")
    for key in keys:
        try:
            claims = jwt.decode(token, ECKey.import_key(key.public), algorithms=["ES256"]).claims
        except (JoseError, ValueError, TypeError):
            continue
        return Signed(key, _judge(claims, device_id, now, audiences))
    raise RejectedError("no registered key of the device has signed this token with ES256", code="jwt-signature")


def _judge(claims: dict[str, Any], device_id: str, now: int, audiences: tuple[str, ...]) -> int:
    issued, ends = claims.get("iat"), claims.get("exp")
    begins = claims.get("nbf", issued)
    if any(type(each) not in (int, float) for each in (issued, ends, begins)):
        raise RejectedError("iat and exp are numbers, and nbf if it is said", code="jwt-malformed")
    assert isinstance(issued, int | float)
    assert isinstance(ends, int | float)
    assert isinstance(begins, int | float)
    if not all(abs(each) < _SECONDS_MAX for each in (issued, ends, begins)):  # nor numbers that no float holds
        raise RejectedError("iat, nbf and exp are seconds since 1970", code="jwt-malformed")
    audience = claims.get("aud")
    if not any(each in audiences for each in (audience if isinstance(audience, list) else [audience])):
        raise RejectedError(f"aud is {' or '.join(map(repr, audiences))} here", code="jwt-audience")
    if claims.get("sub", device_id) != device_id:
        raise RejectedError("sub is another device", code="jwt-wrong-device")
    now_s = now / _NS
    if not now_s < ends:
        raise RejectedError("the token has ended", code="jwt-expired")
    if not (0 < ends - issued <= LIFETIME_S_MAX and max(issued, begins) <= now_s + AHEAD_S_MAX):
        raise RejectedError("a token lives 24 h at most, from iat to exp, and begins now", code="jwt-lifetime")
    return int(ends * _NS)
