"""Looking at certificates: one, or pages of them, as far as whoever asks may see."""

import base64
import binascii
from collections.abc import Iterable, Sequence
from time import time_ns
from typing import Final

import msgspec
import sqlalchemy as sa

from godwit.contract.errors import RejectedError
from godwit.contract.ids import DeviceId
from godwit.server.accounts.principal import Principal
from godwit.server.identity import rows
from godwit.server.identity.grace import is_in_grace, renewable_until
from godwit.server.identity.model import AuthorityKind, AuthorityState, Certificate, CertificateState
from godwit.server.registry.access import not_found, visible
from godwit.server.storage import identity_tables as t
from godwit.server.storage.database import Database

PAGE_MAX: Final = 1_000
DAY: Final = 86_400_000_000_000
SOON_DAYS: Final = 30
_OURS: Final = (str(AuthorityKind.ROOT), str(AuthorityKind.ISSUING))
_COUNTING: Final = (CertificateState.PENDING, CertificateState.ACTIVE, CertificateState.SUPERSEDED)


class CertificatePage(msgspec.Struct, frozen=True):
    """One page, those first that end first; `cursor` opens the next one, None after the last."""

    items: list[Certificate]
    cursor: str | None
    total: int


class Ends(msgspec.Struct, frozen=True):
    """How many certificates end in each span of `days` days from now on."""

    days: int
    counts: list[int]


