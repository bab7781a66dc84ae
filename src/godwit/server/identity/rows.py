"""Rows of identity in and out of the database. No rules, no secrets decided here."""

from functools import cache
from typing import Any

import msgspec
import sqlalchemy as sa

from godwit.server.identity.model import (
    Authority,
    Certificate,
    Claim,
    DeviceGrant,
    DeviceKey,
    DeviceToken,
    EnrollmentRule,
)
from godwit.server.storage import identity_tables as t


def authority_of(row: Any) -> Authority:
    """Return a row of `authorities`."""
    return msgspec.convert({**_named(row, t.authorities, {"key"}), "hasKey": row.key is not None}, Authority)


def row_of_authority(authority: Authority, key: bytes | None) -> dict[str, Any]:
    """Return the columns of an authority; `key` is sealed."""
    return {**_columns(authority, t.authorities), "key": key}


def certificate_of(row: Any) -> Certificate:
    """Return a row of `certificates`."""
    return msgspec.convert(_named(row, t.certificates), Certificate)


def row_of_certificate(certificate: Certificate) -> dict[str, Any]:
    """Return the columns of a certificate."""
    return _columns(certificate, t.certificates)


def claim_of(row: Any) -> Claim:
    """Return a row of `claims`."""
    return msgspec.convert(_named(row, t.claims, {"digest"}), Claim)


def row_of_claim(claim: Claim, digest: str) -> dict[str, Any]:
    """Return the columns of a claim; `digest` is its token's."""
    return {**_columns(claim, t.claims), "digest": digest}


def rule_of(row: Any) -> EnrollmentRule:
    """Return a row of `enrollment_rules`."""
    return msgspec.convert(row.document, EnrollmentRule)


def grant_of(row: Any) -> DeviceGrant:
    """Return a row of `device_grants`, without its codes."""
    return msgspec.convert(_named(row, t.device_grants, {"device_digest", "user_digest"}), DeviceGrant)


def device_token_of(row: Any) -> DeviceToken:
    """Return a row of `device_tokens`, without its digest."""
    return msgspec.convert(_named(row, t.device_tokens, {"digest"}), DeviceToken)


def row_of_device_token(token: DeviceToken, digest: str) -> dict[str, Any]:
    """Return the columns of a device token."""
    return {**_columns(token, t.device_tokens), "digest": digest}


def device_key_of(row: Any) -> DeviceKey:
    """Return a row of `device_keys`, without our half of it."""
    return msgspec.convert(_named(row, t.device_keys, {"secret"}), DeviceKey)


@cache
def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(each.capitalize() for each in rest)


def _named(row: Any, table: sa.Table, without: frozenset[str] | set[str] = frozenset()) -> dict[str, Any]:
    return {_camel(each.name): getattr(row, each.name) for each in table.c if each.name not in without}


def _columns(value: msgspec.Struct, table: sa.Table) -> dict[str, Any]:
    document = msgspec.to_builtins(value)
    return {each.name: document[_camel(each.name)] for each in table.c if _camel(each.name) in document}


def row_of_device_key(key: DeviceKey, secret: bytes | None) -> dict[str, Any]:
    """Return the columns of a key; `secret` is sealed."""
    return {**_columns(key, t.device_keys), "secret": secret}
