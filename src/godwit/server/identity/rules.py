"""Rules: where new devices land. What a claim or an authority says itself wins over the rule."""

import re
from typing import Final

import msgspec
import sqlalchemy as sa

from godwit.contract.errors import RejectedError
from godwit.contract.ids import TenantId
from godwit.server.accounts.principal import Principal
from godwit.server.identity import rows
from godwit.server.identity.admission import matches
from godwit.server.identity.model import EnrollmentRule, Landing, Source
from godwit.server.registry.access import not_found, require_tenant, visible
from godwit.server.storage import identity_tables as t
from godwit.server.storage.audit import record
from godwit.server.storage.database import Database
from godwit.server.storage.tables import tenants

CONFIGURATION_BYTES_MAX: Final = 65_536
GROUPS_MAX: Final = 32
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._:-]{0,63}")
_PATTERN: Final = re.compile(r"[A-Za-z0-9._:*?-]{1,64}")


def landing_of(rules: list[EnrollmentRule], device_id: str, source: Source, own: Landing) -> Landing:
    """Return where a device lands: field by field, its `own` landing wins over that of the first rule that matches."""
    found = next(
        (
            each.landing
            for each in sorted(rules, key=lambda rule: (rule.position, rule.name))
            if matches(device_id, (each.ids,)) and (not each.sources or source in each.sources)
        ),
        Landing(),
    )
    return Landing(
        own.device_type or found.device_type,
        own.groups or found.groups,
        {**found.tags, **own.tags},
        own.configuration or found.configuration,
    )


def check_landing(landing: Landing) -> None:
    """See that a landing can be kept. Raises RejectedError (`landing-too-large`, `invalid-name`, `invalid-tag`)."""
    for name in (*landing.groups, *([landing.device_type] if landing.device_type else [])):
        if _NAME.fullmatch(name) is None:
            raise RejectedError(f"{name[:80]!r} is no name of a group or type", code="invalid-name")
    for key, value in landing.tags.items():
        if not 0 < len(key) <= 64 or len(value) > 256 or not f"{key}{value}".isprintable():
            raise RejectedError(
                f"{key[:80]!r}: a tag has a key of 64 and a value of 256 characters", code="invalid-tag"
            )
    if len(msgspec.json.encode(landing.configuration)) > CONFIGURATION_BYTES_MAX:
        raise RejectedError(
            f"a first configuration has at most {CONFIGURATION_BYTES_MAX} bytes", code="landing-too-large"
        )
    if len(landing.groups) > GROUPS_MAX:
        raise RejectedError(f"a device lands in {GROUPS_MAX} groups at most", code="landing-too-large")


def check_patterns(*patterns: str) -> None:
    """See that these are patterns of device ids. Raises RejectedError (`invalid-pattern`)."""
    for each in patterns:
        if _PATTERN.fullmatch(each) is None:
            raise RejectedError(
                f"{each[:80]!r} is no pattern of device ids: their characters, * and ?", code="invalid-pattern"
            )


class Rules:
    """Keeps the rules of all tenants. Thread-safe; blocks."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self, who: Principal) -> list[EnrollmentRule]:
        """Return the rules that `who` may see, as they are tried."""
        r = t.enrollment_rules.c
        statement = sa.select(t.enrollment_rules).where(visible(who, r.tenant)).order_by(r.tenant, r.position, r.name)
        with self._database.read() as connection:
            return [rows.rule_of(each) for each in connection.execute(statement)]

    def of_tenant(self, tenant: TenantId) -> list[EnrollmentRule]:
        """Return a tenant's rules, as they are tried."""
        return self.all(Principal("godwit", (tenant,)))

    def put(self, who: Principal, rule: EnrollmentRule) -> EnrollmentRule:
        """Insert or replace a rule. Raises RejectedError (`not-found`, `landing-too-large`)."""
        rule = msgspec.structs.replace(rule, tenant=require_tenant(who, rule.tenant))
        check_landing(rule.landing)
        check_patterns(rule.ids)
        if _NAME.fullmatch(rule.name) is None:
            raise RejectedError(f"{rule.name[:80]!r} is no name", code="invalid-name")
        where = _where(rule.tenant, rule.name)
        document = msgspec.to_builtins(rule)
        with self._database.write() as connection:
            if connection.execute(sa.select(tenants.c.name).where(tenants.c.name == rule.tenant)).first() is None:
                raise not_found("tenant", rule.tenant)
            before = connection.execute(sa.select(t.enrollment_rules).where(where)).one_or_none()
            values = {"position": rule.position, "document": document}
            if before is None:
                values |= {"tenant": rule.tenant, "name": rule.name}
                connection.execute(t.enrollment_rules.insert(), values)
            else:
                connection.execute(t.enrollment_rules.update().where(where), values)
            record(
                connection, who.name, "rule.put", rule.name, before=before.document if before else None, after=document,
                tenant=rule.tenant, address=who.address,
            )  # fmt: skip
        return rule

    def delete(self, who: Principal, tenant: TenantId, name: str) -> None:
        """Remove a rule. Raises RejectedError (`not-found`)."""
        tenant = require_tenant(who, tenant)
        with self._database.write() as connection:
            before = connection.execute(sa.select(t.enrollment_rules).where(_where(tenant, name))).one_or_none()
            if before is None:
                raise not_found("enrollment rule", name)
            connection.execute(t.enrollment_rules.delete().where(_where(tenant, name)))
            record(
                connection, who.name, "rule.delete", name, before=before.document, tenant=tenant, address=who.address
            )


def _where(tenant: str, name: str) -> "sa.ColumnElement[bool]":
    return sa.and_(t.enrollment_rules.c.tenant == tenant, t.enrollment_rules.c.name == name)
