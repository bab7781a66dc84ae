"""What the Certificates page does about authorities of factories and customers: announce, prove, change the terms."""

from collections.abc import Awaitable, Callable

from godwit.contract.errors import RejectedError
from godwit.contract.ids import TenantId, TypeName
from godwit.server.console import trust_parts
from godwit.server.console.forms import form_of, landing_of_form, listed
from godwit.server.console.frame import Frame, in_thread
from godwit.server.identity.model import AuthorityKind, AuthorityTerms, Landing
from godwit.server.identity.trusted import TermsChange, mark_of
from godwit.server.registry.access import home


class TrustActs:
    """The dialogues, and what they do."""

    def __init__(self, frame: Frame, refresh: Callable[[], Awaitable[None]]) -> None:
        self._frame, self._identity, self._refresh = frame, frame.platform.identity, refresh

    def listen(self) -> None:
        """Let the page's buttons and forms do what they say."""
        for act, do in (
            ("trust", self._on_trust), ("announce", self._on_announce), ("proof", self._on_proof),
            ("prove", self._on_prove), ("terms", self._on_terms), ("change-terms", self._on_change_terms),
        ):  # fmt: skip
            self._frame.on(act, do, "admin")

    async def _done(self, said: str) -> None:
        self._frame.screen.close_sheet(said)
        await self._refresh()

    async def _on_trust(self, _arg: str) -> None:
        who = self._frame.acting("admin")
        tenants = await in_thread(self._frame.platform.registry.tenants, who)
        self._frame.screen.open_sheet(trust_parts.announce_form([str(each) for each in tenants], str(home(who))))

    async def _on_announce(self, arg: str) -> None:
        said = form_of(arg)
        kind = AuthorityKind.CUSTOMER if said.get("kind") == "customer" else AuthorityKind.FACTORY
        terms = AuthorityTerms(listed(said.get("ids", "")), said.get("jit") == "yes", landing_of_form(said))
        awaited = await in_thread(
            self._identity.trusted.begin, self._frame.acting("admin"), said.get("certificate", ""), kind,
            TenantId(said["tenant"]) if said.get("tenant") else None, name=said.get("name", "").strip(), terms=terms,
        )  # fmt: skip
        self._frame.screen.open_sheet(trust_parts.proof_form(awaited))
        await self._refresh()

    async def _on_proof(self, arg: str) -> None:
        waiting = await in_thread(self._identity.trusted.waiting, self._frame.acting("admin"))
        awaited = next((each for each in waiting if each.authority.fingerprint == arg), None)
        if awaited is None:
            await self._refresh()
            raise RejectedError("this authority waits no more: announce it again", code="not-found")
        self._frame.screen.open_sheet(trust_parts.proof_form(awaited))

    async def _on_prove(self, arg: str) -> None:
        said = form_of(arg)
        trusted = await in_thread(
            self._identity.trusted.prove, self._frame.acting("admin"), said.get("fingerprint", "")[:64],
            said.get("certificate", ""),
        )  # fmt: skip
        await self._done(f"{trusted.name} vouches for devices of {trusted.tenant}")

    async def _on_terms(self, arg: str) -> None:
        who, known = self._frame.acting("admin"), await in_thread(self._identity.authorities.get, arg[:64])
        who.require("admin", known.tenant)
        self._frame.screen.open_sheet(trust_parts.terms_form(known, mark_of(known)))

    async def _on_change_terms(self, arg: str) -> None:
        said = form_of(arg)
        lands = landing_of_form(said)
        landing = Landing(
            TypeName(said["type"]) if said.get("type") else None, lands.groups, lands.tags, lands.configuration
        )
        wanted = TermsChange(said.get("name"), listed(said.get("ids", "")), said.get("jit") == "yes", landing)
        changed = await in_thread(
            self._identity.trusted.change, self._frame.acting("admin"), said.get("fingerprint", "")[:64], wanted,
            marks={said.get("mark", "")},
        )  # fmt: skip
        await self._done(f"{changed.name} has new terms")
