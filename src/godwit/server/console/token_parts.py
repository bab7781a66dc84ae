"""What the pages of accounts share: tokens in a table, the form that makes one, a secret shown this once."""

from collections.abc import Iterable, Mapping
from time import time_ns
from typing import Final

from godwit.contract.errors import RejectedError
from godwit.server.accounts.api_tokens import NewToken
from godwit.server.accounts.model import SCOPES, ApiToken
from godwit.server.accounts.principal import EVERYWHERE, ROLES, Principal
from godwit.server.accounts.room import Accounts
from godwit.server.console import parts
from godwit.server.console.forms import form_of

DAY_NS: Final = 86_400_000_000_000
LIFETIMES: Final = (("30", "30 days"), ("90", "90 days"), ("365", "a year"), ("0", "until revoked"))


def grants_from(fields: Mapping[str, str]) -> dict[str, str]:
    """Return the grants that a form with `role` and `tenants` says."""
    names = [each.strip() for each in fields.get("tenants", "").split(",") if each.strip()]
    return dict.fromkeys(names or [EVERYWHERE], fields.get("role", ""))


def grants(given: Mapping[str, str]) -> str:
    """Return grants as badges."""
    tones = {"admin": "accent", "operator": "good"}
    return " ".join(
        parts.badge(role if tenant == EVERYWHERE else f"{role} in {tenant}", tones.get(role, ""))
        for tenant, role in sorted(given.items())
    )


def role_fields(who: Principal, chosen: str = "viewer", tenants: str = "") -> str:
    """Return the fields that say a role and where it holds."""
    roles = [(role, role) for role in ROLES if who.is_at_least(role)]
    hint = "Names with commas between them; empty: all" if who.tenants is None else "Names with commas between them"
    return parts.choice("Role", "role", roles, chosen) + parts.field(
        "Tenants", "tenants", tenants or ("" if who.tenants is None else ", ".join(who.tenants)), hint=hint,
        needed=who.tenants is not None,
    )  # fmt: skip


def token_form(who: Principal) -> str:
    """Return the form that makes a token."""
    boxes = "".join(
        f'<label><input type="checkbox" name="scope:{scope}"><span class="mono">{scope}</span></label>'
        for scope in sorted(SCOPES)
    )
    fields = (
        parts.field("Name", "name", hint="What it is for, such as grafana")
        + parts.choice("Valid for", "days", LIFETIMES, "90")
        + role_fields(who)
        + '<div class="all"><details class="plain"><summary>Only for some things</summary>'
        f'<p class="faint">None chosen: all that the role may.</p><div class="checks">{boxes}</div></details></div>'
    )
    return parts.form("make-token", fields, "Make token")


def make_token(accounts: Accounts, who: Principal, argument: str) -> NewToken:
    """Make the token that a form asks for. Blocks."""
    fields = form_of(argument)
    scopes = [name.removeprefix("scope:") for name in fields if name.startswith("scope:")]
    days = fields.get("days", "")
    if days not in dict(LIFETIMES):
        raise RejectedError("A token is valid for one of the times in the list.", code="invalid-time")
    expires = time_ns() + int(days) * DAY_NS if days != "0" else 0
    return accounts.tokens.create(
        who, fields.get("name", ""), grants=grants_from(fields), scopes=scopes, expires=expires
    )


def shown_once(title: str, secret: str, why: str) -> str:
    """Return a dialogue's content with a secret in it."""
    return parts.sheet(title, f'<p class="soft">{parts.text(why)}</p>{parts.command(secret)}')


def tokens_table(tokens: Iterable[ApiToken], *, with_owner: bool) -> str:
    """Return tokens as a table."""
    found = list(tokens)
    if not found:
        return parts.empty("No tokens", "A program signs in with one: a script, a dashboard, an MQTT application.")
    owner = "<th>Owner</th>" if with_owner else ""
    body = "".join(_token_row(each, with_owner=with_owner) for each in found)
    return (
        '<div class="scroll"><table class="list cards tight"><thead><tr><th>Token</th>'
        f'{owner}<th>May</th><th>State</th><th class="right">Last used</th><th></th></tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _token_row(token: ApiToken, *, with_owner: bool) -> str:
    owner = f'<td class="hide">{parts.text(token.owner)}</td>' if with_owner else ""
    some = f'<br><small class="faint mono">{parts.text(" ".join(token.scopes))}</small>' if token.scopes else ""
    is_live, state = _state(token)
    sure = f"Revoke {token.name}? What uses it is refused at once."
    button = parts.button("Revoke", "revoke", token.token_id, classes="danger", sure=sure) if is_live else ""
    return (
        f'<tr><td><span class="who"><span><b>{parts.text(token.name)}</b><small>{parts.text(token.token_id)}</small>'
        f'</span></span></td>{owner}<td class="wide">{grants(token.grants)}{some}</td><td>{state}</td>'
        f'<td class="right faint num hide">{parts.age(token.last_used)}</td><td class="right">{button}</td></tr>'
    )


def _state(token: ApiToken) -> tuple[bool, str]:
    now = time_ns()
    if token.revoked:
        return False, parts.badge("revoked", "bad")
    if token.expires and token.expires <= now:
        return False, parts.badge("expired", "bad")
    if not token.expires:
        return True, parts.badge("never ends", "warn")
    days = (token.expires - now) // DAY_NS
    return True, parts.badge(f"{days} d left", "warn" if days < 7 else "good")
