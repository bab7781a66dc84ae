"""Messages end to end: keys of devices and of the platform, and what tenants want of their devices' messages."""

from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Path, Response
from pydantic import ConfigDict, Field

from godwit.contract.ids import TenantId
from godwit.server.api.access import Admin, Id, Operator, Rooms, Who
from godwit.server.api.answers import answer, time_or_none
from godwit.server.api.problems import documented
from godwit.server.api.routes.devices import NAME
from godwit.server.api.strict import Body, StrictRoute
from godwit.server.identity.message_keys import PURPOSES
from godwit.server.identity.model import DeviceKey, KeyPurpose, PlatformKey
from godwit.server.registry.model import Protection, TenantPolicy

router = APIRouter(prefix="/api/v1", tags=["messages"], route_class=StrictRoute)

Tenant = Annotated[str, Path(pattern=NAME)]
KeyId = Annotated[str, Path(pattern="^[0-9a-f]{64}$", description="SHA-256 of the SubjectPublicKeyInfo, lower-case")]
Purpose = Literal["sign", "agree"]
Wanted = Literal["none", "signed", "encrypted", "signed-encrypted"]
SECONDS_MAX = 366 * 86_400


class NewKey(Body):
    """A device's public key: P-256 or Ed25519 to sign, P-256 to agree."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"purpose": "sign", "public": "-----BEGIN PUBLIC KEY-----\n...\n"}]}
    )
    purpose: Purpose
    public: str = Field(max_length=4_096, description="PEM, SubjectPublicKeyInfo")


class Rotation(Body):
    """Which key of the platform is made anew."""

    purpose: Purpose = "agree"


class PolicyBody(Body):
    """What a tenant wants of its devices' messages."""

    messages: Wanted = Field("none", description="What telemetry and events have to be")
    replayWindowS: int = Field(86_400, ge=60, le=SECONDS_MAX)  # noqa: N815
    keyOverlapS: int = Field(604_800, ge=0, le=SECONDS_MAX)  # noqa: N815
    keyAgeS: int = Field(  # noqa: N815
        7_776_000, ge=0, le=10 * SECONDS_MAX,
        description="The platform's own keys are made anew when they are so old; 0: only when somebody says so",
    )  # fmt: skip


def document(key: DeviceKey | PlatformKey) -> dict[str, Any]:
    """Return a key as the API shows it."""
    shown: dict[str, Any] = msgspec.to_builtins(key)
    times = ("created", "retired", "removed", *(("ended",) if isinstance(key, PlatformKey) else ()))
    return shown | {name: time_or_none(shown[name]) for name in times}


@router.get("/devices/{device_id}/message-keys", responses=documented(404), summary="Keys of a device's messages")
def device_keys(device_id: Id, who: Who, rooms: Rooms) -> Response:
    """Return the keys, newest first; what its messages have to be; and what the last telemetry was."""
    keys = rooms.identity.message_keys.keys(who, device_id)
    state = rooms.ingest.sealing(device_id)
    return answer({
        "items": [document(each) for each in keys if each.purpose in PURPOSES],
        "wanted": str(state.wanted if state else Protection.NONE),
        "last": {"signedBy": state.signed_by or None, "encryptedTo": state.encrypted_to or None} if state else None,
    })  # fmt: skip


@router.post(
    "/devices/{device_id}/message-keys", status_code=201, responses=documented(404, 413), summary="Register a key"
)
def register_key(device_id: Id, body: NewKey, who: Operator, rooms: Rooms) -> Response:
    """Take a device's public key. The one before retires: for the overlap it counts for what it signed before."""
    key = rooms.identity.message_keys.register(who, device_id, KeyPurpose(body.purpose), body.public)
    return answer(document(key), status=201)


@router.delete(
    "/devices/{device_id}/message-keys/{keyId}", status_code=204, responses=documented(404), summary="End a key at once"
)
def remove_key(device_id: Id, keyId: KeyId, who: Operator, rooms: Rooms) -> Response:  # noqa: N803
    """Remove a key: nothing that it signed counts any more, however old, and it is never taken again (`key-removed`).

    The device is told to make another one.
    """
    rooms.identity.message_keys.remove(who, device_id, keyId)
    return Response(status_code=204)


@router.get("/tenants/{name}/policy", responses=documented(404), summary="What a tenant wants of messages")
def policy(name: Tenant, who: Who, rooms: Rooms) -> Response:
    """Return the policy."""
    return answer(rooms.registry.policies.get(who, TenantId(name)))


@router.put("/tenants/{name}/policy", responses=documented(403, 404, 413), summary="Set it")
def put_policy(name: Tenant, body: PolicyBody, who: Admin, rooms: Rooms) -> Response:
    """Set the policy. It counts for messages that come from then on."""
    wanted = TenantPolicy(TenantId(name), Protection(body.messages), body.replayWindowS, body.keyOverlapS, body.keyAgeS)
    return answer(rooms.registry.policies.put(who, wanted))


@router.get("/tenants/{name}/message-keys", responses=documented(404), summary="The platform's keys for a tenant")
def platform_keys(name: Tenant, who: Who, rooms: Rooms) -> Response:
    """Return the public keys: devices encrypt to the `agree` key in use, and believe what the `sign` key signed.

    `devices`: how many encrypt to it, as far as is known. A retired key has `ended` when nothing comes to it any more.
    """
    keys = rooms.identity.message_keys.platform_keys(who, TenantId(name))
    holders = rooms.identity.message_keys.holders(TenantId(name))
    return answer({"items": [document(each) | {"devices": holders.get(each.key_id, 0)} for each in keys]})


@router.post(
    "/tenants/{name}/message-keys", status_code=201, responses=documented(403, 404, 413), summary="Rotate a key of ours"
)
def rotate(name: Tenant, body: Rotation, who: Admin, rooms: Rooms) -> Response:
    """Make a new key. The one before counts for the overlap; a device that still uses it is told the new one."""
    key = rooms.identity.message_keys.rotate(who, TenantId(name), KeyPurpose(body.purpose))
    return answer(document(key), status=201)


@router.delete(
    "/tenants/{name}/message-keys/{keyId}", status_code=204, responses=documented(403, 404),
    summary="End a key of ours at once",
)  # fmt: skip
def remove_our_key(name: Tenant, keyId: KeyId, who: Admin, rooms: Rooms) -> Response:  # noqa: N803
    """Destroy a key: what is encrypted to it goes to quarantine (`key-removed`). One in use is made anew first."""
    rooms.identity.message_keys.remove_ours(who, TenantId(name), keyId)
    return Response(status_code=204)
