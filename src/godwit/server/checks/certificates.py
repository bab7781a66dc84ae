"""Checks of certificates and of the authorities behind them. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

from godwit.server.checks.model import DAY, Affected, Check, Facts, KeyFacts, Severity
from godwit.server.identity.admission import matches
from godwit.server.identity.grace import is_in_grace, renewable_until
from godwit.server.identity.model import Authority, AuthorityKind, AuthorityState, Certificate, CertificateState
from godwit.server.registry.model import Lifecycle

AUTHORITY_LEFT_MIN: Final = 180 * DAY
"""An authority has to outlive what it issues, and a rollover takes its time."""
DEVICE_LEFT_MAX: Final = 20 * DAY
DEVICE_LEFT_SHARE: Final = 5
"""Devices renew with a third of the lifetime left; who has less than a fifth left did not."""
AGE_MAX: Final = 365 * DAY
UNUSED_MAX: Final = 30 * DAY
RSA_BITS_MIN: Final = 2_048
CURVES: Final = frozenset({"secp256r1", "secp384r1", "secp521r1"})
WEAK_HASHES: Final = frozenset({"md5", "sha1"})


def key_facts(certificate: x509.Certificate) -> KeyFacts:
    """Return what a certificate's key is, and how it is signed."""
    try:
        key = certificate.public_key()
        signature = certificate.signature_hash_algorithm
    except (UnsupportedAlgorithm, ValueError):
        return KeyFacts("unknown", 0, "", "")
    hashed = signature.name if signature is not None else ""
    if isinstance(key, rsa.RSAPublicKey):
        return KeyFacts("rsa", key.key_size, "", hashed)
    if isinstance(key, ec.EllipticCurvePublicKey):
        return KeyFacts("ec", key.key_size, key.curve.name, hashed)
    if isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        return KeyFacts(type(key).__name__.removesuffix("PublicKey").lower(), 0, "", hashed)
    return KeyFacts("unknown", 0, "", hashed)


def weakness(facts: KeyFacts) -> str:
    """Return what is weak about a key or its certificate's signature; empty: nothing."""
    if facts.signature in WEAK_HASHES:
        return f"signed over {facts.signature.upper()}"
    if facts.kind == "rsa" and facts.bits < RSA_BITS_MIN:
        return f"RSA of {facts.bits} bits"
    if facts.kind == "ec" and facts.curve not in CURVES:
        return f"curve {facts.curve}"
    return "of an unknown kind" if facts.kind == "unknown" else ""


def counting(facts: Facts) -> Iterator[Certificate]:
    """Return certificates that are neither revoked nor over."""
    for each in facts.certificates:
        if each.state is not CertificateState.REVOKED and each.not_after > facts.now:
            yield each


def newest(facts: Facts) -> dict[str, Certificate]:
    """Return each device's certificate that counts longest; one that is over where there is no other."""
    found: dict[str, Certificate] = {}
    for each in facts.certificates:
        if each.state is CertificateState.REVOKED:
            continue
        before = found.get(each.device_id)
        if before is None or each.not_after > before.not_after:
            found[each.device_id] = each
    return found


def _working(facts: Facts) -> set[str]:
    return {str(each.device_id) for each in facts.devices if each.lifecycle is Lifecycle.ACTIVE}


def _days(span: int) -> str:
    return f"{span / DAY:.0f} days" if span >= 2 * DAY else f"{span / DAY * 24:.0f} hours"


