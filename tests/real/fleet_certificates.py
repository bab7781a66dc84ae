"""Certificates for tests: good ones from the platform's own authority, and bad ones of every kind."""

import datetime as dt
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from godwit.server.identity.model import Source
from godwit.server.identity.requests import read_request

DAY = dt.timedelta(days=1)


def name(common):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def pem_of(key):
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def public_pem(key):
    kind = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, kind).decode()


class Bundle:
    """Certificate and key in files, as clients want them."""

    def __init__(self, directory: Path, certificate: str, key, chain: str = "") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.certificate, self.key = directory / "device.crt", directory / "device.key"
        self.certificate.write_text(certificate + chain)
        self.key.write_bytes(pem_of(key))
        self.x509 = x509.load_pem_x509_certificate(certificate.encode())
        self.fingerprint = self.x509.fingerprint(hashes.SHA256()).hex()

    @property
    def mosquitto(self):
        return ["--cert", str(self.certificate), "--key", str(self.key)]

    @property
    def openssl(self):
        return ["-cert", str(self.certificate), "-key", str(self.key)]


def issue(identity, directory: Path, device_id: str, *, tenant: str = "default", lifetime=None) -> Bundle:
    """Return what an operator's enrollment gives: a certificate of our own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    csr = x509.CertificateSigningRequestBuilder().subject_name(name(device_id)).sign(key, hashes.SHA256())
    request = read_request(csr.public_bytes(serialization.Encoding.DER))
    issued = identity.issuance.issue(request, device_id, tenant, Source.OPERATOR, "test", lifetime=lifetime)
    return Bundle(directory, issued.certificate.certificate, key, "".join(issued.chain))


class Maker:
    """An authority of somebody else."""

    def __init__(self, common: str = "factory", key=None) -> None:
        self.key = key or ec.generate_private_key(ec.SECP256R1())
        self.name = name(common)
        self.certificate = self.sign(self.name, self.key.public_key(), is_authority=True)

    @property
    def pem(self):
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    def sign(self, subject, key, *, is_authority=False, begins=-DAY, ends=DAY, algorithm=None):
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + begins)
            .not_valid_after(now + ends)
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .sign(self.key, algorithm or hashes.SHA256())
        )

    def device(self, directory: Path, common: str, *, bits: int = 0, **how) -> Bundle:
        key = rsa.generate_private_key(65_537, bits) if bits else ec.generate_private_key(ec.SECP256R1())
        made = self.sign(name(common), key.public_key(), **how)
        return Bundle(directory, made.public_bytes(serialization.Encoding.PEM).decode(), key)
