"""Gathers what the checks look at, as far as who asks may see it. Blocks: it reads tables, and parses certificates."""

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from time import time_ns
from typing import Any, Final

import msgspec
import sqlalchemy as sa
from cryptography import x509

from godwit.server.accounts.api_tokens import token_of
from godwit.server.accounts.model import ApiToken
from godwit.server.accounts.principal import Principal
from godwit.server.accounts.refusals import MORE
from godwit.server.checks.certificates import key_facts
from godwit.server.checks.model import DAY, ClockFact, Connected, Facts, KeyFacts, User
from godwit.server.identity import rows
from godwit.server.identity.model import CertificateState, DeviceKey, DeviceToken
from godwit.server.identity.vault import SYSTEMD_CREDENTIAL
from godwit.server.ingest.clock_report import ClockReport
from godwit.server.platform import Platform
from godwit.server.registry import store
from godwit.server.registry.access import visible
from godwit.server.settings import Settings
from godwit.server.storage import account_tables as a
from godwit.server.storage import identity_tables as i
from godwit.server.storage import tables as t

CONNECTED_MAX: Final = 1_000_000
REFUSALS: Final = ("%.refuse", "%.refused", "%.fail", "%.failed", "%.throttle")
"""How lines of the audit log are called that tell of somebody who was not let in."""


def gather(platform: Platform, who: Principal) -> Facts:
    """Return the facts of the tenants of `who`; those of the installation for who sees all of them."""
    is_whole = who.tenants is None
    now, settings = time_ns(), platform.settings
    with platform.database.read() as connection:
        devices = [store.device_of(row) for row in connection.execute(sa.select(t.devices).where(visible(who)))]
        certificates = [
            rows.certificate_of(row) for row in _of(connection, who, i.certificates, i.certificates.c.tenant)
        ]
        authorities = [rows.authority_of(row) for row in _of(connection, who, i.authorities, i.authorities.c.tenant)]
        counting = [
            each for each in certificates if each.state is not CertificateState.REVOKED and each.not_after > now
        ]
        shown = [(each.fingerprint, each.certificate) for each in counting]
        shown += [(each.fingerprint, each.certificate) for each in authorities]
        facts = Facts(
            now=now,
            settings=settings,
            tenants=_tenants(connection, who, settings),
            devices=devices,
            certificates=certificates,
            authorities=authorities,
            keys_of={name: _key_of(pem) for name, pem in shown},
            proven=_proven(connection),
            claims=[rows.claim_of(row) for row in _of(connection, who, i.claims, i.claims.c.tenant)],
            device_tokens=[
                _row(row, i.device_tokens, DeviceToken)
                for row in _of(connection, who, i.device_tokens, i.device_tokens.c.tenant)
            ],
            device_keys=[
                _row(row, i.device_keys, DeviceKey)
                for row in _of(connection, who, i.device_keys, i.device_keys.c.tenant)
            ],
            users=_users(connection) if is_whole else [],
            tokens=_tokens(connection, who),
            refused=_refused(connection, who, now),
            clocks=_clocks(platform.ingest.clocks(who.tenants)),
            open_files=_open_files(settings.data_dir) if is_whole else [],
            has_own_passphrase_file=is_whole and _lies_beside(settings),
        )
    mine = None if is_whole else {str(each.device_id) for each in devices}
    return msgspec.structs.replace(facts, connected=_connected(platform, mine), conflicts=_conflicts(platform, mine))


def _of(connection: sa.Connection, who: Principal, table: sa.Table, tenant: "sa.Column[Any]") -> Sequence[Any]:
    return connection.execute(sa.select(table).where(visible(who, tenant))).all()


def _row(row: Any, table: sa.Table, kind: Any) -> Any:
    """Return a row as its struct: columns by their names in camel case, what only the room itself may know left out."""
    fields = msgspec.structs.fields(kind)
    document = {each.encode_name: getattr(row, each.name) for each in fields if each.name in table.c}
    return msgspec.convert(document, kind)


