"""Requests and certificates with names, numbers and encodings that nobody should be taken in by."""

import datetime as dt
import shutil
import subprocess
import warnings

import pytest
import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509 import ocsp
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID

from godwit.contract.errors import GodwitError
from godwit.contract.ids import DEFAULT_TENANT, DeviceId
from godwit.server.accounts.principal import Principal
from godwit.server.identity import rows
from godwit.server.identity.authorities import describe
from godwit.server.identity.model import AuthorityKind, Source
from godwit.server.identity.profiles import authority_certificate, common
from godwit.server.identity.registrars import Registrars
from godwit.server.identity.requests import check_wishes, read_request
from godwit.server.registry.model import Device
from godwit.server.storage import identity_tables as t

ADMIN = Principal("admin")
NOW = dt.datetime.now(dt.UTC)
DER = serialization.Encoding.DER


def name(*values, kind=None) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, each, _type=kind) for each in values])


def refusal(ask) -> str:
    with pytest.raises(GodwitError) as refused:
        ask()
    return refused.value.code


def wishes(subject: x509.Name) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    made = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    check_wishes(read_request(made.public_bytes(DER)), "pump-7", "urn:godwit:default:pump-7")


ODD = (
    name("pump-7", "pump-8"), name("pump-7", "pump-7"), name("pump-7\0.evil"), name("PUMP-7"), name("pump-7 "),
    name("\u0440ump-7"), name("pump\u20117"), name("pump-7\u200b"), x509.Name([]),
    x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "pump-7")]),
)  # fmt: skip


@pytest.mark.parametrize("subject", ODD, ids=range(len(ODD)))
def test_names_that_only_look_like_the_devices(subject):
    assert refusal(lambda: wishes(subject)) == "csr-wrong-name"


@pytest.mark.parametrize("kind", [_ASN1Type.BMPString, _ASN1Type.PrintableString, _ASN1Type.UTF8String])
def test_its_own_name_in_another_encoding_is_its_name_and_ours_is_the_one_in_the_certificate(rooms, kind):
    key = ec.generate_private_key(ec.SECP256R1())
    made = x509.CertificateSigningRequestBuilder().subject_name(name("pump-7", kind=kind)).sign(key, hashes.SHA256())
    rooms.registry.create_device(ADMIN, Device(DeviceId("pump-7")))
    request = read_request(made.public_bytes(DER))
    issued = rooms.issuance.issue(request, DeviceId("pump-7"), DEFAULT_TENANT, Source.OPERATOR, "t").certificate
    subject = x509.load_pem_x509_certificate(issued.certificate.encode()).subject
    assert subject.public_bytes() == common("pump-7").public_bytes()


class Factory:
    """A customer's authority that signs what it likes."""

    def __init__(self, rooms, key=None) -> None:
        self.key = key or ec.generate_private_key(ec.SECP256R1())
        self.certificate = authority_certificate(
            common("Acme"), self.key.public_key(), common("Acme"), self.key, NOW, dt.timedelta(days=9), depth=0
        )
        described = describe(self.certificate, AuthorityKind.CUSTOMER)
        with rooms.database.write() as connection:
            row = rows.row_of_authority(described, None) | {"tenant": str(DEFAULT_TENANT)}
            connection.execute(t.authorities.insert(), row)
        rooms.identity.news.tell(described)

    def make(self, subject: x509.Name, serial: int = 0) -> str:
        key = ec.generate_private_key(ec.SECP256R1())
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(common("Acme"))
            .public_key(key.public_key())
            .serial_number(serial or x509.random_serial_number())
            .not_valid_before(NOW - dt.timedelta(hours=1))
            .not_valid_after(NOW + dt.timedelta(days=1))
        )
        return made.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


@pytest.mark.parametrize("subject", ODD, ids=range(len(ODD)))
def test_certificates_of_a_trusted_authority_with_such_names(rooms, subject):
    factory = Factory(rooms)
    pem = factory.make(subject)
    register = lambda: rooms.identity.vouched.register(ADMIN, DeviceId("pump-7"), pem)  # noqa: E731
    assert refusal(register) == "certificate-wrong-name"
    rooms.registry.create_device(ADMIN, Device(DeviceId("pump-7")))
    der = x509.load_pem_x509_certificate(pem.encode()).public_bytes(DER)
    code = refusal(lambda: rooms.identity.enrollment.take_in(der, address="192.0.2.7"))
    assert code == ("unknown-device" if subject == name("PUMP-7") else "certificate-wrong-name")


def test_one_serial_number_for_two_certificates(rooms):
    factory = Factory(rooms)
    first, second, third = (factory.make(common(each), 77) for each in ("pump-7", "pump-8", "pump-9"))
    register = rooms.identity.vouched.register
    _, kept = register(ADMIN, DeviceId("pump-7"), first)
    assert register(ADMIN, DeviceId("pump-7"), first)[1] == kept
    assert refusal(lambda: register(ADMIN, DeviceId("pump-8"), second)) == "serial-shared"
    assert rooms.identity.enrollment.device(DeviceId("pump-8")) is None
    rooms.registry.create_device(ADMIN, Device(DeviceId("pump-9")))
    der = x509.load_pem_x509_certificate(third.encode()).public_bytes(DER)
    assert refusal(lambda: rooms.identity.enrollment.take_in(der)) == "serial-shared"


