"""Dialogues about the authorities of factories and customers: announce one, prove its key, change its terms. Pure."""

import msgspec

from godwit.contract.times import format_time
from godwit.server.console import parts
from godwit.server.identity.model import Authority, AuthorityTerms
from godwit.server.identity.requests import REQUEST_BYTES_MAX
from godwit.server.identity.trusted import Awaited

_KINDS = (
    ("factory", "a factory: devices enroll by its certificates"),
    ("customer", "a customer: an operator registers its certificates"),
)
_UNKNOWN = (("no", "have to enroll"), ("yes", "are taken in just in time"))


def announce_form(tenants: list[str], tenant: str) -> str:
    """Return the dialogue that announces an authority."""
    whose = parts.choice("Tenant", "tenant", [(each, each) for each in tenants], tenant) if len(tenants) > 1 else ""
    fields = (
        _certificate("Certificate of the authority", "the one that signs the devices' certificates itself; PEM")
        + parts.choice("It is of", "kind", _KINDS, "factory")
        + whose
        + parts.field("Name", "name", hint="empty: as its certificate says", needed=False)
        + _terms(AuthorityTerms(), "the tenant")
    )
    return parts.sheet(
        "Trust an authority",
        '<p class="soft">Its certificates will open enrollment for the device that each of them names, in one tenant '
        "and nowhere else. The next step proves that you have its key.</p>" + parts.form("announce", fields, "Go on"),
    )


def proof_form(each: Awaited) -> str:
    """Return the dialogue that asks for the certificate with the code in it."""
    hidden = f'<input type="hidden" name="fingerprint" value="{each.authority.fingerprint}">'
    signing = (
        "openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout proof.key "
        f'-subj "/CN={each.code}" -out proof.csr\n'
        "openssl x509 -req -in proof.csr -CA authority.pem -CAkey authority.key -CAcreateserial -days 1 -out proof.pem"
    )
    until = format_time(each.expires)[:16].replace("T", " ")
    return parts.sheet(
        f"Prove {each.authority.name}",
        '<p class="soft">It is not trusted yet. Have it sign a certificate with this code as its CN, '
        f"until {until} UTC:</p>"
        f"{parts.command(each.code)}"
        '<details class="plain" open><summary>With OpenSSL, where the authority&rsquo;s key is</summary>'
        f"<div>{parts.command(signing)}</div></details>"
        + parts.form("prove", hidden + _certificate("The certificate with the code", "proof.pem"), "Prove it"),
    )


def terms_form(each: Authority, mark: str) -> str:
    """Return the dialogue that changes what an authority of a factory or customer may do."""
    hidden = {"fingerprint": each.fingerprint, "mark": mark, "type": each.terms.landing.device_type or ""}
    fields = (
        "".join(f'<input type="hidden" name="{name}" value="{parts.text(value)}">' for name, value in hidden.items())
        + parts.field("Name", "name", each.name)
        + _terms(each.terms, str(each.tenant))
    )
    return parts.sheet(
        f"Terms of {each.name}",
        '<p class="soft">New terms count for what is enrolled from now on. Devices that came in by wider ones may '
        'still connect; the <a class="link" href="/security">Security page</a> names them.</p>'
        + parts.form("change-terms", fields, "Keep the terms"),
    )


def _certificate(label: str, hint: str) -> str:
    """Return a field for a certificate, to paste or to take from a file."""
    return (
        f'<div class="all pem"><label>{parts.text(label)}<textarea class="field mono" name="certificate" rows="5" '
        f'aria-label="{parts.text(label)}" '
        f'required maxlength="{REQUEST_BYTES_MAX}" spellcheck="false" autocomplete="off" '
        f'placeholder="-----BEGIN CERTIFICATE-----"></textarea><small>{parts.text(hint)}</small></label>'
        '<input class="field" type="file" data-into="certificate" accept=".pem,.crt,.cer,.der" '
        f'aria-label="{parts.text(label)}, from a file"></div>'
    )


def _terms(terms: AuthorityTerms, tenant: str) -> str:
    landing = terms.landing
    tags = ", ".join(f"{key}:{value}" for key, value in landing.tags.items())
    configuration = msgspec.json.encode(landing.configuration).decode() if landing.configuration else ""
    return (
        parts.choice("Unknown devices", "jit", _UNKNOWN, "yes" if terms.just_in_time else "no")
        + '<label class="all">Ids it may name<input class="field mono" name="ids" autocomplete="off" '
        'aria-label="Ids it may name" '
        f'spellcheck="false" maxlength="2000" value="{parts.text(", ".join(terms.ids))}">'
        f"<small>patterns such as pump-*, by commas; empty: any device of {parts.text(tenant)}</small></label>"
        + parts.field("Lands in groups", "groups", ", ".join(landing.groups), hint="by commas", needed=False)
        + parts.field("Gets tags", "tags", tags, hint="such as hall:2, row:4", needed=False)
        + '<label class="all">First configuration<input class="field mono" name="configuration" maxlength="2000" '
        'aria-label="First configuration" '
        f'autocomplete="off" spellcheck="false" value="{parts.text(configuration)}">'
        "<small>a JSON object: new devices get it with their certificate</small></label>"
    )
