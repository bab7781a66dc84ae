"""Certificates over the API: an operator enrolls a device, looks at its certificates, revokes one."""

import io
import zipfile

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from godwit.server.identity.profiles import common


def csr(device_id, key=None, *extensions):
    builder = x509.CertificateSigningRequestBuilder().subject_name(common(device_id))
    for each in extensions:
        builder = builder.add_extension(each, critical=False)
    made = builder.sign(key or ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM).decode()


def make(api, device_id):
    assert api.post("/api/v1/devices", json={"deviceId": device_id}).status_code == 201


def test_a_device_is_enrolled_from_its_request_and_asked_again_is_answered_the_same(api, rig):
    make(api, "op-1")
    asked = {"request": csr("op-1")}
    first = api.post("/api/v1/devices/op-1/enroll", json=asked)
    assert first.status_code == 201, first.text
    assert "key" not in first.json()
    again = api.post("/api/v1/devices/op-1/enroll", json=asked).json()
    assert again["fingerprint"] == first.json()["fingerprint"]
    certificate = x509.load_pem_x509_certificate(again["certificate"].encode())
    (name,) = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert (certificate.subject.rfc4514_string(), name.value) == ("CN=op-1", "urn:godwit:default:op-1")
    (shown,) = api.get("/api/v1/certificates?deviceId=op-1").json()["items"]
    assert (shown["state"], shown["source"], shown["firstSeen"]) == ("pending", "operator", None)
    assert api.get(f"/api/v1/certificates/{shown['fingerprint']}").json()["certificate"] == again["certificate"]


def test_a_bundle_has_the_key_once(api, rig):
    make(api, "op-2")
    packed = api.post("/api/v1/devices/op-2/enroll?format=zip", json={})
    assert packed.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(packed.content)) as files:
        assert set(files.namelist()) == {
            f"op-2/{each}" for each in ("device.crt", "device.key", "ca.crt", "config.json")
        }
        key = serialization.load_pem_private_key(files.read("op-2/device.key"), None)
        certificate = x509.load_pem_x509_certificate(files.read("op-2/device.crt"))
        assert key.public_key() == certificate.public_key()
        assert files.getinfo("op-2/device.key").external_attr >> 16 == 0o600
    other = api.post("/api/v1/devices/op-2/enroll", json={}).json()
    assert other["key"].startswith("-----BEGIN PRIVATE KEY")
    assert len(api.get("/api/v1/certificates?deviceId=op-2").json()["items"]) == 2


def test_revoked_for_good_and_the_key_with_it(api, rig):
    make(api, "op-3")
    key = ec.generate_private_key(ec.SECP256R1())
    made = api.post("/api/v1/devices/op-3/enroll", json={"request": csr("op-3", key)}).json()
    path = f"/api/v1/certificates/{made['fingerprint']}"
    assert api.post(f"{path}/revoke", json={"reason": "because"}).status_code == 422
    for _ in range(2):
        assert api.post(f"{path}/revoke", json={"reason": "keyCompromise"}).json()["state"] == "revoked"
    assert api.get(path).json()["reason"] == "keyCompromise"
    again = api.post("/api/v1/devices/op-3/enroll", json={"request": csr("op-3", key)})
    assert again.json()["code"] == "key-revoked"
    make(api, "op-3b")
    stolen = api.post("/api/v1/devices/op-3b/enroll", json={"request": csr("op-3b", key)})
    assert stolen.json()["code"] == "key-shared"


@pytest.mark.parametrize(
    ("request_of", "code"),
    [
        (lambda: csr("somebody-else"), "csr-wrong-name"),
        (lambda: csr("op-4", None, x509.BasicConstraints(ca=True, path_length=None)), "csr-wants-authority"),
        (lambda: csr("op-4", rsa.generate_private_key(65537, 1024)), "weak-key"),
        (lambda: "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n", "csr-malformed"),
        (lambda: "x" * 20_000, "invalid-request"),
    ],
)
def test_bad_requests_have_their_codes(api, rig, request_of, code):
    if api.get("/api/v1/devices/op-4").status_code == 404:
        make(api, "op-4")
    told = api.post("/api/v1/devices/op-4/enroll", json={"request": request_of()})
    assert (told.status_code, told.json()["code"]) == (422, code)
    assert api.get("/api/v1/certificates?deviceId=op-4").json()["total"] == 0


def test_unknown_retired_and_suspended_devices_get_none(api, rig):
    assert api.post("/api/v1/devices/nobody/enroll", json={}).status_code == 404
    make(api, "op-5")
    for lifecycle in ("suspended", "retired"):
        api.patch("/api/v1/devices/op-5", json={"lifecycle": lifecycle})
        assert api.post("/api/v1/devices/op-5/enroll", json={}).json()["code"] == f"device-{lifecycle}"


def test_many_at_once_each_for_itself(api, rig):
    make(api, "many-1")
    items = [
        {"deviceId": "many-1", "request": csr("many-1")},
        {"deviceId": "many-2", "request": csr("many-3")},
        {"deviceId": "many-3", "tags": {"hall": "2"}, "groups": ["hall 2"]},
        {"deviceId": "many-3"},
        {"deviceId": "many-4", "tenant": "nobody"},
    ]
    told = api.post("/api/v1/devices/enroll", json={"items": items}).json()
    codes = [each.get("code") for each in told["items"]]
    assert codes == [None, "csr-wrong-name", None, "duplicate-device", "not-found"]
    assert "key" in told["items"][2]
    assert api.get("/api/v1/devices/many-3").json()["tags"] == {"hall": "2"}
    assert api.get("/api/v1/devices?group=hall 2").json()["total"] == 1
    assert api.get("/api/v1/devices/many-2").status_code == 404
    again = api.post("/api/v1/devices/enroll", json={"items": items[:1]}).json()
    assert again["items"][0]["fingerprint"] == told["items"][0]["fingerprint"]


def test_pages_of_certificates(api, rig):
    api.post("/api/v1/devices/enroll", json={"items": [{"deviceId": f"page-{each}"} for each in range(5)]})
    path = "/api/v1/certificates?search=page-&limit=2"
    found, cursor = [], ""
    while cursor is not None:
        page = api.get(path + (f"&cursor={cursor}" if cursor else "")).json()
        assert page["total"] == 5
        found += [each["deviceId"] for each in page["items"]]
        cursor = page["cursor"]
    assert sorted(found) == [f"page-{each}" for each in range(5)]
    assert api.get("/api/v1/certificates?search=page-&expiringDays=89").json()["total"] == 0
    assert api.get("/api/v1/certificates?search=page-&expiringDays=91").json()["total"] == 5
    assert api.get("/api/v1/certificates?cursor=AAAA").json()["code"] == "invalid-cursor"
