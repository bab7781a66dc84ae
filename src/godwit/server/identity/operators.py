"""Enrollment by an operator: certificates for one device or for many, from their requests or with keys made here.

A key that asks again is answered the same: whoever was interrupted asks again, and no device gets two certificates.
Keys that are made here are returned once, and kept nowhere.
"""

from collections.abc import Sequence
from time import time_ns
from typing import Final

import msgspec
import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from godwit.contract.errors import GodwitError, RejectedError
from godwit.contract.ids import TypeName
from godwit.server.accounts.principal import Principal
from godwit.server.identity import rows
from godwit.server.identity.authorities import Authorities
from godwit.server.identity.enrollment import Enrollment
from godwit.server.identity.issuance import Issuance, Order
from godwit.server.identity.model import Certificate, CertificateState, Landing, Source
from godwit.server.identity.profiles import common, device_uri
from godwit.server.identity.requests import check_key, check_wishes, key_fingerprint, read_request
from godwit.server.identity.rules import landing_of
from godwit.server.registry.model import DEFAULT_TYPE, Device, Lifecycle
from godwit.server.registry.service import Registry
from godwit.server.storage import identity_tables as t
from godwit.server.storage.database import Database

GROUP_MAX: Final = 500
"""So many devices in one call: one transaction, and a second at most."""


class Wanted(msgspec.Struct, frozen=True):
    """A device to enroll: created as it stands here unless it is there. Without a `request` its key is made here."""

    device: Device
    request: str | None = None
    groups: tuple[str, ...] = ()


class Enrolled(msgspec.Struct, frozen=True):
    """A device's certificate, the PEM of those above it, and of its key if that was made here; or why there is none."""

    device: Device
    certificate: Certificate | None = None
    chain: tuple[str, ...] = ()
    key: str | None = None
    refusal: GodwitError | None = None


