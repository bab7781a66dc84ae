"""The rooms of identity as one value: built once, by `main` or by a test."""

import datetime as dt
from pathlib import Path

import msgspec

from godwit.server.accounts.refusals import Refusals
from godwit.server.identity.authorities import Authorities
from godwit.server.identity.campaign import Campaigns
from godwit.server.identity.certificates import Certificates
from godwit.server.identity.crl import RevocationLists
from godwit.server.identity.custody import Custody
from godwit.server.identity.device_grants import DeviceGrants
from godwit.server.identity.device_keys import DeviceKeys
from godwit.server.identity.device_tokens import DeviceTokens
from godwit.server.identity.enrollment import Enrollment
from godwit.server.identity.issuance import LIFETIME_DEFAULT, Issuance
from godwit.server.identity.key_care import KeyCare
from godwit.server.identity.key_rotation import KeyRotation
from godwit.server.identity.message_keys import MessageKeys
from godwit.server.identity.news import News
from godwit.server.identity.ocsp import OcspResponder
from godwit.server.identity.operators import Operators
from godwit.server.identity.revocation import Revocation
from godwit.server.identity.roster import Roster
from godwit.server.identity.server_certificate import OF_ITS_OWN, Given, ServerCertificates
from godwit.server.identity.trusted import TrustedAuthorities
from godwit.server.identity.vault import Vault, open_vault
from godwit.server.identity.vouched import Vouched
from godwit.server.registry.model import Device
from godwit.server.registry.service import Registry
from godwit.server.storage.database import Database


class Identity(msgspec.Struct, frozen=True):
    """What others ask of identity."""

    news: News
    vault: Vault
    authorities: Authorities
    issuance: Issuance
    revocation: Revocation
    server: ServerCertificates
    enrollment: Enrollment
    operators: Operators
    certificates: Certificates
    roster: Roster
    device_tokens: DeviceTokens
    device_keys: DeviceKeys
    custody: Custody
    trusted: TrustedAuthorities
    grants: DeviceGrants
    vouched: Vouched
    message_keys: MessageKeys
    lists: RevocationLists
    ocsp: OcspResponder
    key_care: KeyCare
    campaigns: Campaigns
    key_rotation: KeyRotation


def open_identity(
    database: Database,
    registry: Registry,
    data_dir: Path,
    *,
    passphrase: str = "",
    passphrase_file: str = "",
    credentials: str | None = None,
    lifetime: dt.timedelta = LIFETIME_DEFAULT,
    given: Given = OF_ITS_OWN,
    refusals: Refusals | None = None,
    grace_days: int = 0,
) -> Identity:
    """Open the rooms; makes the authorities at first start. Raises RejectedError (`key-passphrase`).

    The roster has yet to learn the devices, which are loaded for others too. `refusals`: the platform's one tally.
    `grace_days`: see `grace`.
    """
    news = News()
    vault = open_vault(data_dir, passphrase=passphrase, file=passphrase_file, credentials=credentials)
    authorities = Authorities(database, vault, news)
    key_care = KeyCare(database, authorities, vault, news)
    key_care.settle()
    authorities.ensure()
    issuance = Issuance(database, authorities, news, lifetime=lifetime)
    roster = Roster()
    roster.load(database, authorities)
    news.on_change(roster.follow)
    registry.on_change(roster.learn)
    revocation = Revocation(database, news)
    message_keys = MessageKeys(database, vault, news)
    enrollment = Enrollment(
        database=database, registry=registry, authorities=authorities, issuance=issuance, revocation=revocation,
        news=news, refusals=refusals or Refusals(database),
    )  # fmt: skip
    enrollment.keep_keys = message_keys.enroll
    news.on_change(enrollment.follow)
    lists = RevocationLists(database, authorities, news)
    registry.on_change(lambda changed: lists.forget() if isinstance(changed, Device) else None)
    return Identity(
        news=news,
        vault=vault,
        authorities=authorities,
        issuance=issuance,
        revocation=revocation,
        roster=roster,
        device_tokens=DeviceTokens(database, registry, news, roster),
        device_keys=DeviceKeys(database, registry, news),
        server=ServerCertificates(data_dir, authorities, given),
        enrollment=enrollment,
        operators=Operators(database, registry, authorities, issuance, enrollment),
        certificates=Certificates(database, grace_days),
        custody=Custody(
            database=database,
            registry=registry,
            issuance=issuance,
            revocation=revocation,
            enrollment=enrollment,
            news=news,
        ),
        trusted=TrustedAuthorities(database, news),
        grants=DeviceGrants(database, registry, enrollment.claims),
        vouched=Vouched(database, registry, issuance, enrollment),
        message_keys=message_keys,
        lists=lists,
        ocsp=OcspResponder(lists, authorities.signer_of),
        key_care=key_care,
        campaigns=Campaigns(database, authorities, grace_days),
        key_rotation=KeyRotation(database, message_keys),
    )  # fmt: skip
