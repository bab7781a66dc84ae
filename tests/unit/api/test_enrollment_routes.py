"""Enrollment over HTTP: claims, rules, `POST /enroll`, the device grant, and the calls of the seeds."""

import datetime as dt

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from godwit.contract.ids import DeviceId, TenantId
from godwit.server.accounts.principal import Principal
from godwit.server.api.routes.enroll import console_of
from godwit.server.identity.authorities import authority_certificate
from godwit.server.settings import Settings


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def pem(made) -> str:
    return made.public_bytes(serialization.Encoding.PEM).decode()


def csr(device_id: str, key=None) -> str:
    key = key or ec.generate_private_key(ec.SECP256R1())
    return pem(x509.CertificateSigningRequestBuilder().subject_name(name(device_id)).sign(key, hashes.SHA256()))


class Works:
    """An authority of a factory, as its owner has it."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = name(f"works {id(self)}")
        self.certificate = authority_certificate(
            self.name,
            self.key.public_key(),
            self.name,
            self.key,
            dt.datetime.now(dt.UTC),
            dt.timedelta(days=9),
            depth=0,
        )

    def make(self, common_name: str) -> str:
        now = dt.datetime.now(dt.UTC)
        builder = x509.CertificateBuilder(
            self.name, name(common_name), ec.generate_private_key(ec.SECP256R1()).public_key(),
            x509.random_serial_number(), now - dt.timedelta(hours=1), now + dt.timedelta(days=1),
        )  # fmt: skip
        return pem(builder.sign(self.key, hashes.SHA256()))


@pytest.fixture
def works(api) -> Works:
    works = Works()
    told = api.post("/api/v1/authorities/trusted", json={"certificate": pem(works.certificate), "kind": "factory"})
    assert told.status_code == 202, told.text
    proof = {"certificate": works.make(told.json()["commonName"])}
    trusted = api.post(f"/api/v1/authorities/{told.json()['fingerprint']}/proof", json=proof)
    assert trusted.status_code == 201, trusted.text
    return works


@pytest.mark.parametrize(
    ("settings", "asked", "console"),
    [
        ({"server_host": "0.0.0.0"}, "https://10.0.0.7:8443/", "https://10.0.0.7:8080"),
        ({"server_host": "::"}, "https://[fd00::7]:8443/", "https://[fd00::7]:8080"),
        (
            {"server_host": "0.0.0.0", "public_host": "iot.example.org, x"},
            "https://x:8443",
            "https://iot.example.org:8080",
        ),
        ({"server_host": "0.0.0.0", "server_port": 443}, "https://iot.example.org/", "https://iot.example.org"),
        ({"server_host": "127.0.0.1"}, "https://10.0.0.7:8443/", "http://127.0.0.1:8080"),
        ({"server_host": "127.0.0.1"}, "http://localhost:8080/", "http://localhost:8080"),
        ({"console_url": "https://iot.example.org/"}, "https://10.0.0.7:8443/", "https://iot.example.org"),
    ],
)
def test_an_owner_is_sent_to_the_console_whatever_port_his_device_asked_at(settings, asked, console):
    assert console_of(Settings(**settings), asked) == console


def test_a_claim_is_made_shown_once_used_and_revoked(api):
    made = api.post("/api/v1/claims", json={"name": "line 3", "deviceId": "en-1"})
    assert made.status_code == 201
    assert made.headers["cache-control"] == "no-store"
    token, claim_id = made.json()["token"], made.json()["claimId"]
    assert token.startswith("gwc_")
    assert token not in api.get("/api/v1/claims").text
    del api.headers["Authorization"]
    granted = api.post("/enroll", json={"deviceId": "en-1", "request": csr("en-1"), "claim": token})
    assert granted.status_code == 200, granted.text
    assert granted.json()["certificate"].startswith("-----BEGIN CERTIFICATE")
    refused = api.post(
        "/enroll", json={"deviceId": "en-1", "request": csr("en-1")}, headers={"authorization": f"Bearer {token}"}
    )
    assert (refused.status_code, refused.json()["code"], refused.json()["deviceId"]) == (403, "claim-bound", "en-1")
    assert refused.headers["content-type"] == "application/problem+json"
    assert api.post(f"/api/v1/claims/{claim_id}/revoke").status_code == 401


def test_revoking_and_looking(api):
    made = api.post("/api/v1/claims", json={"kind": "fleet", "ids": ["en-*"]}).json()
    assert api.post(f"/api/v1/claims/{made['claimId']}/revoke").json()["state"] == "revoked"
    assert api.post("/api/v1/claims/0123456789abcdef/revoke").status_code == 404
    body = {"deviceId": "en-2", "request": csr("en-2"), "claim": made["token"]}
    assert api.post("/enroll", json=body).json()["code"] == "claim-revoked"
    last = api.get("/api/v1/enrollments?limit=1").json()["items"][0]
    assert (last["outcome"], last["code"], last["deviceId"]) == ("refused", "claim-revoked", "en-2")


def test_rules_say_where_devices_land(api):
    landing = {"groups": ["en group"], "tags": {"hall": "2"}, "configuration": {"intervalS": 10}}
    put = api.put("/api/v1/enrollment-rules/en", json={"ids": "en-land-*", "landing": landing})
    assert put.status_code == 200, put.text
    token = api.post("/api/v1/claims", json={}).json()["token"]
    granted = api.post("/enroll", json={"deviceId": "en-land-1", "request": csr("en-land-1"), "claim": token}).json()
    assert granted["configuration"] == {"intervalS": 10}
    assert api.get("/api/v1/devices?group=en%20group").json()["total"] == 1
    assert [each["name"] for each in api.get("/api/v1/enrollment-rules").json()["items"]] == ["en"]
    assert api.delete("/api/v1/enrollment-rules/en").status_code == 204
    assert api.delete("/api/v1/enrollment-rules/en").status_code == 404


def test_an_authority_without_proof_vouches_for_nobody(api):
    works, other = Works(), Works()
    told = api.post("/api/v1/authorities/trusted", json={"certificate": pem(works.certificate)}).json()
    other.name = works.name
    for proof in (other.make(told["commonName"]), works.make("another code")):
        answer = api.post(f"/api/v1/authorities/{told['fingerprint']}/proof", json={"certificate": proof})
        assert answer.json()["code"] == "proof-wrong"
    body = {"device_id": "en-3", "certificate": works.make("en-3"), "status": "active"}
    assert api.post("/devices", json=body).json()["code"] == "authority-unknown"
    leaf = api.post("/api/v1/authorities/trusted", json={"certificate": works.make("en-3")})
    assert leaf.json()["code"] == "authority-unfit"


def test_a_device_with_a_certificate_of_its_own_authority(api, works):
    certificate = works.make("en-4")
    body = {"device_id": "en-4", "certificate": certificate, "status": "active"}
    for path in ("/devices", "/api/v1/devices"):
        made = api.post(path, json=body)
        assert made.status_code == 201, made.text
        assert (made.json()["device_id"], made.json()["status"]) == ("en-4", "active")
    assert api.post("/devices", json=body | {"certificate": works.make("en-4")}).json()["code"] == "exists"
    assert api.post("/devices", json=body | {"device_id": "en-5"}).json()["code"] == "certificate-wrong-name"
    for path in ("/devices/en-4/certificate", "/api/v1/devices/en-4/certificate"):
        rotated = api.patch(path, json={"certificate": works.make("en-4")})
        assert rotated.status_code == 200, rotated.text
    assert api.patch("/devices/en-6/certificate", json={"certificate": certificate}).status_code == 404
    assert api.patch("/devices/en-4/certificate", json={"certificate": "rubbish"}).json()["code"] == (
        "certificate-malformed"
    )


def test_a_device_changes_hands(api, rig):
    rig.registry.put_tenant(Principal("admin"), TenantId("en-acme"))
    token = api.post("/api/v1/claims", json={"landing": {"groups": ["en g"], "tags": {"a": "b"}}}).json()["token"]
    api.post("/enroll", json={"deviceId": "en-7", "request": csr("en-7"), "claim": token})
    replaced = api.post("/api/v1/devices/en-7/replace", json={"revokeNow": True})
    assert replaced.status_code == 201
    certificates = rig.identity.issuance.of_device(DeviceId("en-7"))
    assert [str(each.state) for each in certificates] == ["revoked"]
    body = {"deviceId": "en-7", "request": csr("en-7"), "claim": replaced.json()["token"]}
    assert api.post("/enroll", json=body).status_code == 200

    moved = api.post("/api/v1/devices/en-7/transfer", json={"tenant": "en-acme", "keepTelemetry": False})
    assert (moved.status_code, moved.json()["tenant"], moved.json()["lifecycle"]) == (200, "en-acme", "unclaimed")
    assert moved.json()["tags"] == {}
    assert api.get("/api/v1/devices?group=en%20g").json()["total"] == 0
    assert {str(each.state) for each in rig.identity.issuance.of_device(DeviceId("en-7"))} == {"revoked"}
    assert api.post("/enroll", json=body).json()["code"] == "claim-revoked"
    assert api.post("/api/v1/devices/en-7/transfer", json={"tenant": "en-acme"}).json()["code"] == "same-tenant"
    assert api.post("/api/v1/devices/en-7/transfer", json={"tenant": "nowhere"}).status_code == 404
    claimed = api.post("/api/v1/devices/en-7/claim", json={})
    assert (claimed.json()["tenant"], claimed.json()["lifecycle"]) == ("en-acme", "active")
    assert api.post("/api/v1/devices/en-7/claim", json={}).status_code == 409
    assert api.post("/api/v1/devices/en-7/release", json=None).json()["lifecycle"] == "unclaimed"
    rig.loop.call(_nothing())
    assert rig.directory.entries["en-7"].tenant == "en-acme"


async def _nothing() -> None:
    """Let the loop come round."""


def test_the_device_grant(api):
    metadata = api.get("/.well-known/oauth-authorization-server").json()
    assert metadata["token_endpoint"].endswith("/oauth/token")
    begun = api.post("/oauth/device_authorization", data={"client_id": "en-8"}).json()
    asked = {
        "grant_type": "urn:ietf:params:oauth:grant-type:device_code", "device_code": begun["device_code"],
        "client_id": "en-8",
    }  # fmt: skip
    assert api.post("/oauth/token", data=asked).json()["error"] == "authorization_pending"
    assert api.post("/oauth/token", data=asked).json()["error"] == "slow_down"
    assert api.post("/oauth/token", data=asked | {"device_code": "x"}).json()["error"] == "invalid_grant"
    assert api.post("/oauth/token", data=asked | {"client_id": "en-9"}).json()["error"] == "invalid_grant"
    assert api.post("/oauth/token", data={"grant_type": "password"}).json()["error"] == "unsupported_grant_type"
    assert api.post("/oauth/device_authorization", data={"client_id": "no id"}).json()["error"] == "invalid_client"
    twice = "client_id=en-8&client_id=en-9"
    form = {"content-type": "application/x-www-form-urlencoded"}
    assert api.post("/oauth/device_authorization", content=twice, headers=form).json()["error"] == "invalid_request"


def test_the_owner_decides_over_a_device_grant(api, rig):
    def begin(device_id: str) -> tuple[dict, dict]:
        begun = api.post("/oauth/device_authorization", data={"client_id": device_id}).json()
        kind = "urn:ietf:params:oauth:grant-type:device_code"
        return begun, {"grant_type": kind, "device_code": begun["device_code"], "client_id": device_id}

    begun, asked = begin("en-10")
    typed = begun["user_code"].lower().replace("-", " ")
    said = api.post("/api/v1/device-grants/decision", json={"userCode": typed, "approve": True, "groups": ["en own"]})
    assert (said.status_code, said.json()["deviceId"], said.json()["state"]) == (200, "en-10", "approved")
    again = api.post("/api/v1/device-grants/decision", json={"userCode": typed, "approve": False})
    assert again.status_code == 404
    given = api.post("/oauth/token", data=asked).json()
    assert (given["token_type"], given["scope"]) == ("Bearer", "enroll")
    assert api.post("/oauth/token", data=asked).json()["error"] in ("slow_down", "invalid_grant")
    bearer = {"authorization": f"Bearer {given['access_token']}"}
    other = api.post("/enroll", json={"deviceId": "en-11", "request": csr("en-11")}, headers=bearer)
    assert other.json()["code"] == "claim-unknown"
    granted = api.post("/enroll", json={"deviceId": "en-10", "request": csr("en-10")}, headers=bearer)
    assert granted.status_code == 200
    (certificate,) = rig.identity.issuance.of_device(DeviceId("en-10"))
    assert str(certificate.source) == "grant"
    assert api.get("/api/v1/devices?group=en%20own").json()["total"] == 1

    begun, asked = begin("en-12")
    body = {"userCode": begun["user_code"], "approve": False}
    assert api.post("/api/v1/device-grants/decision", json=body).json()["state"] == "denied"
    assert api.post("/oauth/token", data=asked).json()["error"] == "access_denied"


def test_user_codes_cannot_be_guessed(api):
    codes = [
        api.post("/api/v1/device-grants/decision", json={"userCode": f"BCDF-GH{a}{b}", "approve": True}).status_code
        for a in "JKLM"
        for b in "JKLM"
    ]
    assert codes[0] == 404
    assert codes[-1] == 429


def test_the_terms_of_an_authority_are_changed_while_nobody_else_does(api, rig, works):
    path = f"/api/v1/authorities/{works.certificate.fingerprint(hashes.SHA256()).hex()}"
    assert api.post("/devices", json={"device_id": "wide-1", "certificate": works.make("wide-1")}).status_code == 201
    seen = api.get(path)
    mark = seen.headers["etag"]
    landing = {"groups": ["fans"], "tags": {"hall": "2"}}
    change = {"ids": ["fan-*"], "justInTime": True, "landing": landing, "name": "fan works"}
    changed = api.patch(path, json=change, headers={"if-match": f'"another", {mark}'})
    assert changed.status_code == 200, changed.text
    assert changed.json()["terms"] == {
        "ids": ["fan-*"], "justInTime": True, "landing": landing | {"deviceType": None, "configuration": {}}
    }  # fmt: skip
    late = api.patch(path, json={"ids": []}, headers={"if-match": mark})
    assert (late.status_code, late.json()["code"]) == (412, "precondition-failed")
    weak = api.patch(path, json={"ids": []}, headers={"if-match": f"W/{changed.headers['etag']}"})
    assert weak.status_code == 412
    assert api.get(path).headers["etag"] == changed.headers["etag"]

    # what is enrolled next is asked by the new terms; who was there stays, and the audit names him
    refused = api.post("/devices", json={"device_id": "wide-2", "certificate": works.make("wide-2")})
    assert refused.status_code in (401, 422), refused.text
    assert [str(each.state) for each in rig.identity.issuance.of_device(DeviceId("wide-1"))] == ["pending"]
    found = api.get("/api/v1/security/audit").json()["findings"]
    outside = [each["affected"][0]["name"] for each in found if each["code"] == "authority-outside-terms"]
    assert outside == ["wide-1"]
    taken = api.post("/devices", json={"device_id": "fan-1", "certificate": works.make("fan-1")})
    assert taken.status_code == 201
    assert api.get("/api/v1/devices?group=fans").json()["total"] == 1

    told = api.get("/api/v1/audit?what=authority.change").json()["items"][0]
    assert told["before"]["terms"]["ids"] == []
    assert (told["after"]["terms"]["ids"], told["after"]["name"]) == (["fan-*"], "fan works")


def test_the_terms_of_an_authority_are_its_tenants_and_sound(api, rig, works):
    path = f"/api/v1/authorities/{works.certificate.fingerprint(hashes.SHA256()).hex()}"
    assert api.patch(path, json={"landing": {"groups": ["<b>"]}}).status_code == 422
    assert api.patch(path, json={"ids": ["no id!"]}).status_code == 422
    assert api.patch(path, json={"kind": "customer"}).status_code == 422
    assert api.patch(f"/api/v1/authorities/{'0' * 64}", json={"ids": []}).status_code == 404
    ours = rig.identity.authorities.signer().authority.fingerprint
    assert api.patch(f"/api/v1/authorities/{ours}", json={"ids": []}).json()["code"] == "authority-ours"
    rig.registry.put_tenant(Principal("admin"), TenantId("en-other"))
    stranger = rig.accounts.tokens.create(Principal("admin"), "other", grants={"en-other": "admin"}, scopes=()).secret
    api.headers["Authorization"] = f"Bearer {stranger}"
    assert api.patch(path, json={"ids": []}).status_code == 404
