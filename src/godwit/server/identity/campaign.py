"""Rollover: another issuing authority, or another root, is brought to every device, step by step, and the old one goes.

Of an intermediate: the new one issues from the start; devices are told to renew. Of a root: devices are told whom else
to trust; whoever names the new root in its status, or when it renews, is told to renew, and then gets its certificate
from the new issuing authority. The server shows itself under the old root until the end.

All is in the database, and each tick looks there: a restart changes nothing, and nothing is told twice in vain.
"""

from collections.abc import Callable, Sequence
from time import time_ns
from typing import Any, Final

import sqlalchemy as sa

from godwit.contract.errors import RejectedError
from godwit.contract.notices import (
    NewAuthorities,
    RenewalWanted,
    encode_new_authorities,
    encode_renewal_wanted,
)
from godwit.server.accounts.principal import Principal
from godwit.server.identity.authorities import Authorities
from godwit.server.identity.grace import DAY_NS
from godwit.server.identity.model import (
    Authority,
    AuthorityKind,
    AuthorityState,
    Campaign,
    CampaignKind,
    CampaignState,
    CertificateState,
    Step,
)
from godwit.server.registry.model import Lifecycle
from godwit.server.storage import identity_tables as t
from godwit.server.storage.audit import record
from godwit.server.storage.database import Database
from godwit.server.storage.tables import devices

RATE_DEFAULT: Final = 20
RATE_MAX: Final = 1_000
AGAIN_S: Final = 120
"""When a device that was told, and is there, is told once more."""
PATIENCE: Final = 5
"""How often a device is told before it counts as failed; it may still come round."""
_NS: Final = 1_000_000_000
_AT_ONCE: Final = 1_000
_OPEN: Final = (CampaignState.RUNNING, CampaignState.PAUSED)
_COUNTING: Final = (CertificateState.PENDING, CertificateState.ACTIVE)
_OVER: Final = (Step.RENEWED, Step.GONE)
"""Whom the end of the old authority does not shut out."""


