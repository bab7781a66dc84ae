"""`/access`: who may use the platform: users and tokens. For administrators; those of a tenant see its people."""

import secrets

from nicegui import ui
from starlette.requests import Request

from godwit.contract.errors import RejectedError
from godwit.server.accounts.model import User
from godwit.server.accounts.principal import ROLES, Principal
from godwit.server.console import parts
from godwit.server.console.forms import form_of
from godwit.server.console.frame import Frame, in_thread, markup
from godwit.server.console.token_parts import (
    grants,
    grants_from,
    make_token,
    role_fields,
    shown_once,
    token_form,
    tokens_table,
)
from godwit.server.platform import Platform

TICK_S = 3.0
TABS = (
    ("/access", "users", "Users"), ("/access?table=tokens", "tokens", "Tokens"), ("/tenants", "tenants", "Tenants"),
    ("/audit", "audit", "Audit log"),
)  # fmt: skip


def register(platform: Platform) -> None:
    """Put the page up."""

    @ui.page("/access", title="Access · godwit")
    async def page(request: Request) -> None:
        frame = Frame(platform, request, "access", "Access")
        if frame.may("admin"):
            await _Page(frame).show()
        else:
            not_for_you(frame)


def not_for_you(frame: Frame) -> None:
    """Say that a page is for administrators."""
    with frame.main():
        nothing = parts.empty("Not for you", "Who may what is for administrators to see.", name="access")
        markup(parts.card("", nothing))


def head(tab: str, aside: str, frame: Frame) -> str:
    """Return the head of the pages about access, with the way between them."""
    is_whole = frame.who.limited_to("admin").tenants is None
    links = "".join(
        f'<a href="{href}" aria-current="{"page" if name == tab else "false"}">{words}</a>'
        for href, name, words in TABS
        if name != "tenants" or is_whole
    )
    return (
        '<div class="head"><div><h1>Access</h1><div class="sub">Who may use the platform, and what they did.</div>'
        f'</div><div class="bar">{aside}</div></div><nav class="seg" aria-label="Access">{links}</nav>'
    )


class _Page:
    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._accounts = frame.platform.accounts
        self._table = "tokens" if frame.query.get("table") == "tokens" else "users"

    def _load(self) -> str:
        who = self._frame.who
        if self._table == "tokens":
            return tokens_table(self._accounts.tokens.tokens(who, all_owners=True), with_owner=True)
        return render_users(self._accounts.users.users(who), who)

    async def show(self) -> None:
        """Build the page."""
        frame, screen = self._frame, self._frame.screen
        rows = await in_thread(self._load)
        add = parts.button("Add a user" if self._table == "users" else "Make a token", "new", classes="primary")
        with frame.main():
            markup(f'{head(self._table, add, frame)}<section class="card">{screen.sent("rows", rows)}</section>')
        for act, do in (
            ("new", self._new), ("add-user", self._add_user), ("edit", self._edit), ("change-user", self._change_user),
            ("new-password", self._new_password), ("disable", self._disable), ("enable", self._enable),
            ("remove", self._remove), ("make-token", self._make_token), ("revoke", self._revoke),
        ):  # fmt: skip
            frame.on(act, do, "admin")
        frame.tick(TICK_S, self._refresh)
        screen.flush()

    async def _refresh(self) -> None:
        self._frame.screen.put("rows", await in_thread(self._load))

    async def _done(self, told: str) -> None:
        self._frame.screen.close_sheet(told)
        await self._refresh()

    async def _new(self, _argument: str) -> None:
        who = self._frame.who
        self._frame.screen.open_sheet(
            parts.sheet("Make a token", token_form(who)) if self._table == "tokens" else user_form(who)
        )

    async def _add_user(self, argument: str) -> None:
        fields, who = form_of(argument), self._frame.who
        password = None if fields.get("how") == "oidc" else new_password()
        user = await in_thread(
            self._accounts.users.create, who, fields.get("name", ""), grants_from(fields), password=password,
            display=fields.get("display", "")[:128], email=fields.get("email", "")[:256],
        )  # fmt: skip
        if password is None:
            await self._done(f"{user.name} is added")
            return
        await self._refresh()
        self._frame.screen.open_sheet(shown_once(f"{user.name} is added", password, _GIVE_IT))

    async def _edit(self, argument: str) -> None:
        user = await in_thread(self._accounts.users.user, self._frame.who, argument)
        self._frame.screen.open_sheet(change_form(user, self._frame.who))

    async def _change_user(self, argument: str) -> None:
        fields = form_of(argument)
        changes = {
            "display": fields.get("display", "")[:128], "email": fields.get("email", "")[:256],
            "grants": grants_from_lines(fields.get("grants", "")),
        }  # fmt: skip
        user = await in_thread(self._accounts.users.change, self._frame.who, fields.get("user", ""), changes)
        await self._done(f"{user.name} is changed")

    async def _new_password(self, argument: str) -> None:
        password = new_password()
        await in_thread(self._accounts.users.set_password, self._frame.who, argument, password)
        await self._refresh()
        self._frame.screen.open_sheet(shown_once(f"A new password for {argument}", password, _GIVE_IT))

    async def _disable(self, argument: str) -> None:
        await in_thread(self._accounts.users.change, self._frame.who, argument, {"is_disabled": True})
        await self._done(f"{argument} is disabled, and signed out everywhere")

    async def _enable(self, argument: str) -> None:
        await in_thread(self._accounts.users.change, self._frame.who, argument, {"is_disabled": False})
        await self._done(f"{argument} may sign in again")

    async def _remove(self, argument: str) -> None:
        await in_thread(self._accounts.users.remove, self._frame.who, argument)
        await self._done(f"{argument} is removed")

    async def _make_token(self, argument: str) -> None:
        made = await in_thread(make_token, self._accounts, self._frame.who, argument)
        await self._refresh()
        self._frame.screen.open_sheet(shown_once(made.token.name, made.secret, "Copy it now: it is shown this once."))

    async def _revoke(self, argument: str) -> None:
        await in_thread(self._accounts.tokens.revoke, self._frame.who, argument)
        await self._done("Revoked")


