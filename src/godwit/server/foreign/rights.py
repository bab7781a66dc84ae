"""Rights for a broker that is not ours: EMQX asks them over HTTP, Mosquitto reads them from files.

That broker does TLS and connections; who somebody is, and what he may, is answered here from the same roster. It looks
at filters only, and not at each delivery: an application of some tenants names their devices in its filters.
"""

import re
from base64 import b64decode
from typing import Final, Literal

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from godwit.contract.errors import MalformedError
from godwit.contract.ids import DeviceId, TenantId
from godwit.contract.topics import COMMAND_ALIASES, RULES, Channel, Topics
from godwit.mqtt.packets import Connect
from godwit.server.broker.authentication import Desk, FleetAuthenticator, PasswordAuthenticator
from godwit.server.broker.refusals import Denial
from godwit.server.broker.rights import (
    ApplicationRights,
    ApplicationTerms,
    DeviceRights,
    EnrollmentRights,
    Grant,
    Rights,
)
from godwit.server.broker.routes import bare_filter
from godwit.server.broker.switches import Switches
from godwit.server.identity.model import Credential, Door
from godwit.server.identity.room import Identity

NS: Final = 1_000_000_000
UNKNOWN_PLACEHOLDER: Final = "${"
"""How EMQX says what its version does not know: as it stands in the template."""
_PEM: Final = b"-----BEGIN"
_DOORS: Final = (Door.CERTIFICATE, Door.TOKEN, Door.JWT, Door.LOCAL)
_FINGERPRINT: Final = re.compile("[0-9a-f]{64}")


class Asked(msgspec.Struct, frozen=True):
    """Who a foreign broker asks about, as its templates say it."""

    client_id: str
    username: str = ""
    password: str = ""
    certificate: str = ""
    """PEM, or DER or PEM in base64 as EMQX has it, where the broker hands it on: its state and dates are looked at."""
    common_name: str = ""
    """Of a certificate that the broker has verified, against our CRL."""
    address: str = ""


class Answer(msgspec.Struct, frozen=True):
    """Who it is: `identity` is said again when rights are asked; `code`: why not. `ends` in s since 1970, 0: never."""

    identity: str = ""
    code: str = ""
    ends: int = 0
    is_superuser: bool = False


class ForeignRights:
    """See the module. Blocks."""

    def __init__(self, identity: Identity, topics: Topics, desk: Desk, switches: Switches) -> None:
        switches = msgspec.structs.replace(switches, grace_days=0)  # nobody renews by way of a broker of others
        self._identity, self._topics, self._switches = identity, topics, switches
        self._fleet = FleetAuthenticator(
            identity.roster, lambda _client, _device: False, PasswordAuthenticator(), switches, desk,
            seen=identity.revocation.seen, find_token=identity.device_tokens.find,
        )  # fmt: skip

    def authenticate(self, asked: Asked) -> Answer:
        """Return who a client is."""
        connect = Connect(asked.client_id, username=asked.username or None, password=asked.password.encode() or None)
        if asked.certificate and not asked.certificate.startswith(UNKNOWN_PLACEHOLDER):
            try:
                der = _der_of(asked.certificate)
            except ValueError:
                return Answer(code="certificate-malformed")
            decision = self._fleet.authenticate("foreign", connect, der, asked.address)
        elif asked.common_name and self._switches.certificates:
            decision = self._fleet.judge_name(connect, asked.common_name)
        else:
            decision = self._fleet.authenticate("foreign", connect, None, asked.address)
        if not isinstance(decision, Grant | Denial):
            decision = decision()
        if isinstance(decision, Denial):
            return Answer(code=decision.code)
        ends = decision.credential.ends // NS if decision.credential is not None else 0
        return Answer(_said(decision), ends=ends)

    def may(self, client_id: str, identity: str, action: Literal["publish", "subscribe"], topic: str) -> bool:
        """Whether somebody whose `identity` was answered before may do something."""
        rights = self._rights(client_id, identity)
        if rights is None:
            return False
        if action == "publish":
            try:
                return not topic.startswith("$") and not rights.refusal(topic, self._topics.parse(topic))
            except MalformedError:
                return False
        bare = bare_filter(topic)
        if bare in COMMAND_ALIASES or not rights.may_subscribe(bare):  # there it would be everybody's commands
            return False
        return not isinstance(rights, ApplicationRights) or rights.hears_all or self._names_one(bare, rights)

    def _names_one(self, topic_filter: str, rights: Rights) -> bool:
        levels = topic_filter.split("/")
        at = 1 if levels[0] in ("devices", "device") else 3
        return len(levels) > at and levels[at] not in ("+", "#") and rights.sees(levels[at])

    def _rights(self, client_id: str, identity: str) -> Rights | None:
        kind, _, rest = identity.partition(":")
        roster = self._identity.roster
        if kind == "device":
            credential = _read_credential(rest)
            if credential is None or self._fleet.judge_absent(credential, client_id) is not None:
                return None
            return DeviceRights(roster, str(credential.device_id), lambda _client, _device: False)
        if kind == "enroll":
            return EnrollmentRights(client_id)
        if kind == "app":
            return ApplicationRights(roster, client_id, _read(rest))
        return None


