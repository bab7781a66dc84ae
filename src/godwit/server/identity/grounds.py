"""What a certificate is issued on, looked at once more in the transaction that keeps it.

A decision is made of what was read before. Until the new certificate is written, somebody may have revoked its
predecessor, suspended the device or withdrawn the claim: whoever commits first wins, and nothing slips between. Rows
are locked where the database has such locks (PostgreSQL); where it has not (SQLite) there is one writer at a time.
"""

from collections.abc import Sequence
from typing import Any, Final

import sqlalchemy as sa

from godwit.contract import codes
from godwit.contract.errors import RejectedError, UnavailableError
from godwit.server.identity import rows
from godwit.server.identity.admission import CLAIMING, OVER, RENEWING, matches
from godwit.server.identity.model import AuthorityState, CertificateState, ClaimState, Credential, Door
from godwit.server.registry.model import Lifecycle
from godwit.server.storage import identity_tables as t
from godwit.server.storage.tables import devices

_AT_ONCE: Final = 500


def check_authority(connection: sa.Connection, fingerprint: str) -> None:
    """Raise UnavailableError (`no-authority`) where the authority that is to issue was retired a moment ago."""
    a = t.authorities.c
    state = _locked(connection, sa.select(a.state).where(a.fingerprint == fingerprint))
    if state in (None, AuthorityState.RETIRED):
        raise UnavailableError("the authority that was to issue was just retired: ask again", code="no-authority")


def check_devices(connection: sa.Connection, wanted: Sequence[tuple[str, str]]) -> None:
    """See that devices (id, tenant) are there, that tenant's, and may connect.

    Raises RejectedError (`unknown-device`, `device-retired`, `device-suspended`).
    """
    d = devices.c
    lives: dict[str, tuple[str, str]] = {}
    for at in range(0, len(wanted), _AT_ONCE):
        ids = [device_id for device_id, _ in wanted[at : at + _AT_ONCE]]
        statement = sa.select(d.device_id, d.tenant, d.lifecycle).where(d.device_id.in_(ids)).with_for_update(read=True)
        lives |= {row.device_id: (row.tenant, row.lifecycle) for row in connection.execute(statement)}
    for device_id, tenant in wanted:
        owner, life = lives.get(device_id, ("", ""))
        if owner != tenant:
            raise RejectedError(f"{device_id!r} is not in the registry any more", code=codes.UNKNOWN_DEVICE)
        if life == Lifecycle.RETIRED:
            raise RejectedError("this device is retired", code=codes.DEVICE_RETIRED)
        if life == Lifecycle.SUSPENDED:
            raise RejectedError("this device is suspended", code="device-suspended")


def check_credential(connection: sa.Connection, by: Credential) -> None:
    """See that a credential was not taken away meanwhile.

    Raises RejectedError (`certificate-revoked`, `token-revoked`, `key-retired`, `claim-revoked`, `claim-spent`,
    `authority-not-trusted`).
    """
    if by.door in RENEWING:
        if is_over(connection, by):
            raise RejectedError(f"the {by.door} of this connection counts no more", code=OVER[by.door])
    elif by.door in CLAIMING:
        state = _locked(connection, sa.select(t.claims.c.state).where(t.claims.c.claim_id == by.name))
        if state == ClaimState.SPENT:
            raise RejectedError("this claim has been used", code="claim-spent")
        if state not in (ClaimState.OPEN, ClaimState.BOUND):
            raise RejectedError("this claim was revoked", code="claim-revoked")
    elif by.door is Door.FACTORY:
        check_trust(connection, by.authority, by.common_name)


def check_trust(connection: sa.Connection, fingerprint: str, device_id: str) -> None:
    """See that an authority of a tenant is trusted, and may name a device. Raises RejectedError.

    (`authority-not-trusted`.) Nobody asks again for its terms once a certificate is in the registry.
    """
    of_it = sa.select(t.authorities).where(t.authorities.c.fingerprint == fingerprint)
    row = connection.execute(of_it.with_for_update(read=True)).one_or_none()
    authority = None if row is None else rows.authority_of(row)
    if authority is None or authority.state is AuthorityState.RETIRED:
        raise RejectedError("whoever issued the certificate is not trusted any more", code="authority-not-trusted")
    if not matches(device_id, authority.terms.ids):
        raise RejectedError("whoever issued the certificate may not name this device", code="authority-not-trusted")


def is_over(connection: sa.Connection, by: Credential) -> bool:
    """Whether a device's own credential was taken away: its open session ends at once, but not before this instant."""
    certificates, tokens, keys = t.certificates.c, t.device_tokens.c, t.device_keys.c
    if by.door in (Door.CERTIFICATE, Door.ENDED):
        row = connection.execute(
            sa.select(certificates.state, certificates.authority)
            .where(certificates.fingerprint == by.name)
            .with_for_update(read=True)
        ).one_or_none()
        if row is None:
            return False
        a = t.authorities.c
        authority = _locked(connection, sa.select(a.state).where(a.fingerprint == row.authority))
        is_out = row.state == CertificateState.REVOKED or authority == AuthorityState.RETIRED
        return bool(is_out or (by.door is Door.ENDED and row.state != CertificateState.ACTIVE))
    if by.door is Door.TOKEN:
        ended = sa.select(tokens.revoked).where(tokens.token_id == by.name)
    else:
        ended = sa.select(keys.retired).where(
            keys.key_id == by.name, keys.device_id == by.device_id, keys.purpose == "jwt"
        )
    return bool(_locked(connection, ended))


def _locked(connection: sa.Connection, statement: "sa.Select[Any]") -> Any:
    """Return the one value of a row that nobody changes before the transaction ends; None: there is none."""
    return connection.execute(statement.with_for_update(read=True)).scalar_one_or_none()
