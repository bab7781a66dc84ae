"""Checks of the platform itself: settings, keys, files. Pure."""

from collections.abc import Iterator
from typing import Final
from urllib.parse import parse_qs, urlsplit

from godwit.runtime.hosts import is_loopback
from godwit.server.checks.model import Affected, Check, Facts, Severity
from godwit.server.identity.model import AuthorityKind, AuthorityState

_GUARDED: Final = frozenset({"require", "verify-ca", "verify-full"})


def _plaintext(facts: Facts) -> Iterator[Affected]:
    settings = facts.settings
    if settings.mqtt_broker == "embedded" and settings.local_listener:
        yield Affected("setting", "LOCAL_LISTENER", f"MQTT without TLS on {settings.mqtt_host}:{settings.mqtt_port}")


def _plain_link(facts: Facts) -> Iterator[Affected]:
    settings = facts.settings
    if settings.mqtt_broker == "external" and not settings.mqtt_tls and not is_loopback(settings.mqtt_host):
        yield Affected("setting", "MQTT_TLS", f"{settings.mqtt_host}:{settings.mqtt_port} without TLS")


def _plain_database(facts: Facts) -> Iterator[Affected]:
    url = urlsplit(facts.settings.database_url)
    if not url.scheme.startswith("postgresql") or is_loopback(url.hostname or "localhost"):
        return
    mode = parse_qs(url.query).get("sslmode", ["prefer"])[0]
    if mode not in _GUARDED:
        yield Affected("setting", "DATABASE_URL", f"{url.hostname}: sslmode={mode}")


def _one_password(facts: Facts) -> Iterator[Affected]:
    settings = facts.settings
    if settings.mqtt_broker == "embedded" and settings.mqtt_username and settings.mqtt_password:
        yield Affected("setting", "MQTT_PASSWORD", f"user name {settings.mqtt_username}")


def _tls_old(facts: Facts) -> Iterator[Affected]:
    if facts.settings.tls_minimum == "1.2":
        yield Affected("setting", "TLS_MINIMUM", "1.2")


def _passphrase(facts: Facts) -> Iterator[Affected]:
    if facts.has_own_passphrase_file:
        yield Affected("file", "tls/passphrase", "beside the keys that it opens")


def _root_here(facts: Facts) -> Iterator[Affected]:
    for each in facts.authorities:
        if each.kind is AuthorityKind.ROOT and each.has_key and each.state is not AuthorityState.RETIRED:
            yield Affected("authority", each.name)


def _quiet(facts: Facts) -> Iterator[Affected]:
    if facts.settings.log_level == "error":
        yield Affected("setting", "LOG_LEVEL", "error")


def _open_files(facts: Facts) -> Iterator[Affected]:
    for each in facts.open_files:
        yield Affected("file", each, "others may read it")


def _unlimited(facts: Facts) -> Iterator[Affected]:
    if len(facts.tenants) > 1:
        for name, is_limited in facts.tenants.items():
            if not is_limited:
                yield Affected("tenant", name, "messages, connections or both have no limit")


def _spare_doors(facts: Facts) -> Iterator[Affected]:
    settings = facts.settings
    if settings.device_tokens and not facts.device_tokens and facts.certificates:
        yield Affected("setting", "DEVICE_TOKENS", "no device has a token")
    if settings.device_jwt and not facts.device_keys and facts.certificates:
        yield Affected("setting", "DEVICE_JWT", "no device has registered a key")


CHECKS: Final = (
    Check(
        "files-open", Severity.HIGH, "Files with secrets can be read by other accounts of this machine",
        "The administrator's token and the sealed keys are as safe as their files.",
        "chmod 600 the files, chmod 700 DATA_DIR.",
        _open_files, of_installation=True,
    ),
    Check(
        "broker-link-plaintext", Severity.HIGH, "The link to the other broker is not encrypted",
        "Everybody on the way reads and changes what devices say, and learns the password.",
        "MQTT_TLS=true, with MQTT_CA_FILE.",
        _plain_link, of_installation=True,
    ),
    Check(
        "database-plaintext", Severity.HIGH, "The link to the database is not encrypted",
        "Device keys are sealed in it; who may what is not.",
        "Add ?sslmode=verify-full to DATABASE_URL.",
        _plain_database, of_installation=True,
    ),
    Check(
        "broker-password", Severity.MEDIUM, "One user name and password opens all topics of all tenants",
        "Whoever has it speaks for every device and hears everything. It names nobody, and does not expire.",
        "Use certificates for devices and API tokens with mqtt scopes for programs; unset MQTT_USERNAME.",
        _one_password, ("IOT_POLICY_OVERLY_PERMISSIVE_CHECK", "AUTHENTICATED_COGNITO_ROLE_OVERLY_PERMISSIVE_CHECK"),
        of_installation=True,
    ),
    Check(
        "listener-plaintext", Severity.MEDIUM, "A plaintext MQTT listener is open on this machine",
        "Every account of this machine can speak for unclaimed devices, and listen.",
        "LOCAL_LISTENER=false once devices have certificates.",
        _plaintext, ("UNAUTHENTICATED_COGNITO_ROLE_OVERLY_PERMISSIVE_CHECK",), of_installation=True,
    ),
    Check(
        "passphrase-beside-keys", Severity.MEDIUM, "The passphrase of the keys lies beside them",
        "Who copies DATA_DIR has the authorities' keys open.",
        "Give it with KEY_PASSPHRASE_FILE from another disk, or as a systemd credential "
        "(LoadCredentialEncrypted=godwit-key-passphrase:...); see docs/operations.md.",
        _passphrase, of_installation=True,
    ),
    Check(
        "root-key-online", Severity.LOW, "The root's key is on this machine",
        "It is needed once in years. Who takes it here names devices until every device has forgotten the root.",
        "Move it offline: `godwit ca export-root FILE`.",
        _root_here, of_installation=True,
    ),
    Check(
        "tenants-unlimited", Severity.LOW, "A tenant has no limits",
        "One tenant's fleet can take the whole platform from the others.",
        "godwit tenant quota NAME --messages 500 --connections 10000, or the TENANT_... settings.",
        _unlimited, of_installation=True,
    ),
    Check(
        "logging-quiet", Severity.LOW, "Logging is turned down",
        "Warnings are what says that somebody tries the doors.",
        "LOG_LEVEL=info, or warning.",
        _quiet, ("LOGGING_DISABLED_CHECK",), of_installation=True,
    ),
    Check(
        "door-unused", Severity.INFO, "A way in is open that nobody uses",
        "What is closed cannot be tried.",
        "Switch it off: DEVICE_TOKENS=false, DEVICE_JWT=false.",
        _spare_doors, of_installation=True,
    ),
    Check(
        "tls-1.2-allowed", Severity.INFO, "TLS 1.2 is allowed",
        "It is safe with the ciphers in force (ECDHE and AEAD only); 1.3 says less to who listens.",
        "TLS_MINIMUM=1.3 once all devices speak it.",
        _tls_old, of_installation=True,
    ),
)  # fmt: skip