def _key_of(pem: str) -> KeyFacts:
    try:
        return key_facts(x509.load_pem_x509_certificate(pem.encode()))
    except ValueError:
        return KeyFacts("unknown", 0, "", "")


def _tenants(connection: sa.Connection, who: Principal, settings: Settings) -> dict[str, bool]:
    is_limited = bool(settings.tenant_messages_per_s or settings.tenant_connections_max)
    found = connection.execute(sa.select(t.tenants.c.name, t.tenants.c.policy).where(visible(who, t.tenants.c.name)))
    return {name: is_limited or bool(policy) for name, policy in found}


def _proven(connection: sa.Connection) -> frozenset[str]:
    found = connection.execute(sa.select(t.audit.c.about).where(t.audit.c.what == "authority.trust"))
    return frozenset(row[0] for row in found)


def _users(connection: sa.Connection) -> list[User]:
    return [
        User(
            row.name, row.grants, row.password is not None, row.issuer is not None, row.is_disabled, row.created,
            row.last_sign_in,
        )
        for row in connection.execute(sa.select(a.users))
    ]  # fmt: skip


def _tokens(connection: sa.Connection, who: Principal) -> list[ApiToken]:
    found = [token_of(row) for row in connection.execute(sa.select(a.api_tokens))]
    if who.tenants is None:
        return found
    return [each for each in found if set(each.grants) <= set(who.tenants)]


def _refused(connection: sa.Connection, who: Principal, now: int) -> dict[str, int]:
    c = t.audit.c
    is_refusal = (c.at > now - DAY, sa.or_(*(c.what.like(each) for each in REFUSALS)), visible(who, c.tenant))
    statement = sa.select(c.what, sa.func.count()).where(*is_refusal).group_by(c.what)
    found = {what: int(count) for what, count in connection.execute(statement)}
    counting = sa.select(c.what, c.after).where(*is_refusal, c.who == "?", c.about.like(f"%{MORE}"))
    for what, after in connection.execute(counting):  # one line tells of many
        found[what] += int(after.get("more", 1)) - 1
    return found


def _clocks(reports: Sequence[ClockReport]) -> list[ClockFact]:
    return [
        ClockFact(each.device_id, each.offset_ns, each.uncertainty_ns) for each in reports if each.offset_ns is not None
    ]


def _connected(platform: Platform, mine: set[str] | None) -> list[Connected]:
    """Return who is connected. `mine`: for these devices only."""
    if platform.settings.mqtt_broker != "embedded":
        return []
    found = platform.broker.inspection.connections("", "clientId", 0, CONNECTED_MAX, descending=False).items
    return [
        Connected(each.client_id, each.device_id, each.listener, each.credential, each.address)
        for each in found
        if mine is None or each.device_id in mine
    ]


def _conflicts(platform: Platform, mine: set[str] | None) -> dict[str, int]:
    if platform.settings.mqtt_broker != "embedded":
        return {}
    return {
        name: count for name, count in platform.broker.inspection.conflicts().items() if mine is None or name in mine
    }


def _open_files(data_dir: Path) -> list[str]:
    """Return files with secrets that other accounts may read."""
    if not data_dir.is_dir() or not data_dir.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        return []
    secrets = [data_dir / "admin-token", *(data_dir / "tls").glob("*.key"), data_dir / "tls" / "passphrase"]
    return [
        str(each.relative_to(data_dir))
        for each in secrets
        if each.is_file() and each.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    ]


def _lies_beside(settings: Settings) -> bool:
    own = settings.data_dir / "tls" / "passphrase"
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    is_given = bool(credentials) and (Path(str(credentials)) / SYSTEMD_CREDENTIAL).is_file()
    return own.is_file() and not (settings.key_passphrase or settings.key_passphrase_file or is_given)
