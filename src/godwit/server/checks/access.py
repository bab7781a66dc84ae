"""Checks of who may what: people, tokens, claims, devices' passwords. Pure."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Final

from godwit.server.accounts.model import ApiToken
from godwit.server.checks.model import DAY, Affected, Check, Facts, Severity
from godwit.server.identity.model import ClaimKind, ClaimState

STALE: Final = 90 * DAY
CLAIM_AGE_MAX: Final = 30 * DAY
EVERYWHERE: Final = "*"
_WRITES: Final = ("operator", "admin")


def _good(facts: Facts) -> Iterator[ApiToken]:
    for each in facts.tokens:
        if not each.revoked and (not each.expires or each.expires > facts.now):
            yield each


def _is_stale(created: int, last_used: int, now: int) -> bool:
    return now - max(created, last_used) > STALE


def _token(each: ApiToken, detail: str) -> Affected:
    return Affected("token", each.token_id, f"{each.name}, of {each.owner}: {detail}")


def _stale_tokens(facts: Facts) -> Iterator[Affected]:
    for each in _good(facts):
        if _is_stale(each.created, each.last_used, facts.now):
            yield _token(each, "unused for 90 days")


def _endless_admin(facts: Facts) -> Iterator[Affected]:
    for each in _good(facts):
        if not each.expires and "admin" in each.grants.values() and not each.scopes:
            yield _token(each, "an administrator's, for ever")


def _endless(facts: Facts) -> Iterator[Affected]:
    for each in _good(facts):
        if not each.expires and not ("admin" in each.grants.values() and not each.scopes):
            yield _token(each, "never expires")


def _wide(facts: Facts) -> Iterator[Affected]:
    for each in _good(facts):
        writes = not each.scopes or any(scope.endswith((":write", ":publish")) for scope in each.scopes)
        if each.grants.get(EVERYWHERE) in _WRITES and writes:
            limits = f"{len(each.scopes)} scopes" if each.scopes else "no limit of scopes"
            yield _token(each, f"{each.grants[EVERYWHERE]} of all tenants, {limits}")


def _idle_users(facts: Facts) -> Iterator[Affected]:
    for each in facts.users:
        if not each.is_disabled and _is_stale(each.created, each.last_sign_in, facts.now):
            yield Affected("user", each.name, "no sign-in for 90 days" if each.last_sign_in else "never signed in")


def _keyless_users(facts: Facts) -> Iterator[Affected]:
    for each in facts.users:
        if not each.is_disabled and not each.has_password and not each.has_issuer:
            yield Affected("user", each.name, "neither password nor sign-in elsewhere")


def _lone_admin(facts: Facts) -> Iterator[Affected]:
    admins = [each.name for each in facts.users if each.grants.get(EVERYWHERE) == "admin" and not each.is_disabled]
    if len(admins) > 5:
        yield from (Affected("user", each, "administrator of all tenants") for each in admins)


def _endless_claims(facts: Facts) -> Iterator[Affected]:
    for each in facts.claims:
        if each.state in (ClaimState.OPEN, ClaimState.BOUND) and not each.expires:
            yield Affected("claim", each.claim_id, f"{each.name or each.kind}: never expires")


def _unlimited_claims(facts: Facts) -> Iterator[Affected]:
    for each in facts.claims:
        is_open = each.state is ClaimState.OPEN and (not each.expires or each.expires > facts.now)
        if is_open and each.kind is ClaimKind.FLEET and each.uses_max is None:
            yield Affected("claim", each.claim_id, f"{each.name or each.kind}: {each.uses} devices so far")


def _old_claims(facts: Facts) -> Iterator[Affected]:
    for each in facts.claims:
        is_open = each.state is ClaimState.OPEN and (not each.expires or each.expires > facts.now)
        if is_open and not each.uses and facts.now - each.created > CLAIM_AGE_MAX:
            yield Affected("claim", each.claim_id, f"{each.name or each.kind}: open for more than 30 days")


def _stale_device_tokens(facts: Facts) -> Iterator[Affected]:
    for each in facts.device_tokens:
        is_good = not each.revoked and (not each.expires or each.expires > facts.now)
        if is_good and _is_stale(each.created, each.last_used, facts.now):
            yield Affected("device", each.device_id, f"token {each.token_id}: unused for 90 days")


def _endless_device_tokens(facts: Facts) -> Iterator[Affected]:
    for each in facts.device_tokens:
        if not each.revoked and not each.expires:
            yield Affected("device", each.device_id, f"token {each.token_id}: never expires")


def _shared_tokens(facts: Facts) -> Iterator[Affected]:
    known = {each.token_id: each.device_id for each in facts.device_tokens}
    addresses: defaultdict[str, set[str]] = defaultdict(set)
    for each in facts.connected:
        if each.credential in known:
            addresses[each.credential].add(each.address)
    for token_id, found in addresses.items():
        if len(found) > 1:
            yield Affected("device", known[token_id], f"token {token_id}: from {len(found)} addresses at the same time")


CHECKS: Final = (
    Check(
        "device-token-shared", Severity.CRITICAL, "A device's token is used from several places at the same time",
        "A token stands for one device. In two places it was copied, or taken.",
        "Revoke the token and give the device a new one.",
        _shared_tokens, ("DEVICE_CERTIFICATE_SHARED_CHECK",),
    ),
    Check(
        "token-admin-endless", Severity.HIGH, "An administrator's token never expires",
        "Whoever finds it, in a script, a log or a backup, has the platform until somebody notices.",
        "Make one that expires and has only the scopes it needs; revoke this one.",
        _endless_admin, ("IOT_POLICY_OVERLY_PERMISSIVE_CHECK",),
    ),
    Check(
        "token-wide", Severity.MEDIUM, "A token may change things in all tenants",
        "A program that reports for one customer should not be able to change another's devices.",
        "Make tokens for one tenant, with the scopes that the program uses.",
        _wide, ("IOT_POLICY_OVERLY_PERMISSIVE_CHECK", "IOT_ROLE_ALIAS_OVERLY_PERMISSIVE_CHECK"),
    ),
    Check(
        "claim-unlimited", Severity.MEDIUM, "A fleet claim is good for any number of devices",
        "Whoever reads it out of one device enrolls as many as he likes.",
        "Make claims for as many devices as are built, or one-time claims.",
        _unlimited_claims,
    ),
    Check(
        "claim-endless", Severity.MEDIUM, "A claim never expires",
        "It lies in images and on labels for years, and still opens the door.",
        "Revoke it and make one that ends when the devices should be installed.",
        _endless_claims,
    ),
    Check(
        "administrators-many", Severity.MEDIUM, "More than five people administer all tenants",
        "Each of these accounts is a way to everything.",
        "Give people the tenants and the role that they need.",
        _lone_admin, ("IOT_ROLE_ALIAS_ALLOWS_ACCESS_TO_UNUSED_SERVICES_CHECK",), of_installation=True,
    ),
    Check(
        "token-endless", Severity.LOW, "A token never expires",
        "What nobody has to renew, nobody remembers.",
        "Let it expire, a year at most.",
        _endless,
    ),
    Check(
        "token-stale", Severity.LOW, "A token was not used for 90 days",
        "Nobody would notice if it were stolen.",
        "Revoke it.",
        _stale_tokens, ("IOT_ROLE_ALIAS_ALLOWS_ACCESS_TO_UNUSED_SERVICES_CHECK",),
    ),
    Check(
        "device-token-endless", Severity.LOW, "A device's token never expires",
        "A password in flash memory can be read by who has the device in hand, and counts for ever.",
        "Prefer certificates, which devices renew; let tokens expire.",
        _endless_device_tokens,
    ),
    Check(
        "device-token-stale", Severity.LOW, "A device's token was not used for 90 days",
        "The device is gone or has another credential; the token still opens the door.",
        "Revoke it.",
        _stale_device_tokens,
    ),
    Check(
        "claim-old", Severity.LOW, "A claim is open for more than a month and was never used",
        "It was printed or sent, and not installed.",
        "Revoke it.",
        _old_claims,
    ),
    Check(
        "user-idle", Severity.LOW, "A person has not signed in for 90 days",
        "Accounts of those who have left are what others try first.",
        "Disable the account.",
        _idle_users, of_installation=True,
    ),
    Check(
        "user-without-sign-in", Severity.INFO, "An account has no way to sign in",
        "It can neither be used nor be noticed.",
        "Set a password, connect it to the sign-in provider, or remove it.",
        _keyless_users, of_installation=True,
    ),
)  # fmt: skip
