"""Checks of devices and of who is connected. Pure."""

from collections.abc import Iterator
from typing import Final

from godwit.server.checks.model import DAY, NS, Affected, Check, Facts, Severity
from godwit.server.identity.model import CertificateState
from godwit.server.registry.model import Lifecycle

UNCLAIMED_MAX: Final = 7 * DAY
CLOCK_OFF_MAX: Final = 60 * NS
CONFLICTS_MAX: Final = 5
REFUSALS_MAX: Final = 100
_BLOCKED: Final = (Lifecycle.SUSPENDED, Lifecycle.RETIRED)


def _blocked_connected(facts: Facts) -> Iterator[Affected]:
    blocked = {each.device_id: each.lifecycle for each in facts.devices if each.lifecycle in _BLOCKED}
    for client in facts.connected:
        if client.device_id in blocked:
            yield Affected("device", client.device_id, f"{blocked[client.device_id]}, client {client.client_id}")  # type: ignore[index]


def _unclaimed(facts: Facts) -> Iterator[Affected]:
    for each in facts.devices:
        if each.lifecycle is Lifecycle.UNCLAIMED and facts.now - each.created <= UNCLAIMED_MAX:
            yield Affected("device", each.device_id)


def _unclaimed_long(facts: Facts) -> Iterator[Affected]:
    for each in facts.devices:
        age = facts.now - each.created
        if each.lifecycle is Lifecycle.UNCLAIMED and age > UNCLAIMED_MAX:
            yield Affected("device", each.device_id, f"for {age // DAY} days")


def _without_credential(facts: Facts) -> Iterator[Affected]:
    if facts.settings.mqtt_broker != "embedded":
        return  # the other broker knows
    has = {
        each.device_id
        for each in facts.certificates
        if each.state is not CertificateState.REVOKED and each.not_after > facts.now
    }
    has |= {each.device_id for each in facts.device_tokens if not each.revoked}
    has |= {each.device_id for each in facts.device_keys if not each.retired}
    for each in facts.devices:
        if each.lifecycle is Lifecycle.ACTIVE and each.device_id not in has:
            yield Affected("device", each.device_id)


def _clock_off(facts: Facts) -> Iterator[Affected]:
    for each in facts.clocks:
        if abs(each.offset) - each.uncertainty > CLOCK_OFF_MAX:
            yield Affected("device", each.device_id, f"{each.offset / NS:+.0f} s")


def _conflicts(facts: Facts) -> Iterator[Affected]:
    for client_id, count in facts.conflicts.items():
        if count >= CONFLICTS_MAX:
            yield Affected("client", client_id, f"{count} times in the last hour")


def _refusals(facts: Facts) -> Iterator[Affected]:
    for what, count in facts.refused.items():
        if count >= REFUSALS_MAX:
            yield Affected("audit", what, f"{count} times in the last day")


CHECKS: Final = (
    Check(
        "device-blocked-connected", Severity.CRITICAL, "A suspended or retired device is connected",
        "It was shut out, and is still in.",
        "Disconnect the client (Broker page). Then tell us: suspension ends sessions within a second.",
        _blocked_connected, ("REVOKED_DEVICE_CERTIFICATE_STILL_ACTIVE_CHECK",),
    ),
    Check(
        "client-id-conflict", Severity.HIGH, "Clients fight for one client id",
        "Two devices with one name throw each other out again and again, or somebody tries another's name.",
        "Find the two (audit log, Broker page), and give one of them an id of its own.",
        _conflicts, ("CONFLICTING_CLIENT_IDS_CHECK",),
    ),
    Check(
        "refusals-many", Severity.MEDIUM, "Many attempts to come in were refused",
        "Somebody is trying keys, or a part of the fleet is locked out.",
        "See in the audit log from where they come; block the address, or enroll the devices anew.",
        _refusals,
    ),
    Check(
        "device-unclaimed-long", Severity.MEDIUM, "A device waits unclaimed for more than a week",
        "Nobody has said that it belongs here.",
        "Claim it (`godwit device claim ID`, or the page Enrollment), or erase it.",
        _unclaimed_long, ("UNAUTHENTICATED_COGNITO_ROLE_OVERLY_PERMISSIVE_CHECK",),
    ),
    Check(
        "device-clock-off", Severity.LOW, "A device's clock is more than a minute off",
        "Certificates and signatures have dates: a device with a wrong clock takes old ones for good, or refuses new.",
        "Let it set its clock (NTP, or the time that the platform tells it); see the Clocks page.",
        _clock_off,
    ),
    Check(
        "device-without-credential", Severity.INFO, "An active device has no certificate, token or key",
        "It cannot come in by TLS; only through a gateway, HTTP by an application, or the local listener.",
        "Enroll it: `godwit device enroll ID`.",
        _without_credential,
    ),
    Check(
        "device-unclaimed", Severity.INFO, "A device waits to be claimed",
        "It registered itself on the local listener.",
        "Claim it (`godwit device claim ID`, or the page Enrollment), or erase it.",
        _unclaimed,
    ),
)  # fmt: skip
