"""What a foreign broker is told: who somebody is, and what he may; and Mosquitto's rights by contract."""

from base64 import b64encode

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from godwit.contract.topics import topics_for
from godwit.server.accounts.principal import Principal
from godwit.server.broker.authentication import Desk
from godwit.server.broker.switches import Switches
from godwit.server.foreign.rights import Asked, ForeignRights, acl_file
from godwit.server.identity.model import Source
from godwit.server.identity.room import open_identity
from godwit.server.registry.model import Device
from godwit.server.registry.service import Registry
from godwit.server.storage.database import Database
from godwit.server.storage.engine import open_engine

WHO = Principal("test")


def test_a_device_is_known_by_token_or_name_and_has_its_own_topics(tmp_path):
    database = Database(open_engine("", tmp_path))
    registry = Registry(database)
    identity = open_identity(database, registry, tmp_path)
    registry.create_device(WHO, Device("press-7"))
    _, secret = identity.device_tokens.create(WHO, "press-7")
    desk = Desk(identity.enrollment.credential_of_claim, identity.enrollment.take_in, lambda *_, **__: None)
    rights = ForeignRights(identity, topics_for("native"), desk, Switches())
    for asked in (Asked("press-7", "press-7", secret), Asked("press-7", common_name="press-7")):
        said = rights.authenticate(asked).identity
        assert said.startswith("device:press-7;")
        assert rights.may("press-7", said, "publish", "devices/press-7/telemetry")
    for asked, code in (
        (Asked("press-7", "press-7", "gwd_wrong"), "credentials-wrong"),
        (Asked("other", common_name="press-7"), "client-id-mismatch"),
        (Asked("ghost", common_name="ghost"), "unknown-device"),
        (Asked("press-7", certificate="PEM"), "certificate-malformed"),
        (Asked("press-7"), "credentials-needed"),
    ):
        assert rights.authenticate(asked).code == code
    own = ("press-7", said)
    assert rights.may(*own, "publish", "devices/press-7/telemetry")
    assert rights.may(*own, "subscribe", "devices/press-7/commands")
    for action, topic in (
        ("publish", "devices/press-7/commands"), ("publish", "devices/press-8/telemetry"), ("publish", "$SYS/x"),
        ("subscribe", "#"), ("subscribe", "device/commands/#"), ("publish", "devices/bad id/telemetry"),
    ):  # fmt: skip
        assert not rights.may(*own, action, topic), topic
    assert rights.may("app", "app:default;default", "subscribe", "devices/press-7/telemetry")
    assert not rights.may("app", "app:default;default", "subscribe", "devices/+/telemetry")
    assert not rights.may("app", "app:acme;acme", "subscribe", "devices/press-7/telemetry")
    assert rights.may("app", "app:*;*", "subscribe", "devices/+/telemetry")
    for nonsense in (
        "nonsense",
        "device:press-7",
        "device:press-7;certificate;zz;default",
        "device:press-7;x;y;default",
        "device:press-7;certificate;abc;default",
    ):
        assert not rights.may("press-7", nonsense, "publish", "devices/press-7/telemetry"), nonsense
    registry.change_device(WHO, "press-7", {"lifecycle": "suspended"})
    assert not rights.may(*own, "publish", "devices/press-7/telemetry")


def test_what_emqx_hands_on_of_a_certificate_is_looked_at_at_every_question(tmp_path):
    """EMQX says `${cert_pem}` in base64, and what its version does not know as it stands in the template."""
    database = Database(open_engine("", tmp_path))
    registry = Registry(database)
    identity = open_identity(database, registry, tmp_path)
    registry.create_device(WHO, Device("press-7"))
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "press-7")])
    csr = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    issued = identity.issuance.issue(csr, "press-7", "default", Source.OPERATOR, "test").certificate
    pem = issued.certificate
    der = x509.load_pem_x509_certificate(pem.encode()).public_bytes(serialization.Encoding.DER)
    desk = Desk(identity.enrollment.credential_of_claim, identity.enrollment.take_in, lambda *_, **__: None)
    rights = ForeignRights(identity, topics_for("native"), desk, Switches())
    forms = (pem, b64encode(der).decode(), b64encode(pem.encode()).decode())
    answers = [rights.authenticate(Asked("press-7", certificate=form, common_name="press-7")) for form in forms]
    assert {each.identity for each in answers} == {f"device:press-7;certificate;{issued.fingerprint};default"}
    assert {each.ends for each in answers} == {issued.not_after // 10**9}
    unknown = Asked("press-7", certificate="${cert_pem}", common_name="press-7")
    assert rights.authenticate(unknown).identity == "device:press-7;local;;default"
    told = ("press-7", answers[0].identity, "publish", "devices/press-7/telemetry")
    assert rights.may(*told)
    identity.revocation.revoke(issued.fingerprint, "keyCompromise", "test")
    assert not rights.may(*told)
    assert [rights.authenticate(Asked("press-7", certificate=form)).code for form in forms] == [
        "certificate-revoked"
    ] * 3
    off = ForeignRights(identity, topics_for("native"), desk, Switches(certificates=False))
    assert off.authenticate(unknown).code == "credentials-needed"


def test_mosquittos_patterns_follow_the_contract():
    lines = acl_file(topics_for("placed")).splitlines()
    assert "pattern write devices/%u/telemetry" in lines
    assert "pattern read devices/%u/commands" in lines
    assert "pattern write +/+/+/%u/readings" in lines
    assert "pattern write devices/%u/command-results/+" in lines
    assert not [line for line in lines if line.startswith("pattern") and "%u" not in line]
    assert "pattern write devices/%u/commands" not in lines
