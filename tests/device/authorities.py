"""What the tests of a device's identity share: an authority as the platform has one, and grants."""

import datetime as dt
import ipaddress

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from godwit.contract.enrollment import EnrollmentGrant
from godwit.device.enrollment import read_grant
from godwit.device.identity import Identity
from godwit.device.identity_file import Granted

NS = 1_000_000_000
NOW = dt.datetime(2026, 6, 1, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)


def name_of(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def pem_of(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


class Authority:
    """A root and an authority below it that issues."""

    def __init__(self, name: str = "root", *, begins: dt.datetime = NOW - 100 * DAY) -> None:
        self.root_key, self.key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        self._root_name, self._name = name_of(name), name_of(f"{name} issuing")
        ends = begins + 5_000 * DAY
        self.root = pem_of(self._sign(self._root_name, self.root_key.public_key(), begins, ends, above=self.root_key))
        self.issuing = pem_of(self._sign(self._name, self.key.public_key(), begins, ends, above=self.root_key))

    def _sign(
        self,
        name: x509.Name,
        key: ec.EllipticCurvePublicKey,
        begins: dt.datetime,
        ends: dt.datetime,
        *,
        above: ec.EllipticCurvePrivateKey | None = None,
        address: str = "",
    ) -> x509.Certificate:
        is_authority = above is not None
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._root_name if is_authority else self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(begins)
            .not_valid_after(ends)
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        )
        if address:
            names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
            builder = builder.add_extension(names, critical=False)
        return builder.sign(above or self.key, hashes.SHA256())

    def issue(
        self, request: str, *, begins: dt.datetime = NOW - DAY / 24, ends: dt.datetime = NOW + 90 * DAY, name: str = ""
    ) -> str:
        """Return a device's certificate."""
        asked = x509.load_pem_x509_csr(request.encode())
        key = asked.public_key()
        assert asked.is_signature_valid
        assert isinstance(key, ec.EllipticCurvePublicKey)
        return pem_of(self._sign(name_of(name) if name else asked.subject, key, begins, ends))

    def server(self, begins: dt.datetime, ends: dt.datetime, address: str = "127.0.0.1") -> tuple[str, str]:
        """Return a server's certificate with its chain, and its key, PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        pem = pem_of(self._sign(name_of("server"), key.public_key(), begins, ends, address=address))
        return pem + self.issuing, key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()

    def grant(self, request: str, device_id: str = "press-7", **more: object) -> EnrollmentGrant:
        """Return the answer to a request."""
        said = {"authorities": [self.root], "time": int(NOW.timestamp()) * NS} | more
        return EnrollmentGrant(device_id, self.issue(request), [self.issuing], **said)  # type: ignore[arg-type]


def answered(identity: Identity, authority: Authority, **more: object) -> Granted:
    """Return what an authority grants to the request that waits."""
    asked = identity.kept.asked
    assert asked is not None
    device_id = identity.kept.device_id
    return read_grant(authority.grant(asked.request, device_id, **more), device_id, identity.key(asked).public_key())


def enroll(identity: Identity, authority: Authority) -> None:
    """Go from nothing, or from a settled identity, to another settled one."""
    identity.ask()
    identity.connected(identity.take(answered(identity, authority)))