def _expiring(facts: Facts) -> Iterator[Affected]:
    working = _working(facts)
    for device_id, each in newest(facts).items():
        left, lifetime = each.not_after - facts.now, each.not_after - each.not_before
        if device_id in working and 0 < left < min(DEVICE_LEFT_MAX, lifetime // DEVICE_LEFT_SHARE):
            yield Affected("device", device_id, f"ends in {_days(left)}")


def _expired(facts: Facts) -> Iterator[Affected]:
    working = _working(facts)
    graced = _graced(facts)
    for device_id, each in newest(facts).items():
        if device_id in working and each.not_after <= facts.now and device_id not in graced:
            yield Affected("device", device_id, f"ended {_days(facts.now - each.not_after)} ago")


def _graced(facts: Facts) -> dict[str, Certificate]:
    """Return the certificates that have ended, and still renew themselves, of devices without another that counts."""
    ours = {each.fingerprint for each in _trusted(facts) if each.kind in (AuthorityKind.ROOT, AuthorityKind.ISSUING)}
    days, alive = facts.settings.renewal_grace_days, {each.device_id for each in counting(facts)}
    return {
        each.device_id: each
        for each in facts.certificates
        if each.authority in ours and each.device_id not in alive and is_in_grace(each, days, facts.now)
    }


def _in_grace(facts: Facts) -> Iterator[Affected]:
    working, days = _working(facts), facts.settings.renewal_grace_days
    for device_id, each in _graced(facts).items():
        if device_id in working:
            left = renewable_until(each, days) - facts.now
            yield Affected("device", device_id, f"ended {_days(facts.now - each.not_after)} ago, {_days(left)} left")


def _expired_connected(facts: Facts) -> Iterator[Affected]:
    over = {each.fingerprint: each for each in facts.certificates if each.not_after <= facts.now}
    for client in facts.connected:
        if client.credential in over:
            yield Affected("client", client.client_id, f"certificate {client.credential[:16]}")


def _old(facts: Facts) -> Iterator[Affected]:
    for each in counting(facts):
        if facts.now - each.not_before > AGE_MAX:
            yield Affected("device", each.device_id, f"since {_days(facts.now - each.not_before)}")


def _long_lived(facts: Facts) -> Iterator[Affected]:
    for each in counting(facts):
        if each.not_after - each.not_before > AGE_MAX + DAY:
            yield Affected("device", each.device_id, f"good for {_days(each.not_after - each.not_before)}")


def _unused(facts: Facts) -> Iterator[Affected]:
    for each in counting(facts):
        if each.state is CertificateState.PENDING and facts.now - each.created > UNUSED_MAX:
            yield Affected("device", each.device_id, f"issued {_days(facts.now - each.created)} ago")


def _shared(facts: Facts) -> Iterator[Affected]:
    known = {each.fingerprint: each.device_id for each in facts.certificates}
    clients, addresses = defaultdict(set), defaultdict(set)
    for each in facts.connected:
        if each.credential in known:
            clients[each.credential].add(each.client_id)
            addresses[each.credential].add(each.address)
    for fingerprint, ids in clients.items():
        if len(ids) > 1 or len(addresses[fingerprint]) > 1:
            said = f"{len(ids)} clients from {len(addresses[fingerprint])} addresses at the same time"
            yield Affected("device", known[fingerprint], said)


def _key_shared(facts: Facts) -> Iterator[Affected]:
    devices: defaultdict[str, set[str]] = defaultdict(set)
    for each in counting(facts):
        devices[each.key_fingerprint].add(each.device_id)
    for key in facts.device_keys:
        if not key.retired:
            devices[key.key_id].add(key.device_id)
    for ids in devices.values():
        if len(ids) > 1:
            for device_id in sorted(ids):
                yield Affected("device", device_id, f"the key of {len(ids)} devices")


def _weak(facts: Facts) -> Iterator[Affected]:
    for each in counting(facts):
        known = facts.keys_of.get(each.fingerprint)
        if known is not None and (said := weakness(known)):
            yield Affected("device", each.device_id, said)


def _weak_authority(facts: Facts) -> Iterator[Affected]:
    for each in _trusted(facts):
        known = facts.keys_of.get(each.fingerprint)
        if known is not None and (said := weakness(known)):
            yield Affected("authority", each.name, said)


def _trusted(facts: Facts) -> Iterable[Authority]:
    return [each for each in facts.authorities if each.state is not AuthorityState.RETIRED]


def _authority_expiring(facts: Facts) -> Iterator[Affected]:
    for each in _trusted(facts):
        left = each.not_after - facts.now
        if each.state is not AuthorityState.RETIRING and 0 < left < AUTHORITY_LEFT_MIN:
            yield Affected("authority", each.name, f"ends in {_days(left)}")


def _authority_expired(facts: Facts) -> Iterator[Affected]:
    for each in _trusted(facts):
        if each.not_after <= facts.now:
            yield Affected("authority", each.name, f"ended {_days(facts.now - each.not_after)} ago")


def _authority_retired(facts: Facts) -> Iterator[Affected]:
    retired = {each.fingerprint: each.name for each in facts.authorities if each.state is AuthorityState.RETIRED}
    for each in counting(facts):
        if each.authority in retired:
            yield Affected("device", each.device_id, f"issued by {retired[each.authority]}")


def _revoked_connected(facts: Facts) -> Iterator[Affected]:
    revoked = {each.fingerprint for each in facts.certificates if each.state is CertificateState.REVOKED}
    for client in facts.connected:
        if client.credential in revoked:
            yield Affected("client", client.client_id, f"certificate {client.credential[:16]}")


def _foreign(facts: Facts) -> list[Authority]:
    return [each for each in _trusted(facts) if each.kind in (AuthorityKind.FACTORY, AuthorityKind.CUSTOMER)]


def _unproven(facts: Facts) -> Iterator[Affected]:
    for each in _foreign(facts):
        if each.fingerprint not in facts.proven and not each.has_key:
            yield Affected("authority", each.name, f"for {each.tenant}")


def _any_id(facts: Facts) -> Iterator[Affected]:
    for each in _foreign(facts):
        if each.terms.just_in_time and not set(each.terms.ids) - {"*"}:
            yield Affected("authority", each.name, f"for {each.tenant}")


def _outside_terms(facts: Facts) -> Iterator[Affected]:
    foreign = {each.fingerprint: each for each in _foreign(facts) if each.terms.ids}
    for each in counting(facts):
        authority = foreign.get(each.authority)
        if authority is not None and not matches(each.device_id, authority.terms.ids):
            yield Affected("device", each.device_id, f"by {authority.name}: {', '.join(authority.terms.ids)[:64]}")


CHECKS: Final = (
    Check(
        "certificate-revoked-connected", Severity.CRITICAL, "A client is connected with a revoked certificate",
        "What was revoked may be in somebody else's hands.",
        "Disconnect the client (Broker page). Then tell us: revocation ends sessions within a second.",
        _revoked_connected, ("REVOKED_DEVICE_CERTIFICATE_STILL_ACTIVE_CHECK",),
    ),
    Check(
        "certificate-shared", Severity.CRITICAL, "Several clients use one certificate at the same time",
        "A certificate says who a device is. In two places it was copied: one of the two may be a thief's.",
        "Find out where the key lies, revoke the certificate (`godwit ca revoke`) and enroll each device by itself.",
        _shared, ("DEVICE_CERTIFICATE_SHARED_CHECK",),
    ),
    Check(
        "authority-expired", Severity.CRITICAL, "An authority has ended",
        "No certificate under it counts any more: its devices cannot connect.",
        "Roll over to a new authority (`godwit ca rollover`), or retire it where nobody needs it.",
        _authority_expired, ("CA_CERTIFICATE_EXPIRING_CHECK",),
    ),
    Check(
        "certificate-expired-connected", Severity.HIGH, "A client is connected with a certificate that has ended",
        "Sessions end with their certificate; one that did not escapes the registry.",
        "Disconnect the client (Broker page), look at the clock of this machine, and tell us.",
        _expired_connected, ("DEVICE_CERTIFICATE_EXPIRING_CHECK",),
    ),
    Check(
        "certificate-key-shared", Severity.HIGH, "Several devices have the same key",
        "Who has the key of one is each of them: a batch was made with one key, or a disk image was copied.",
        "Have each device make its own key and enroll anew; revoke the certificates with the shared one.",
        _key_shared, ("DEVICE_CERTIFICATE_SHARED_CHECK", "DEVICE_CERTIFICATE_KEY_QUALITY_CHECK"),
    ),
    Check(
        "certificate-weak", Severity.HIGH, "A device's certificate has a weak key or signature",
        "RSA below 2,048 bits, unusual curves and SHA-1 can be forged with means that can be bought.",
        "Enroll the device with a new key: ECDSA P-256 is what the SDK makes.",
        _weak, ("DEVICE_CERTIFICATE_KEY_QUALITY_CHECK",),
    ),
    Check(
        "authority-weak", Severity.HIGH, "An authority has a weak key or signature",
        "Who forges an authority's signature names any device of its tenant.",
        "Replace the authority by one with ECDSA P-256 or RSA of 3,072 bits, then retire it.",
        _weak_authority, ("CA_CERTIFICATE_KEY_QUALITY_CHECK",),
    ),
    Check(
        "authority-retired-in-use", Severity.HIGH, "Certificates of a retired authority have not been replaced",
        "They count no more: these devices cannot connect until they are enrolled under another authority.",
        "Renew them in a rollover campaign, or revoke what is not needed.",
        _authority_retired,
        ("REVOKED_CA_CERTIFICATE_STILL_ACTIVE_CHECK", "INTERMEDIATE_CA_REVOKED_FOR_ACTIVE_DEVICE_CERTIFICATES_CHECK"),
    ),
    Check(
        "authority-expiring", Severity.HIGH, "An authority ends within half a year",
        "It cannot issue beyond its own end, and when it ends its devices are locked out.",
        "Start a rollover now: `godwit ca rollover`. It tells how far each device is.",
        _authority_expiring, ("CA_CERTIFICATE_EXPIRING_CHECK",),
    ),
    Check(
        "authority-unproven", Severity.HIGH, "A foreign authority is trusted without proof of possession",
        "Anybody can send somebody else's CA certificate. Without proof its owner may not know of it.",
        "Have the owner sign the registration code, or remove the authority.",
        _unproven,
    ),
    Check(
        "certificate-expired", Severity.MEDIUM, "A device's last certificate has ended",
        "It cannot connect any more, and cannot renew by itself.",
        "Enroll it anew: `godwit device enroll ID`, or a one-time claim. Retire it if it is gone.",
        _expired, ("DEVICE_CERTIFICATE_EXPIRING_CHECK",),
    ),
    Check(
        "certificate-in-grace", Severity.LOW, "A device's certificate has ended, and it may still renew it",
        "It was away, or cannot renew. For RENEWAL_GRACE_DAYS its certificate opens its own renewal, and nothing else.",
        "Bring it back in time. If it is lost or sold, revoke its certificate: then it opens nothing at all.",
        _in_grace, ("DEVICE_CERTIFICATE_EXPIRING_CHECK",),
    ),
    Check(
        "certificate-expiring", Severity.MEDIUM, "A device has not renewed its certificate in time",
        "Devices renew with a third of the lifetime left. This one did not, and will soon be locked out.",
        "Look whether it is connected and what its events say; renew it with a new bundle otherwise.",
        _expiring, ("DEVICE_CERTIFICATE_EXPIRING_CHECK",),
    ),
    Check(
        "authority-any-id", Severity.MEDIUM, "An authority may name any device just in time",
        "Without patterns of ids its certificates take any free id of the tenant, and fill the registry.",
        "Say in its terms which ids it may name, such as `pump-*`.",
        _any_id, ("IOT_POLICY_OVERLY_PERMISSIVE_CHECK",),
    ),
    Check(
        "authority-outside-terms", Severity.MEDIUM, "A certificate is outside of its authority's terms",
        "The terms were narrowed after the device came in. It may still connect: who was there is not shut out.",
        "Revoke the certificate if the device is not to be there, enroll it anew, or widen the terms "
        "(`godwit factory change`).",
        _outside_terms, ("IOT_POLICY_OVERLY_PERMISSIVE_CHECK",),
    ),
    Check(
        "certificate-long-lived", Severity.LOW, "A certificate is good for more than a year",
        "The longer it counts, the longer a stolen one does.",
        "Have the authority issue for a year at most, and let devices renew.",
        _long_lived, ("DEVICE_CERTIFICATE_AGE_CHECK",),
    ),
    Check(
        "certificate-old", Severity.LOW, "A certificate was issued more than a year ago",
        "Keys that are never changed are found in old backups and sold devices.",
        "Renew it: the device makes a new key each time.",
        _old, ("DEVICE_CERTIFICATE_AGE_CHECK",),
    ),
    Check(
        "certificate-unused", Severity.LOW, "A certificate was issued a month ago and never used",
        "A bundle that lies somewhere can be used by who finds it.",
        "Revoke it, or install it.",
        _unused,
    ),
)  # fmt: skip
