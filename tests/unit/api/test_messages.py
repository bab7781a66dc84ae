"""Keys of messages and policies over the API: registered, rotated, removed, and on the road at once."""

import json
import os
from time import time
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from starlette.testclient import TestClient

from godwit.contract.cose import Session, Signer, about_message, seal
from godwit.contract.cose_keys import agree_public, key_id, pem_of
from godwit.contract.errors import RejectedError
from godwit.contract.ids import DEFAULT_TENANT, DeviceId
from godwit.contract.topics import Channel
from godwit.server.accounts.principal import Principal
from godwit.server.identity.model import KeyPurpose
from godwit.server.ingest.seal_keys import SealKeys
from godwit.server.storage.tables import audit

V1 = "/api/v1"
P256 = ec.SECP256R1()


@pytest.fixture(scope="module")
def keys(rig: Any) -> SealKeys:
    found = SealKeys(rig.directory, rig.ingest.pipeline.seals, rig.identity.message_keys)
    found.load(rig.registry.policies)
    found.follow(rig.identity.news, rig.registry, rig.loop.soon)
    return found


@pytest.fixture
def device(api: TestClient, request: pytest.FixtureRequest) -> str:
    name = request.node.name.replace("_", "-")[:64]
    assert api.post(f"{V1}/devices", json={"deviceId": name}).status_code == 201
    return name


def submit(rig: Any, device: str, payload: bytes) -> Any:
    return rig.loop.call(rig.ingest.submit(DeviceId(device), Channel.TELEMETRY, payload))


def test_a_key_is_registered_used_retired_and_removed(rig, api, keys, device) -> None:
    path = f"{V1}/devices/{device}/message-keys"
    first, second = ec.generate_private_key(P256), ed25519.Ed25519PrivateKey.generate()
    made = api.post(path, json={"purpose": "sign", "public": pem_of(first.public_key())})
    assert made.status_code == 201
    assert made.json()["keyId"] == key_id(first.public_key())
    again = api.post(path, json={"purpose": "sign", "public": pem_of(first.public_key())})
    assert (again.status_code, again.json()["keyId"]) == (201, made.json()["keyId"])

    def signed(key: Any, value: float) -> bytes:
        payload = json.dumps({"messageId": os.urandom(8).hex(), "readings": {"v": value}}).encode()
        return seal(
            payload, about_message("up", device, "telemetry"), signer=Signer(key), nonce=lambda: b"", at=int(time())
        )

    assert submit(rig, device, signed(first, 1.0)).code == ""
    assert api.get(path).json()["last"] == {"signedBy": key_id(first.public_key()), "encryptedTo": None}
    assert api.post(path, json={"purpose": "sign", "public": pem_of(second.public_key())}).status_code == 201
    assert submit(rig, device, signed(second, 2.0)).code == ""
    assert submit(rig, device, signed(first, 3.0)).code == ""  # in the overlap
    items = {each["keyId"]: each["retired"] for each in api.get(path).json()["items"]}
    assert items[key_id(first.public_key())] is not None
    assert items[key_id(second.public_key())] is None
    assert (
        api.post(path, json={"purpose": "sign", "public": pem_of(first.public_key())}).json()["code"] == "key-retired"
    )
    assert api.delete(f"{path}/{key_id(first.public_key())}").status_code == 204
    assert submit(rig, device, signed(first, 4.0)).code == "key-removed"
    again = api.post(path, json={"purpose": "sign", "public": pem_of(first.public_key())})
    assert again.json()["code"] == "key-removed", "what an operator removed stays refused"
    assert api.delete(f"{path}/{key_id(first.public_key())}").status_code == 404
    with rig.database.read() as connection:
        rows = connection.execute(
            audit.select().where(audit.c.about == device, audit.c.what.like("device-key.%"))
        ).all()
    assert [row.what for row in rows] == ["device-key.register", "device-key.register", "device-key.remove"]