class Certificates:
    """Thread-safe; blocks."""

    def __init__(self, database: Database, grace_days: int = 0) -> None:
        """`grace_days`: for so long one of ours that has ended renews itself (setting RENEWAL_GRACE_DAYS)."""
        self._database, self.grace_days = database, grace_days

    def page(
        self,
        who: Principal,
        *,
        device_id: DeviceId | None = None,
        state: CertificateState | None = None,
        authority: str | None = None,
        ends_before: int | None = None,
        is_in_grace: bool = False,
        search: str = "",
        cursor: str | None = None,
        limit: int = 100,
    ) -> CertificatePage:
        """Return one page. `ends_before` (ns UTC): only those that still count until then.

        `is_in_grace`: only those that have ended, and may still renew themselves.
        `search`: how an id, a fingerprint or a serial number begins. Raises RejectedError (`invalid-cursor`).
        """
        c = t.certificates.c
        conditions = [visible(who, c.tenant)]
        equal = {"device_id": device_id, "state": state and str(state), "authority": authority}
        conditions += [c[name] == value for name, value in equal.items() if value is not None]
        if ends_before is not None:
            conditions += [c.not_after < ends_before, c.not_after > time_ns(), c.state.in_(map(str, _COUNTING))]
        if is_in_grace:
            now = time_ns()
            conditions += [c.not_after <= now, c.not_after > now - self.grace_days * DAY, self._is_ours()]
            conditions.append(c.state == str(CertificateState.ACTIVE))
        if search:
            begins = search.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
            named = [c.device_id.like(begins, escape="\\")]
            named += [each.like(begins.lower().replace(":", ""), escape="\\") for each in (c.fingerprint, c.serial)]
            conditions.append(sa.or_(*named))
        condition = sa.and_(*conditions)
        statement = sa.select(t.certificates).where(condition).order_by(c.not_after, c.fingerprint)
        if cursor is not None:
            end, fingerprint = _read_cursor(cursor)
            statement = statement.where(
                sa.or_(c.not_after > end, sa.and_(c.not_after == end, c.fingerprint > fingerprint))
            )
        limit = max(1, min(limit, PAGE_MAX))
        with self._database.read() as connection:
            found = [rows.certificate_of(each) for each in connection.execute(statement.limit(limit + 1))]
            count = sa.select(sa.func.count()).select_from(t.certificates).where(condition)
            total = connection.execute(count).scalar_one()
        following = _write_cursor(found[limit - 1]) if len(found) > limit else None
        return CertificatePage(found[:limit], following, total)

    @staticmethod
    def _is_ours() -> "sa.ColumnElement[bool]":
        a = t.authorities.c
        counting = sa.select(a.fingerprint).where(a.kind.in_(_OURS), a.state != str(AuthorityState.RETIRED))
        return t.certificates.c.authority.in_(counting)

    def in_grace(self, certificates: Iterable[Certificate]) -> dict[str, int]:
        """Return those of `certificates` that have ended and may still renew themselves: until when (ns UTC)."""
        now = time_ns()
        found = {
            each.fingerprint: renewable_until(each, self.grace_days)
            for each in certificates
            if is_in_grace(each, self.grace_days, now)
        }
        if not found:
            return {}
        c = t.certificates.c
        with self._database.read() as connection:
            ours = sa.select(c.fingerprint).where(c.fingerprint.in_(found), self._is_ours())
            return {fingerprint: found[fingerprint] for (fingerprint,) in connection.execute(ours)}

    def get(self, who: Principal, fingerprint: str) -> Certificate:
        """Return a certificate. Raises RejectedError (`not-found`)."""
        c = t.certificates.c
        statement = sa.select(t.certificates).where(c.fingerprint == fingerprint, visible(who, c.tenant))
        with self._database.read() as connection:
            row = connection.execute(statement).one_or_none()
        if row is None:
            raise not_found("certificate", fingerprint[:64])
        return rows.certificate_of(row)

    def counting(self, who: Principal, device_ids: Sequence[str]) -> list[Certificate]:
        """Return the certificates of devices that count now. At most some hundred ids."""
        c = t.certificates.c
        statement = sa.select(t.certificates).where(
            visible(who, c.tenant), c.device_id.in_(device_ids), c.not_after > time_ns(),
            c.state.in_(map(str, _COUNTING)),
        )  # fmt: skip
        with self._database.read() as connection:
            return [rows.certificate_of(each) for each in connection.execute(statement)]

    def ends(self, who: Principal, *, bins: int = 26) -> Ends:
        """Return how many of the certificates that count end when, in spans of equal length, whole days each."""
        c = t.certificates.c
        now = time_ns()
        counts = sa.and_(visible(who, c.tenant), c.not_after > now, c.state.in_(map(str, (_COUNTING[0], _COUNTING[1]))))
        with self._database.read() as connection:
            last = connection.execute(sa.select(sa.func.max(c.not_after)).where(counts)).scalar_one()
            if last is None:
                return Ends(1, [])
            days = max(1, -(-(int(last) - now) // (bins * DAY)))
            span = (c.not_after - now) // sa.literal(days * DAY, sa.BigInteger)
            found = connection.execute(sa.select(span, sa.func.count()).where(counts).group_by(span)).all()
        numbers = {int(at): int(count) for at, count in found}
        return Ends(days, [numbers.get(at, 0) for at in range(max(numbers) + 1)])

    def counts(self, who: Principal) -> dict[str, int]:
        """Return how many there are: by state, `ended`, and `ending` within SOON_DAYS of those that count."""
        c = t.certificates.c
        now = time_ns()
        is_over = sa.case((c.not_after <= now, 1), else_=0)
        is_near = sa.case((sa.and_(c.not_after > now, c.not_after < now + SOON_DAYS * DAY), 1), else_=0)
        statement = (
            sa.select(c.state, sa.func.count(), sa.func.sum(is_over), sa.func.sum(is_near))
            .where(visible(who, c.tenant))
            .group_by(c.state)
        )
        with self._database.read() as connection:
            found = connection.execute(statement).all()
        counting = [each for each in found if each[0] in (CertificateState.PENDING, CertificateState.ACTIVE)]
        return {
            **{str(each): 0 for each in CertificateState},
            **{str(each[0]): int(each[1]) for each in found},
            "ended": sum(int(each[2] or 0) for each in counting),
            "ending": sum(int(each[3] or 0) for each in counting),
        }


def _write_cursor(last: Certificate) -> str:
    return base64.urlsafe_b64encode(f"{last.not_after}:{last.fingerprint}".encode()).decode()


def _read_cursor(cursor: str) -> tuple[int, str]:
    try:
        end, _, fingerprint = base64.urlsafe_b64decode(cursor).decode("ascii").partition(":")
        if not (fingerprint.isalnum() and 0 <= int(end) < 2**63):
            raise ValueError
        return int(end), fingerprint
    except (ValueError, binascii.Error, UnicodeDecodeError):
        raise RejectedError("this cursor is not one of ours", code="invalid-cursor") from None