_GIVE_IT = "Give it to them on a way that you trust. It is shown this once, and has to be changed at the first sign-in."


def new_password() -> str:
    """Return a password for somebody else."""
    return secrets.token_urlsafe(15)


def grants_from_lines(text: str) -> dict[str, str]:
    """Return the grants of a text such as `*: viewer, acme: admin`. Raises RejectedError (`invalid-grants`)."""
    found: dict[str, str] = {}
    for each in filter(None, (part.strip() for part in text.split(","))):
        tenant, colon, role = each.rpartition(":")
        if not colon or role.strip() not in ROLES:
            raise RejectedError("Rights are such as  *: viewer, acme: admin", code="invalid-grants")
        found[tenant.strip()] = role.strip()
    return found


def user_form(who: Principal) -> str:
    """Return the dialogue that adds a user."""
    fields = (
        parts.field("Name", "name", hint="What they sign in with")
        + parts.field("Full name", "display", needed=False)
        + role_fields(who)
        + parts.field("E-mail", "email", kind="email", needed=False)
    )
    if who.limited_to("admin").tenants is None:  # the people of the provider are the installation's
        ways = (("password", "with a password"), ("oidc", "elsewhere (OIDC)"))
        fields += parts.choice("Signs in", "how", ways, "password")
    return parts.sheet("Add a user", parts.form("add-user", fields, "Add"))


def change_form(user: User, who: Principal) -> str:
    """Return the dialogue that changes a user."""
    rights = ", ".join(f"{tenant}: {role}" for tenant, role in sorted(user.grants.items()))
    fields = (
        f'<input type="hidden" name="user" value="{parts.text(user.name)}">'
        + parts.field("Full name", "display", user.display, needed=False)
        + parts.field("E-mail", "email", user.email, kind="email", needed=False)
        + '<div class="all">'
        + parts.field("Rights", "grants", rights, hint="Tenant: role, with commas between; * for all tenants")
        + "</div>"
    )
    if user.name == who.account:
        return parts.sheet(user.name, parts.form("change-user", fields, "Change"))
    sure = f"Disable {user.name}? All sessions end at once, and tokens open nothing."
    switch = (
        parts.button("Enable", "enable", user.name)
        if user.is_disabled
        else parts.button("Disable", "disable", user.name, classes="danger", sure=sure)
    )
    sure = f"Remove {user.name}, with all tokens? What they did stays in the audit log."
    password = f"Give {user.name} a new password? All sessions end."
    more = (
        f'<div class="bar">{parts.button("New password", "new-password", user.name, sure=password)}{switch}'
        f"{parts.button('Remove', 'remove', user.name, classes='danger', sure=sure)}</div>"
    )
    return parts.sheet(user.name, parts.form("change-user", fields, "Change") + more)


def render_users(users: list[User], who: Principal) -> str:
    """Return users as a table."""
    if not users:
        return parts.empty(
            "Only the admin token opens the platform",
            "Add a user for everybody who works here: what they do then stands in the audit log under their name.",
            name="access",
        )
    body = "".join(_user_row(each, is_own=each.name == who.account) for each in users)
    return (
        '<div class="scroll"><table class="list cards tight"><thead><tr><th>User</th><th>May</th><th>Signs in</th>'
        f'<th class="right">Last sign-in</th><th></th></tr></thead><tbody>{body}</tbody></table></div>'
    )


def _user_row(user: User, *, is_own: bool) -> str:
    state = parts.badge("disabled", "bad") if user.is_disabled else ""
    if user.must_change and not user.is_disabled:
        state = parts.badge("password not changed yet", "warn")
    how = "password" if user.has_password else "elsewhere" if user.issuer else "no password yet"
    told = " · ".join(filter(None, (user.display, user.email)))
    return (
        f'<tr><td><span class="who"><span><b>{parts.text(user.name)}{" (you)" if is_own else ""}</b>'
        f"<small>{parts.text(told)}</small></span></span></td>"
        f'<td class="wide">{grants(user.grants)}</td><td class="hide">{how} {state}</td>'
        f'<td class="right faint num start">{parts.age(user.last_sign_in)}</td>'
        f'<td class="right">{parts.button("Change", "edit", user.name)}</td></tr>'
    )