class Campaigns:
    """Thread-safe; blocks. At most one campaign is open at a time."""

    def __init__(self, database: Database, authorities: Authorities, grace_days: int = 0) -> None:
        """`grace_days`: for so long a certificate that has ended still renews itself, and can be lost."""
        self._database, self._authorities, self._grace_ns = database, authorities, grace_days * DAY_NS
        self.tell: Callable[[str, bytes], object] = lambda _device, _payload: None
        """Hands a notice to a device. From any thread."""

    # --- what people do -------------------------------------------------------------------------------------------

    def start(self, who: Principal, kind: CampaignKind, *, rate: int = RATE_DEFAULT) -> Campaign:
        """Begin. A new authority that waits (`next`) is taken, else one is made.

        Raises RejectedError (`campaign-open`, `no-authority`, `root-offline`, `invalid-rate`).
        """
        who.require_installation()
        if not 1 <= rate <= RATE_MAX:
            raise RejectedError(f"the rate is 1 to {RATE_MAX} devices a second", code="invalid-rate")
        if self.open() is not None:
            raise RejectedError("a rollover is under way: finish it, or cancel it", code="campaign-open")
        old_issuing = self._authorities.signer().authority
        old_root = self._authorities.root_of(old_issuing)
        if old_root is None:
            raise RejectedError("the root of the issuing authority is not known", code="no-authority")
        if kind is CampaignKind.INTERMEDIATE:
            old, new = old_issuing, self._next_issuing(old_root, who)
        else:
            old, new = old_root, self._next_root(old_root, who)
        now = time_ns()
        with self._database.write() as connection:
            campaign_id = connection.execute(
                t.campaigns.insert().returning(t.campaigns.c.campaign_id),
                {
                    "kind": str(kind), "state": str(CampaignState.RUNNING), "old": old.fingerprint,
                    "new": new.fingerprint, "created": now, "created_by": who.name, "finished": 0,
                    "terms": {"rate": rate},
                },
            ).scalar_one()  # fmt: skip
            named = _take_up(connection, campaign_id, _standing_on(self._prints_under(old), now, self._grace_ns))
            record(
                connection, who.name, "rollover.start", str(campaign_id), address=who.address,
                after={"kind": str(kind), "old": old.fingerprint, "new": new.fingerprint, "devices": named},
            )  # fmt: skip
        if kind is CampaignKind.INTERMEDIATE:
            self._authorities.set_state(new.fingerprint, AuthorityState.ACTIVE, who.name)
            self._authorities.set_state(old.fingerprint, AuthorityState.RETIRING, who.name)
        return self.get(campaign_id)

    def _next_issuing(self, root: Authority, who: Principal) -> Authority:
        waiting = self._authorities.issuing(AuthorityState.NEXT)
        above = self._authorities.root_of(waiting) if waiting is not None else None
        if waiting is not None and above is not None and above.fingerprint == root.fingerprint:
            return waiting
        return self._authorities.make_issuing(AuthorityState.NEXT, who.name)

    def _next_root(self, root: Authority, who: Principal) -> Authority:
        waiting = self._authorities.issuing(AuthorityState.NEXT)
        above = self._authorities.root_of(waiting) if waiting is not None else None
        if above is not None and above.fingerprint != root.fingerprint:
            return above
        return self._authorities.make_root(AuthorityState.NEXT, who.name)[0]

    def change(self, who: Principal, campaign_id: int, state: CampaignState, *, force: bool = False) -> Campaign:
        """Pause, resume, cancel or finish. Raises RejectedError (`not-found`, `campaign-over`, `devices-left`)."""
        who.require_installation()
        before = self.get(campaign_id)
        if before.state not in _OPEN:
            raise RejectedError(f"this rollover is {before.state}", code="campaign-over")
        left = _left(before)
        if state is CampaignState.FINISHED and left and not force:
            raise RejectedError(
                f"{left} devices have not renewed yet: they would be shut out; wait, or force it", code="devices-left"
            )
        self._set_state(campaign_id, before.state, state, who.name, who.address)
        if state is CampaignState.FINISHED:
            self._retire(before, who.name)
        elif state is CampaignState.CANCELLED:
            self._take_back(before, who.name)
        return self.get(campaign_id)

    def _set_state(
        self, campaign_id: int, before: CampaignState, after: CampaignState, who: str, address: str = ""
    ) -> None:
        is_over = after not in _OPEN
        with self._database.write() as connection:
            connection.execute(
                t.campaigns.update()
                .where(t.campaigns.c.campaign_id == campaign_id)
                .values(state=str(after), finished=time_ns() if is_over else 0)
            )
            record(
                connection, who, "rollover.change", str(campaign_id), address=address,
                before={"state": str(before)}, after={"state": str(after)},
            )  # fmt: skip

    def _retire(self, campaign: Campaign, who: str) -> None:
        """Let the new authority stand alone."""
        new, old = self._authorities.get(campaign.new), self._authorities.get(campaign.old)
        for each in {one.fingerprint: one for one in (new, *self._issuers_under(new))}.values():
            if each.state is AuthorityState.NEXT:
                self._authorities.set_state(each.fingerprint, AuthorityState.ACTIVE, who)
        for each in {one.fingerprint: one for one in (*self._issuers_under(old), old)}.values():
            self._authorities.set_state(each.fingerprint, AuthorityState.RETIRED, who)

    def _take_back(self, campaign: Campaign, who: str) -> None:
        """Have the old one issue again. What the new one has issued counts until its end."""
        if campaign.kind is CampaignKind.INTERMEDIATE:
            self._authorities.set_state(campaign.old, AuthorityState.ACTIVE, who)
            self._authorities.set_state(campaign.new, AuthorityState.RETIRING, who)
            return
        for each in self._issuers_under(self._authorities.get(campaign.new)):
            self._authorities.set_state(each.fingerprint, AuthorityState.RETIRING, who)
        self._authorities.set_state(campaign.new, AuthorityState.RETIRING, who)

    def _issuers_under(self, authority: Authority) -> list[Authority]:
        """Return what issues in the name of an authority: itself, or those below a root."""
        if authority.kind is not AuthorityKind.ROOT:
            return [authority]
        found = []
        for each in self._authorities.all():
            root = self._authorities.root_of(each)
            if each.kind is AuthorityKind.ISSUING and root is not None and root.fingerprint == authority.fingerprint:
                found.append(each)
        return found

    def _prints_under(self, authority: Authority) -> list[str]:
        return [each.fingerprint for each in self._issuers_under(authority)]

    # --- looking --------------------------------------------------------------------------------------------------

    def open(self) -> Campaign | None:
        """Return the campaign under way."""
        return next((each for each in self.all(limit=1) if each.state in _OPEN), None)

    def all(self, limit: int = 20) -> list[Campaign]:
        """Return the campaigns, the newest first."""
        statement = sa.select(t.campaigns).order_by(t.campaigns.c.campaign_id.desc()).limit(limit)
        with self._database.read() as connection:
            return [self._campaign(connection, row) for row in connection.execute(statement).all()]

    def get(self, campaign_id: int) -> Campaign:
        """Return a campaign. Raises RejectedError (`not-found`)."""
        with self._database.read() as connection:
            row = connection.execute(
                sa.select(t.campaigns).where(t.campaigns.c.campaign_id == campaign_id)
            ).one_or_none()
            if row is None:
                raise RejectedError(f"no rollover {campaign_id}", code="not-found")
            return self._campaign(connection, row)

    @staticmethod
    def _campaign(connection: sa.Connection, row: Any) -> Campaign:
        c = t.campaign_devices.c
        counted = connection.execute(
            sa.select(c.state, sa.func.count()).where(c.campaign_id == row.campaign_id).group_by(c.state)
        ).all()
        counts = {str(step): 0 for step in Step} | {str(state): int(count) for state, count in counted}
        return Campaign(
            row.campaign_id, CampaignKind(row.kind), CampaignState(row.state), row.old, row.new, row.created,
            row.created_by, row.finished, int(row.terms["rate"]), counts,
        )  # fmt: skip

    def devices(
        self, campaign_id: int, step: Step | None = None, *, after: str = "", limit: int = 100
    ) -> list[tuple[str, Step, str, int]]:
        """Return (device, step, detail, since), by id."""
        c = t.campaign_devices.c
        statement = sa.select(c.device_id, c.state, c.detail, c.changed).where(
            c.campaign_id == campaign_id, c.device_id > after
        )
        if step is not None:
            statement = statement.where(c.state == str(step))
        with self._database.read() as connection:
            found = connection.execute(statement.order_by(c.device_id).limit(limit)).all()
        return [(row.device_id, Step(row.state), row.detail, row.changed) for row in found]

    # --- what goes on by itself -----------------------------------------------------------------------------------

    def tick(self, now: int) -> None:
        """Go on with the campaign under way: see who has come how far, tell who is next. Once a second."""
        campaign = self.open()
        if campaign is None:
            return
        self._see(campaign, now)
        if campaign.state is CampaignState.RUNNING:
            self._tell_next(campaign, now)
            if _left(self.get(campaign.campaign_id)) == 0:
                self._set_state(campaign.campaign_id, campaign.state, CampaignState.FINISHED, "godwit")
                self._retire(campaign, "godwit")

    def _see(self, campaign: Campaign, now: int) -> None:
        """Note who has renewed, who trusts the new root, who is new, and who has nothing left to lose."""
        d, c = t.campaign_devices.c, t.certificates.c
        mine, over = d.campaign_id == campaign.campaign_id, [str(each) for each in _OVER]
        standing = _standing_on(self._prints_under(self._authorities.get(campaign.old)), now, self._grace_ns)
        renewed = sa.select(c.device_id).where(
            c.authority.in_(self._prints_under(self._authorities.get(campaign.new))),
            c.state == str(CertificateState.ACTIVE),
            c.not_after > now,
        )
        steps = t.campaign_devices.update()
        with self._database.write() as connection:
            _take_up(connection, campaign.campaign_id, standing)
            connection.execute(
                steps.where(mine, d.state != str(Step.RENEWED), d.device_id.in_(renewed)).values(
                    state=str(Step.RENEWED), detail="", changed=now
                )
            )
            connection.execute(
                steps.where(mine, d.state.not_in(over), d.device_id.not_in(standing)).values(
                    state=str(Step.GONE), detail="", changed=now
                )
            )
            connection.execute(  # enrolled again under the old one
                steps.where(mine, d.state.in_(over), d.device_id.in_(standing), d.device_id.not_in(renewed)).values(
                    state=str(Step.WAITING), detail="", changed=0
                )
            )
            if campaign.kind is CampaignKind.ROOT:
                self._see_trust(connection, campaign)

    @staticmethod
    def _see_trust(connection: sa.Connection, campaign: Campaign) -> None:
        d = t.campaign_devices.c
        steps = [str(each) for each in (Step.WAITING, Step.TOLD, Step.FAILED)]
        statement = (
            sa.select(d.device_id, devices.c.status)
            .join(devices, devices.c.device_id == d.device_id)
            .where(d.campaign_id == campaign.campaign_id, d.state.in_(steps), devices.c.status.is_not(None))
        )
        trusting = [
            row.device_id
            for row in connection.execute(statement)
            if isinstance(row.status, dict) and campaign.new in (row.status.get("trusts") or ())
        ]
        for at in range(0, len(trusting), _AT_ONCE):
            connection.execute(
                t.campaign_devices.update()
                .where(d.campaign_id == campaign.campaign_id, d.device_id.in_(trusting[at : at + _AT_ONCE]))
                .values(state=str(Step.TRUSTED), detail="", changed=0)  # to be told the next thing now
            )

    def _tell_next(self, campaign: Campaign, now: int) -> None:
        """Tell those who are there and due, as many as the rate allows: first those who were told nothing yet."""
        d = t.campaign_devices.c
        statement = (
            sa.select(d.device_id, d.state, d.detail)
            .join(devices, devices.c.device_id == d.device_id)
            .where(
                d.campaign_id == campaign.campaign_id,
                d.state.not_in([str(each) for each in _OVER]),
                d.changed < now - AGAIN_S * _NS,
                devices.c.online,
            )
            .order_by(d.changed, d.device_id)
            .limit(campaign.rate)
        )
        with self._database.write() as connection:
            due = connection.execute(statement).all()
            for row in due:
                step, detail = _after_telling(Step(row.state), row.detail)
                connection.execute(
                    t.campaign_devices.update()
                    .where(d.campaign_id == campaign.campaign_id, d.device_id == row.device_id)
                    .values(state=str(step), detail=detail, changed=now)
                )
        news = self._notices(campaign)
        for row in due:
            is_trusting = campaign.kind is CampaignKind.INTERMEDIATE or row.state == Step.TRUSTED
            self.tell(row.device_id, news[is_trusting])

    def _notices(self, campaign: Campaign) -> tuple[bytes, bytes]:
        """Return what is told to those who do not trust the new authority yet, and to those who do."""
        issuers = self._issuers_under(self._authorities.get(campaign.new))
        return (
            encode_new_authorities(NewAuthorities(self._authorities.anchors(), campaign.new)),
            encode_renewal_wanted(RenewalWanted("rollover", issuers[-1].fingerprint if issuers else campaign.new)),
        )