def test_keys_that_are_not_fit_are_refused(api, device) -> None:
    path = f"{V1}/devices/{device}/message-keys"
    weak = rsa.generate_private_key(65_537, 2_048).public_key()
    pem = weak.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    eddsa = pem_of(ed25519.Ed25519PrivateKey.generate().public_key())
    for purpose, public in (("sign", pem), ("agree", pem), ("agree", eddsa), ("sign", "rubbish")):
        answer = api.post(path, json={"purpose": purpose, "public": public})
        assert (answer.status_code, answer.json()["code"]) == (422, "key-unfit")
    assert api.post(f"{V1}/devices/nobody/message-keys", json={"purpose": "sign", "public": eddsa}).status_code == 404


def test_a_policy_counts_from_then_on(rig, api, keys, device) -> None:
    plain = json.dumps({"readings": {"v": 1.0}}).encode()
    assert submit(rig, device, plain).code == ""
    path = f"{V1}/tenants/{DEFAULT_TENANT}/policy"
    try:
        answer = api.put(path, json={"messages": "signed"})
        assert answer.json()["messages"] == "signed"
        assert api.get(path).json() == answer.json()
        assert submit(rig, device, plain).code == "signature-required"
        assert api.get(f"{V1}/devices/{device}/message-keys").json()["wanted"] == "signed"
    finally:
        api.put(path, json={})
    assert submit(rig, device, plain).code == ""
    assert api.put(f"{V1}/types/sealed-type", json={"messages": "encrypted"}).json()["messages"] == "encrypted"
    assert api.patch(f"{V1}/devices/{device}", json={"deviceType": "sealed-type"}).status_code == 200
    assert submit(rig, device, plain).code == "encryption-required"
    keys.audit(rig.database)
    keys.audit(rig.database)
    with rig.database.read() as connection:
        where = (audit.c.about == device, audit.c.what == "message.refuse")
        found = {row.after["code"]: row.after["messages"] for row in connection.execute(audit.select().where(*where))}
    assert found == {"signature-required": 1, "encryption-required": 1}


def test_our_keys_are_rotated_and_both_count(rig, api, keys, device) -> None:
    path = f"{V1}/tenants/{DEFAULT_TENANT}/message-keys"
    rig.identity.message_keys.ours(DEFAULT_TENANT)

    def ours() -> dict[str, Any]:
        return next(
            each for each in api.get(path).json()["items"] if each["purpose"] == "agree" and not each["retired"]
        )

    def encrypted(public: str) -> bytes:
        session = Session(agree_public(public), ec.generate_private_key(P256))
        payload = json.dumps({"messageId": os.urandom(8).hex(), "readings": {"v": 1.0}}).encode()
        about = about_message("up", device, "telemetry")
        return seal(payload, about, session=session, nonce=lambda: os.urandom(12), at=int(time()))

    old = ours()
    assert submit(rig, device, encrypted(old["public"])).code == ""
    made = api.post(path, json={"purpose": "agree"}).json()
    assert ours()["keyId"] == made["keyId"] != old["keyId"]
    assert "secret" not in json.dumps(api.get(path).json())
    for each in (old, made):
        assert submit(rig, device, encrypted(each["public"])).code == ""
        assert api.get(f"{V1}/devices/{device}/message-keys").json()["last"]["encryptedTo"] == each["keyId"]


def test_roles_and_tenants(rig, api, device) -> None:
    messages = rig.identity.message_keys
    viewer, stranger = Principal("v", role="viewer"), Principal("s", ("elsewhere",))
    public = pem_of(ec.generate_private_key(P256).public_key())
    for who, code in ((viewer, "forbidden"), (stranger, "not-found")):
        with pytest.raises(RejectedError) as caught:
            messages.register(who, DeviceId(device), KeyPurpose.SIGN, public)
        assert caught.value.code == code
        with pytest.raises(RejectedError) as caught:
            messages.rotate(who, DEFAULT_TENANT, KeyPurpose.AGREE)
        assert caught.value.code == code


def test_an_erased_device_leaves_no_keys_to_its_name(rig, api, keys, device) -> None:
    path = f"{V1}/devices/{device}/message-keys"
    api.post(path, json={"purpose": "sign", "public": pem_of(ec.generate_private_key(P256).public_key())})
    rig.registry.erase_device(Principal("admin"), DeviceId(device))
    api.post(f"{V1}/devices", json={"deviceId": device})
    assert api.get(path).json()["items"] == []
