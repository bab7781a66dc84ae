"""What the page of tenants is drawn with: a card for each, with a bar for every limit, and the forms. Pure."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from godwit.contract.errors import RejectedError
from godwit.contract.ids import DEFAULT_TENANT
from godwit.server.console import parts, words
from godwit.server.platform import TenantUse
from godwit.server.registry.model import Tenant, TenantQuota
from godwit.server.settings import Settings

NEARLY: Final = 0.9
"""From this share of a limit on, a tenant is said to be near it."""
AMOUNT_MAX: Final = 2**53
_UNITS: Final = {"": 1, "k": 1_000, "m": 1_000_000, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


class Limited(NamedTuple):
    """One of the things that a quota limits."""

    field: str
    words: str
    show: Callable[[float], str]
    hint: str
    used: Callable[[TenantUse], float] | None = None
    """None: it is not known at a glance."""
    general: Callable[[Settings], int] = lambda _settings: 0
    """What holds for a tenant without a limit of its own; 0: nothing."""


LIMITS: Final = (
    Limited("devices", "Devices", words.count, "Registered, claimed or not", lambda use: use.devices),
    Limited(
        "connections", "Connections", words.count, "MQTT, at the same time", lambda use: use.connections,
        lambda settings: settings.tenant_connections_max,
    ),
    Limited(
        "messages_per_s", "Messages/s", words.rate, "MQTT, of all its clients together",
        lambda use: use.messages_per_s, lambda settings: settings.tenant_messages_per_s,
    ),
    Limited(
        "retained_bytes", "Retained", words.size, "Bytes of retained documents, such as 64Mi",
        lambda use: use.retained_bytes, lambda settings: settings.tenant_retained_bytes_max,
    ),
    Limited(
        "quarantine_bytes", "Quarantine", words.size, "Bytes of what was refused, such as 64Mi",
        lambda use: use.quarantine_bytes, lambda settings: settings.quarantine_bytes_max // 2,
    ),
    Limited(
        "bytes_per_s", "Bytes/s", words.size, "MQTT, of all its clients together, such as 512Ki",
        None, lambda settings: settings.tenant_bytes_per_s,
    ),
    Limited("requests_per_s", "Requests/s", words.count, "Of the API, by its people and programs"),
)  # fmt: skip
"""Those whose use is seen, then the others."""


def share(limited: Limited, tenant: Tenant, use: TenantUse, settings: Settings) -> float:
    """Return how much of a limit is used; 0 where there is none, or nobody knows."""
    limit = getattr(tenant.quota, limited.field) or limited.general(settings)
    return limited.used(use) / limit if limited.used is not None and limit else 0.0


def fullest(tenant: Tenant, use: TenantUse, settings: Settings) -> float:
    """Return the share of the limit that is used most."""
    return max(share(each, tenant, use, settings) for each in LIMITS)


def render(tenants: Sequence[Tenant], uses: Mapping[str, TenantUse], settings: Settings, search: str) -> str:
    """Return a card for each tenant whose name has `search` in it; those near a limit first."""
    shown = [each for each in tenants if search.lower() in each.name.lower()]
    if not shown:
        return parts.card("", parts.empty("No tenant is called that", "Loosen the search above.", name="search"))
    shown.sort(key=lambda each: (fullest(each, uses[each.name], settings) < NEARLY, each.name))
    return f'<div class="tenants">{"".join(_card(each, uses[each.name], settings) for each in shown)}</div>'


def _card(tenant: Tenant, use: TenantUse, settings: Settings) -> str:
    most = fullest(tenant, use, settings)
    state = parts.badge("at a limit", "bad") if most >= 1 else parts.badge("near a limit", "warn")
    badge = state if most >= NEARLY else "" if tenant.quota != TenantQuota() else parts.badge("no limits of its own")
    name = parts.text(tenant.name)
    rows = "".join(_row(each, tenant, use, settings) for each in LIMITS)
    buttons = _removal(tenant, use) + parts.button("Limits", "edit", tenant.name)
    return (
        f'<section class="card tenant" aria-label="Tenant {name}"><header><h2>{name}</h2>'
        f'{badge}</header><div class="body"><dl class="limits">{rows}</dl></div><footer class="foot">'
        f"<span>since {parts.age(tenant.created, 'long ago')}</span>"
        f'<span class="bar">{buttons}</span></footer></section>'
    )


def _row(limited: Limited, tenant: Tenant, use: TenantUse, settings: Settings) -> str:
    own = getattr(tenant.quota, limited.field)
    limit = own or limited.general(settings)
    now = limited.show(limited.used(use)) if limited.used is not None else ""
    if limit:
        shown = limited.show(limit) if limited.show is words.size else words.count(limit)
        of = f"{'of ' if now else 'at most '}{shown}"
        told = f'{now} <span class="faint"{"" if own else " title=" + chr(34) + _FROM_SETTINGS + chr(34)}>{of}</span>'
    elif now:
        told = now
    else:
        return ""
    bar = parts.meter(share(limited, tenant, use, settings)) if limit and now else ""
    return f"<div><dt>{limited.words}</dt><dd>{told}</dd>{bar}</div>"


_FROM_SETTINGS: Final = "what the settings say for every tenant"


def _removal(tenant: Tenant, use: TenantUse) -> str:
    if tenant.name == DEFAULT_TENANT or use.devices:
        return ""
    sure = f"Remove the tenant {tenant.name}? Its name is free then, and its limits are gone."
    return parts.button("Remove", "remove", tenant.name, classes="ghost danger", sure=sure)


def add_form() -> str:
    """Return the dialogue that adds a tenant."""
    fields = parts.field("Name", "name", hint="Letters, digits, spaces or . _ : - and not to be changed later")
    note = (
        '<p class="soft">A tenant owns devices and all that came of them, and nobody of another sees any of it. '
        'Then give somebody a role in it, under <a class="link" href="/access">Access</a>.</p>'
    )
    return parts.sheet("Add a tenant", note + parts.form("add-tenant", fields, "Add"))


def quota_form(tenant: Tenant, settings: Settings) -> str:
    """Return the dialogue that changes what a tenant may use."""
    fields = f'<input type="hidden" name="tenant" value="{parts.text(tenant.name)}">'
    for each in LIMITS:
        own, general = getattr(tenant.quota, each.field), each.general(settings)
        rest = f"; empty: {each.show(general)}, as all" if general else "; empty: no limit"
        said = short(own) if each.show is words.size else str(own)
        fields += parts.field(each.words, each.field, said if own else "", hint=f"{each.hint}{rest}", needed=False)
    return parts.sheet(f"Limits of {tenant.name}", parts.form("limit", fields, "Change"))


def quota_from(fields: Mapping[str, str]) -> dict[str, int]:
    """Return the limits that a form says. Raises RejectedError (`invalid-field`)."""
    return {each.field: amount(fields[each.field], each.words) for each in LIMITS if each.field in fields}


def short(number: int) -> str:
    """Return bytes as `amount` reads them, without losing any: 64Mi."""
    for unit in ("Ti", "Gi", "Mi", "Ki"):
        if number and number % _UNITS[unit.lower()] == 0:
            return f"{number // _UNITS[unit.lower()]}{unit}"
    return str(number)


def amount(text: str, what: str) -> int:
    """Return a number such as 500, 5k or 64Mi; 0 for nothing. Raises RejectedError (`invalid-field`)."""
    plain = text.strip().lower().replace(",", "").removesuffix("b")
    digits = plain.rstrip("kmgti")
    if not plain:
        return 0
    if not digits.isdecimal() or not digits.isascii() or plain[len(digits) :] not in _UNITS or len(digits) > 16:
        raise RejectedError(f"{what}: a whole number such as 500, 5k or 64Mi", code="invalid-field")
    found = int(digits) * _UNITS[plain[len(digits) :]]
    if found > AMOUNT_MAX:
        raise RejectedError(f"{what}: that is more than there can be", code="invalid-field")
    return found
