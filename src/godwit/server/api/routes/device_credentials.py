"""Tokens of devices, and the keys with which devices sign their own."""

from time import time_ns
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Path, Response
from pydantic import ConfigDict, Field

from godwit.server.api.access import Id, Operator, Rooms, Who
from godwit.server.api.answers import answer, time_or_none
from godwit.server.api.problems import documented
from godwit.server.api.strict import Body, StrictRoute
from godwit.server.identity.model import DeviceKey, DeviceToken

router = APIRouter(prefix="/api/v1/devices/{device_id}", tags=["device credentials"], route_class=StrictRoute)

LIFETIME_S_MAX = 10 * 365 * 24 * 3_600
TokenId = Annotated[str, Path(pattern=r"^[0-9a-f]{16}$")]
KeyId = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$")]


class TokenBody(Body):
    """A token to be made."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "meter in hall 3", "lifetimeS": 31536000}]})
    name: str = Field("", max_length=128)
    lifetimeS: int = Field(0, ge=0, le=LIFETIME_S_MAX)  # noqa: N815 - camelCase on the wire


class KeyBody(Body):
    """A public key to be registered, PEM."""

    public: str = Field(min_length=1, max_length=4_096)


def token_document(token: DeviceToken) -> dict[str, Any]:
    """Return a token as the API shows it. Its secret is not there: it was shown once."""
    document: dict[str, Any] = msgspec.to_builtins(token)
    times = {name: time_or_none(getattr(token, name)) for name in ("created", "expires", "revoked")}
    return {**document, **times, "lastUsed": time_or_none(token.last_used)}


def key_document(key: DeviceKey) -> dict[str, Any]:
    """Return a key as the API shows it."""
    document: dict[str, Any] = msgspec.to_builtins(key)
    return {**document, "created": time_or_none(key.created), "retired": time_or_none(key.retired)}


@router.get("/tokens", responses=documented(404), summary="List a device's tokens")
def tokens(device_id: Id, who: Who, rooms: Rooms) -> Response:
    """Return a device's tokens, the newest first; none of them can be read back."""
    return answer({"items": [token_document(each) for each in rooms.identity.device_tokens.of_device(who, device_id)]})


@router.post("/tokens", status_code=201, responses=documented(404, 409, 413), summary="Make a token for a device")
def create_token(device_id: Id, body: TokenBody, who: Operator, rooms: Rooms) -> Response:
    """Make a token: the device's MQTT password, its user name being its id. The `token` is in this answer only."""
    expires = time_ns() + body.lifetimeS * 1_000_000_000 if body.lifetimeS else 0
    token, secret = rooms.identity.device_tokens.create(who, device_id, body.name, expires=expires)
    made = answer({**token_document(token), "token": secret}, 201)
    made.headers["cache-control"] = "no-store"
    return made


@router.post("/tokens/{token_id}/revoke", responses=documented(404), summary="Revoke a device's token")
def revoke_token(device_id: Id, token_id: TokenId, who: Operator, rooms: Rooms) -> Response:
    """Revoke a token; a session that was opened with it ends within a second."""
    return answer(token_document(rooms.identity.device_tokens.revoke(who, device_id, token_id)))


@router.get("/keys", responses=documented(404), summary="List the keys with which a device signs tokens")
def keys(device_id: Id, who: Who, rooms: Rooms) -> Response:
    """Return a device's keys, the newest first."""
    return answer({"items": [key_document(each) for each in rooms.identity.device_keys.of_device(who, device_id)]})


@router.post("/keys", status_code=201, responses=documented(404, 409, 413), summary="Register a device's key")
def register_key(device_id: Id, body: KeyBody, who: Operator, rooms: Rooms) -> Response:
    """Register the public half of a key (ECDSA, P-256): what it signs (JWT, ES256) is the device's MQTT password."""
    return answer(key_document(rooms.identity.device_keys.register(who, device_id, body.public)), 201)


@router.post("/keys/{key_id}/retire", responses=documented(404), summary="Retire a device's key")
def retire_key(device_id: Id, key_id: KeyId, who: Operator, rooms: Rooms) -> Response:
    """Retire a key; a session that was opened with a token of it ends within a second."""
    return answer(key_document(rooms.identity.device_keys.retire(who, device_id, key_id)))