class Operators:
    """Thread-safe; blocks."""

    def __init__(
        self,
        database: Database,
        registry: Registry,
        authorities: Authorities,
        issuance: Issuance,
        enrollment: Enrollment,
    ) -> None:
        self._database, self._registry = database, registry
        self._authorities, self._issuance, self._enrollment = authorities, issuance, enrollment

    def enroll(self, who: Principal, wanted: Wanted, *, may_create: bool = False) -> Enrolled:
        """Enroll one device. Raises RejectedError (`not-found`, `csr-...`, `weak-key`, `key-shared` ...)."""
        if not may_create:
            wanted = msgspec.structs.replace(wanted, device=self._registry.device(who, wanted.device.device_id))
        (done,) = self.enroll_all(who, [wanted], Source.OPERATOR)
        if done.refusal is not None:
            raise done.refusal
        return done

    def enroll_all(self, who: Principal, wanted: Sequence[Wanted], source: Source = Source.BATCH) -> list[Enrolled]:
        """Enroll up to GROUP_MAX devices, each for itself: one that is refused stops nobody else.

        In the order of `wanted`. Raises RejectedError (`too-many-devices`, `no-authority`) for all of them.
        """
        who.require("operator")
        if len(wanted) > GROUP_MAX:
            raise RejectedError(f"at most {GROUP_MAX} devices at once", code="too-many-devices")
        self._authorities.signer()  # before devices are created for nothing
        done: dict[int, Enrolled] = {}
        prepared = self._prepare(wanted, done)
        devices = self._create(who, [each for _, each, _, _ in prepared], source)
        admitted: list[tuple[int, Device, x509.CertificateSigningRequest, str | None]] = []
        known = self._certificates([key_fingerprint(check_key(each.public_key())) for _, _, each, _ in prepared])
        seen: set[str] = set()
        for (at, _, request, key), device in zip(prepared, devices, strict=True):
            if isinstance(device, RejectedError):
                done[at] = Enrolled(wanted[at].device, refusal=device)
                continue
            print_of_key = key_fingerprint(check_key(request.public_key()))
            try:
                who.require("operator", device.tenant)
                found = _same_again(device, request, known.get(print_of_key, []), is_second=print_of_key in seen)
            except RejectedError as error:
                done[at] = Enrolled(device, refusal=error)
                continue
            seen.add(print_of_key)
            if found is not None:
                done[at] = Enrolled(device, found, self._authorities.chain_of(found.authority))
            else:
                admitted.append((at, device, request, key))
        self._issue(who, admitted, source, done)
        return [done[at] for at in range(len(wanted))]

    def _issue(
        self,
        who: Principal,
        admitted: Sequence[tuple[int, Device, x509.CertificateSigningRequest, str | None]],
        source: Source,
        done: dict[int, Enrolled],
    ) -> None:
        orders = [Order(request, device.device_id, device.tenant) for _, device, request, _ in admitted]
        issued = self._issuance.issue_all(orders, source, who.name, address=who.address) if orders else []
        for (at, device, _, key), each in zip(admitted, issued, strict=True):
            done[at] = Enrolled(device, each.certificate, each.chain, key)

    def _prepare(
        self, wanted: Sequence[Wanted], done: dict[int, Enrolled]
    ) -> list[tuple[int, Wanted, x509.CertificateSigningRequest, str | None]]:
        """Read the requests, or make keys; what cannot be read is `done`."""
        prepared = []
        named: set[str] = set()
        for at, each in enumerate(wanted):
            device_id = each.device.device_id
            try:
                if device_id in named:
                    raise RejectedError(f"{device_id} is named twice", code="duplicate-device")
                named.add(device_id)
                key = None
                if each.request is None:
                    request, key = make_key(device_id)
                else:
                    request = read_request(each.request)
                check_wishes(request, device_id, device_uri(each.device.tenant, device_id))
            except GodwitError as error:
                done[at] = Enrolled(each.device, refusal=error)
                continue
            prepared.append((at, each, request, key))
        return prepared

    def _create(self, who: Principal, wanted: Sequence[Wanted], source: Source) -> list[Device | RejectedError]:
        """Create the devices that are not there; they land by the rules, where they do not say it themselves."""
        rules = {each: self._enrollment.rules.of_tenant(each) for each in {one.device.tenant for one in wanted}}
        landings = [
            landing_of(
                rules[each.device.tenant], each.device.device_id, source,
                Landing(_said(each.device.device_type), each.groups, each.device.tags),
            )
            for each in wanted
        ]  # fmt: skip
        began = time_ns()
        devices = self._registry.create_devices(
            who,
            [
                (
                    msgspec.structs.replace(
                        each.device, device_type=landing.device_type or DEFAULT_TYPE, tags=landing.tags
                    ),
                    landing.groups,
                )
                for each, landing in zip(wanted, landings, strict=True)
            ],
        )
        for device, landing in zip(devices, landings, strict=True):
            if landing.configuration and isinstance(device, Device) and device.created >= began:
                self._enrollment.configure(device.device_id, landing.configuration)
        return devices

    def _certificates(self, keys: Sequence[str]) -> dict[str, list[Certificate]]:
        found: dict[str, list[Certificate]] = {}
        statement = sa.select(t.certificates).where(t.certificates.c.key_fingerprint.in_(keys))
        with self._database.read() as connection:
            for row in connection.execute(statement):
                each = rows.certificate_of(row)
                found.setdefault(each.key_fingerprint, []).append(each)
        return found


def _said(device_type: TypeName) -> TypeName | None:
    return None if device_type == DEFAULT_TYPE else device_type


def _same_again(
    device: Device, request: x509.CertificateSigningRequest, known: Sequence[Certificate], *, is_second: bool
) -> Certificate | None:
    """Return the certificate that this key has already been given for this device; None: it gets one now.

    Raises RejectedError (`device-retired`, `device-suspended`, `key-shared`, `key-revoked`, `csr-wrong-name`).
    """
    if device.lifecycle is Lifecycle.RETIRED:
        raise RejectedError(f"{device.device_id} is retired", code="device-retired")
    if device.lifecycle is Lifecycle.SUSPENDED:
        raise RejectedError(f"{device.device_id} is suspended", code="device-suspended")
    check_wishes(request, device.device_id, device_uri(device.tenant, device.device_id))
    if is_second or any(each.device_id != device.device_id for each in known):
        raise RejectedError("another device has this key: every device makes its own", code="key-shared")
    if any(each.state is CertificateState.REVOKED for each in known):
        raise RejectedError("a certificate of this key was revoked: make a new key", code="key-revoked")
    now = time_ns()
    current = [each for each in known if each.not_after > now and each.tenant == device.tenant]
    return max(current, key=lambda each: each.created) if current else None


def request_pem(request: x509.CertificateSigningRequest) -> str:
    """Return a request in PEM."""
    return request.public_bytes(serialization.Encoding.PEM).decode()


def make_key(device_id: str) -> tuple[x509.CertificateSigningRequest, str]:
    """Make a key for a device; returns its request, and its PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(common(device_id)).sign(key, hashes.SHA256())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return request, pem.decode()