def _left(campaign: Campaign) -> int:
    """Return how many devices the end of the old authority would shut out."""
    return sum(count for step, count in campaign.devices.items() if step not in _OVER)


def _standing_on(issuers: Sequence[str], now: int, grace_ns: int) -> "sa.Select[tuple[str]]":
    """Select the devices that a certificate of these issuers lets in, or lets renew it though it has ended."""
    c = t.certificates.c
    is_in_grace = sa.and_(c.state == str(CertificateState.ACTIVE), c.not_after > now - grace_ns)
    return (
        sa.select(c.device_id)
        .join(devices, devices.c.device_id == c.device_id)
        .where(
            c.authority.in_(issuers),
            c.state.in_([str(each) for each in _COUNTING]),
            sa.or_(c.not_after > now, is_in_grace),
            devices.c.lifecycle != str(Lifecycle.RETIRED),
        )
        .distinct()
    )


def _take_up(connection: sa.Connection, campaign_id: int, standing: "sa.Select[tuple[str]]") -> int:
    """Have those who are not in the campaign yet wait in it; returns how many."""
    c, d = t.certificates.c, t.campaign_devices.c
    known = sa.select(d.device_id).where(d.campaign_id == campaign_id)
    named = connection.execute(standing.where(c.device_id.not_in(known))).scalars().all()
    rows = [
        {"campaign_id": campaign_id, "device_id": each, "state": str(Step.WAITING), "detail": "", "changed": 0}
        for each in named
    ]
    if rows:
        connection.execute(t.campaign_devices.insert(), rows)
    return len(rows)


def _after_telling(step: Step, detail: str) -> tuple[Step, str]:
    """Return where a device is once it was told (again): what was told in vain too often counts as failed."""
    times = int(detail.split()[1]) + 1 if detail.startswith("told ") else 1
    said = f"told {times} time{'s' if times > 1 else ''}"
    if step is Step.TRUSTED:
        return step, said
    return (Step.FAILED if times > PATIENCE else Step.TOLD), said