def openssl(tmp_path, *arguments: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    return subprocess.run(["openssl", *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)


def test_serial_numbers_below_one_and_beyond_measure(rooms, tmp_path):
    """Our own library makes none: openssl does."""
    factory = Factory(rooms)
    (tmp_path / "ca.crt").write_bytes(factory.certificate.public_bytes(serialization.Encoding.PEM))
    (tmp_path / "ca.key").write_bytes(
        factory.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    new = "req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout k -subj /CN=pump-7 -out csr"
    assert openssl(tmp_path, *new.split()).returncode == 0
    for serial in ("-5", "0", "0x" + "7f" * 30):
        sign = f"x509 -req -in csr -CA ca.crt -CAkey ca.key -set_serial {serial} -days 1"
        pem = openssl(tmp_path, *sign.split()).stdout
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            code = refusal(lambda pem=pem: rooms.identity.vouched.register(ADMIN, DeviceId("pump-7"), pem))
        assert code == "certificate-malformed"


def test_ocsp_about_numbers_that_no_certificate_has(rooms):
    issuer = rooms.authorities.signer().certificate
    own = ocsp.OCSPRequestBuilder().add_certificate(issuer, issuer, hashes.SHA1()).build()
    digest = hashes.Hash(hashes.SHA1())
    digest.update(issuer.subject.public_bytes())
    hashed = digest.finalize(), own.issuer_key_hash
    for serial in (1, 2**159, 2**2000):
        asked = ocsp.OCSPRequestBuilder().add_certificate_by_hash(*hashed, serial, hashes.SHA1()).build()
        data = asked.public_bytes(DER)
        answer = ocsp.load_der_ocsp_response(rooms.identity.ocsp.answer(data))
        assert answer.response_status is ocsp.OCSPResponseStatus.SUCCESSFUL
        assert answer.certificate_status is ocsp.OCSPCertStatus.UNKNOWN
    below = data.replace(b"\x02\x81\xfb\x01", b"\x02\x81\xfb\xff")
    assert below != data
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        refused = ocsp.load_der_ocsp_response(rooms.identity.ocsp.answer(below))
    assert refused.response_status is ocsp.OCSPResponseStatus.MALFORMED_REQUEST


def pem(thing) -> str:
    if isinstance(thing, x509.Certificate):
        return thing.public_bytes(serialization.Encoding.PEM).decode()
    return thing.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


@pytest.mark.parametrize("kind", ["ed25519", "P-521", "its own way of key identifiers"])
def test_a_customers_issuing_authority_of_any_kind_signs_lists_and_answers(rooms, tmp_path, kind):
    """`openssl` judges: a list is found by the key identifier that the authority's certificate has."""
    root_key = ec.generate_private_key(ec.SECP256R1())
    key = ec.generate_private_key(ec.SECP521R1() if kind == "P-521" else ec.SECP256R1())
    if kind == "ed25519":
        key = ed25519.Ed25519PrivateKey.generate()
    root = authority_certificate(
        common("Acme root"), root_key.public_key(), common("Acme root"), root_key, NOW, dt.timedelta(days=99), depth=1
    )
    made = (
        x509.CertificateBuilder()
        .subject_name(common("Acme issuing"))
        .issuer_name(common("Acme root"))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - dt.timedelta(hours=1))
        .not_valid_after(NOW + dt.timedelta(days=50))
        .add_extension(x509.BasicConstraints(True, 0), True)
        .add_extension(x509.SubjectKeyIdentifier(b"any eight bytes or more"), False)
        .sign(root_key, hashes.SHA256())
    )
    rooms.identity.key_care.add_issuing(ADMIN, pem(made) + pem(root), key=pem(key))
    device = rooms.enrolled()
    rooms.identity.revocation.revoke(device.fingerprint, "keyCompromise", "t")
    crl = x509.load_der_x509_crl(rooms.identity.lists.of()).public_bytes(serialization.Encoding.PEM)
    for file, content in (
        ("root", pem(root)),
        ("mine", pem(made)),
        ("leaf", device.certificate),
        ("crl", crl.decode()),
    ):
        (tmp_path / file).write_text(content)
    verify = "verify -crl_check -CRLfile crl -CAfile root -untrusted mine leaf"
    judged = openssl(tmp_path, *verify.split())
    assert "certificate revoked" in judged.stderr
    leaf = x509.load_pem_x509_certificate(device.certificate.encode())
    asked = ocsp.OCSPRequestBuilder().add_certificate(leaf, made, hashes.SHA256()).build().public_bytes(DER)
    answer = ocsp.load_der_ocsp_response(rooms.identity.ocsp.answer(asked))
    assert answer.certificate_status is ocsp.OCSPCertStatus.REVOKED
    (tmp_path / "answer").write_bytes(answer.public_bytes(DER))
    respond = "ocsp -respin answer -issuer mine -sha256 -cert leaf -CAfile root"
    said = openssl(tmp_path, *respond.split())
    assert "Response verify OK" in said.stderr + said.stdout
    assert "leaf: revoked" in said.stdout
    certified = Registrars(rooms.database, rooms.identity.vault, rooms.authorities).current()
    certified.registrar.certificate.verify_directly_issued_by(made)


def test_what_nobody_issued_is_unknown_and_what_ended_leaves_the_list(rooms):
    device = rooms.enrolled()
    rooms.identity.revocation.revoke(device.fingerprint, "keyCompromise", "t")
    assert len(x509.load_der_x509_crl(rooms.identity.lists.of())) == 1
    with rooms.database.write() as connection:
        connection.execute(t.certificates.update().values(not_after=sa.text("1")))
    rooms.identity.lists.forget()
    assert len(x509.load_der_x509_crl(rooms.identity.lists.of())) == 0
