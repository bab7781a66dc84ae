"""What a device's page does about whose it is and how it gets in: replace, enroll anew, suspend, revoke, give away."""

from collections.abc import Awaitable, Callable
from time import time_ns

from godwit.contract.errors import RejectedError
from godwit.contract.ids import DeviceId, TenantId
from godwit.server.accounts.principal import Principal
from godwit.server.console import custody_parts, enrollment_parts, parts
from godwit.server.console.custody_parts import Custody
from godwit.server.console.forms import form_of, number
from godwit.server.console.frame import Frame, in_thread
from godwit.server.console.labels import Label
from godwit.server.identity.claims import LIFETIME_DEFAULT_S
from godwit.server.identity.labels import link_of
from godwit.server.platform import Platform

CERTIFICATES_MAX = 20


class CustodyActs:
    """The card of one device's page, and its dialogues."""

    def __init__(self, frame: Frame, device_id: DeviceId, refresh: Callable[[], Awaitable[None]]) -> None:
        self._frame, self._platform, self._device_id = frame, frame.platform, device_id
        self._refresh = refresh

    def listen(self) -> None:
        """Let the page's buttons and forms do what they say."""
        for act, do in (
            ("custody", self._open), ("replace", self._replace), ("revoke-all", self._revoke),
            ("release", self._release), ("suspend", self._suspend), ("revoke-claim", self._withdraw),
        ):  # fmt: skip
            self._frame.on(act, do, "operator")
        self._frame.on("transfer", self._transfer, "admin")

    def draw(self) -> str:
        """Return the card. Blocks."""
        known = look(self._platform, self._frame.who, self._device_id)
        tenant = str(known.device.tenant)
        who = self._frame.who
        return custody_parts.card(
            known,
            may_change=who.is_at_least("operator", tenant),
            may_transfer=who.is_at_least("admin", tenant),
        )

    async def _done(self, said: str) -> None:
        self._frame.screen.close_sheet(said)
        await self._refresh()

    async def _open(self, arg: str) -> None:
        who = self._frame.acting("operator")
        if arg == "claim":
            await in_thread(self._platform.identity.custody.claim, who, self._device_id)
            await self._done(f"{self._device_id} is yours")
            return
        if arg == "resume":
            await in_thread(self._platform.registry.change_device, who, self._device_id, {"lifecycle": "active"})
            await self._done(f"{self._device_id} may come in again")
            return
        known = await in_thread(look, self._platform, who, self._device_id)
        tenants: list[str] = []
        if arg == "transfer":
            found = await in_thread(self._platform.registry.tenants, self._frame.acting_anywhere("admin"))
            tenants = [str(each) for each in found]
        title, body = custody_parts.dialogue(known, arg, tenants)
        if title:
            self._frame.screen.open_sheet(parts.sheet(title, body))

    async def _replace(self, arg: str) -> None:
        said = form_of(arg)
        claim, token = await in_thread(
            self._platform.identity.custody.replace, self._frame.acting("operator"), self._device_id,
            revoke_now=said.get("when") == "now",
            lifetime_s=number(said, "lifetime", LIFETIME_DEFAULT_S),
        )  # fmt: skip
        link = await in_thread(link_of, self._platform.settings, self._platform.identity, claim, token)
        self._frame.screen.open_sheet(enrollment_parts.shown_once(Label(claim, link)))
        await self._refresh()

    async def _withdraw(self, arg: str) -> None:
        await in_thread(self._platform.identity.enrollment.claims.revoke, self._frame.acting("operator"), arg[:32])
        await self._done("The claim opens nothing any more")

    async def _suspend(self, _arg: str) -> None:
        who, change = self._frame.acting("operator"), self._platform.registry.change_device
        await in_thread(change, who, self._device_id, {"lifecycle": "suspended"})
        await self._done(f"{self._device_id} is suspended")

    async def _revoke(self, arg: str) -> None:
        self._require_typed(form_of(arg))
        await in_thread(self._platform.identity.custody.shut_out, self._frame.acting("operator"), self._device_id)
        await self._done(f"All credentials of {self._device_id} have ended")

    async def _release(self, arg: str) -> None:
        self._require_typed(form_of(arg))
        await in_thread(self._platform.identity.custody.release, self._frame.acting("operator"), self._device_id)
        await self._done(f"{self._device_id} is unclaimed")

    async def _transfer(self, arg: str) -> None:
        said, who = form_of(arg), self._frame.acting_anywhere("admin")
        self._require_typed(said)
        to = TenantId(said.get("tenant", ""))
        await in_thread(self._platform.identity.custody.transfer, who, self._device_id, to)
        if said.get("telemetry") == "erase":
            await self._platform.ingest.erase(self._device_id)
            moved = await in_thread(self._platform.registry.device, who, self._device_id)
            await in_thread(self._platform.registry.change_device, who, self._device_id, {"name": moved.name})
        await self._done(f"{self._device_id} is {to}'s: it enrolls there with a new claim")

    def _require_typed(self, said: dict[str, str]) -> None:
        if said.get("typed", "").strip() != self._device_id:
            raise RejectedError(f"nothing was done: type {self._device_id} to confirm", code="not-confirmed")


def look(platform: Platform, who: Principal, device_id: DeviceId) -> Custody:
    """Return what is known of a device's credentials. Blocks. Raises RejectedError (`not-found`)."""
    identity = platform.identity
    device = platform.registry.device(who, device_id)
    found = identity.issuance.of_device(device_id)
    return Custody(
        device=device,
        presence=platform.registry.presence(who, device_id),
        certificates=sorted(
            (each for each in found if each.tenant == device.tenant), key=lambda each: each.created, reverse=True
        ),
        claims=identity.enrollment.claims.of_device(who, device_id),
        tokens=sum(not each.revoked for each in identity.device_tokens.of_device(who, device_id)),
        keys=sum(not each.retired for each in identity.device_keys.of_device(who, device_id)),
        now=time_ns(),
    )