def _der_of(text: str) -> bytes:
    """Return a certificate as DER. Raises ValueError."""
    data = text.encode()
    if not data.startswith(_PEM):
        data = b64decode(data, validate=True)
    if not data.startswith(_PEM):
        return data
    return x509.load_pem_x509_certificate(data).public_bytes(serialization.Encoding.DER)


def _read_credential(said: str) -> Credential | None:
    """Return by what a device was let in; None: we did not say that."""
    parts = said.split(";")
    if len(parts) != 4:
        return None
    device_id, door, name, tenant = parts
    if door not in _DOORS or (door == Door.CERTIFICATE and _FINGERPRINT.fullmatch(name) is None):
        return None
    return Credential(Door(door), name, TenantId(tenant), DeviceId(device_id))


def _said(grant: Grant) -> str:
    """Return what the broker is to say again: short, and without braces, since it stands in its templates."""
    identity = grant.identity or ""
    if identity.startswith("app:"):
        terms = msgspec.json.decode(grant.terms, type=ApplicationTerms)
        return f"app:{_written(terms.hears)};{_written(terms.speaks)}"
    credential = grant.credential
    if credential is None or credential.device_id is None:
        return "enroll:"
    # Where the broker says no more than a name, that is all there is to judge again.
    door, name = (Door.LOCAL, "") if credential.name == credential.device_id else (credential.door, credential.name)
    return f"device:{credential.device_id};{door};{name};{credential.tenant}"


def _written(tenants: tuple[str, ...] | None) -> str:
    return "*" if tenants is None else ",".join(tenants)


def _read(text: str) -> ApplicationTerms:
    hears, _, speaks = text.partition(";")
    return ApplicationTerms(*(None if each == "*" else tuple(each.split(",")) for each in (hears, speaks)))


def acl_file(topics: Topics) -> str:
    """Return Mosquitto's ACL: by contract, for clients whose user name is the CN of their certificate."""
    lines = ["# made by godwit; `use_identity_as_username true` makes %u the device's id", ""]
    for channel in sorted(Channel):
        rule = RULES[channel]
        for word, is_so in (("write", rule.is_up), ("read", rule.is_down)):
            if is_so:
                lines += [f"pattern {word} {each.replace('devices/+', 'devices/%u').replace('device/+', 'device/%u')}"
                          for each in topics.filters([channel]) if not each.startswith("+")]  # fmt: skip
                lines += [f"pattern {word} +/+/+/%u/{each.split('/', 4)[4]}"
                          for each in topics.filters([channel]) if each.startswith("+/+/+/+/")]  # fmt: skip
    lines += ["pattern read device/commands/%u", "pattern read responses/%u/#"]
    return "\n".join(lines) + "\n"


CONFIGURATION: Final = """# made by godwit: include it in mosquitto.conf; the server's certificate is yours
listener 8883
cafile {directory}/authorities.pem
crlfile {directory}/revoked.pem
certfile {directory}/server.crt
keyfile {directory}/server.key
require_certificate true
use_identity_as_username true
acl_file {directory}/rights.acl
allow_anonymous false
"""
