"""Keys of authorities: unreadable at rest, moved offline, replaced by a customer's, under another passphrase."""

import base64
import datetime as dt
import threading

import pytest
import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from godwit.contract.errors import GodwitError, RejectedError
from godwit.server.accounts.principal import Principal
from godwit.server.identity.authorities import issuing_certificate
from godwit.server.identity.profiles import authority_certificate, common
from godwit.server.identity.vault import Vault
from godwit.server.storage import identity_tables as t

ADMIN = Principal("admin")
LONG = "correct horse battery"
NOW = dt.datetime.now(dt.UTC)


def refusal(ask) -> str:
    with pytest.raises(GodwitError) as refused:
        ask()
    return refused.value.code


def pem(thing) -> str:
    if isinstance(thing, x509.Certificate):
        return thing.public_bytes(serialization.Encoding.PEM).decode()
    return thing.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def test_keys_are_unreadable_at_rest(rooms):
    key = rooms.authorities.signer().key
    secret = key.private_numbers().private_value.to_bytes(32, "big")
    rooms.database.engine.dispose()
    at_rest = b"".join(each.read_bytes() for each in rooms.directory.rglob("registry.sqlite*"))
    assert b"godwit issuing" in at_rest
    assert secret not in at_rest
    (rooms.directory / "tls" / "passphrase").write_text("another one\n")
    assert refusal(lambda: (rooms.again(), rooms.authorities.signer())) == "key-passphrase"


def test_a_wrong_or_forgotten_passphrase_is_found_out_at_the_start(rooms):
    own = rooms.directory / "tls" / "passphrase"
    right = own.read_text().strip()
    own.unlink()
    rooms.database.engine.dispose()
    for given in ({}, {"passphrase": "another one entirely"}):
        with pytest.raises(RejectedError) as refused:
            rooms.again(**given)
        rooms.database.engine.dispose()
        assert refused.value.code == "key-passphrase"
        assert not own.exists(), "one that opens nothing is not left lying about"
    rooms.again(passphrase=right)
    assert rooms.enrolled()


def test_the_root_moves_offline_and_signs_from_there(rooms):
    care = rooms.identity.key_care
    assert refusal(lambda: care.export_root(ADMIN, "short")) == "weak-passphrase"
    root, exported = care.export_root(ADMIN, LONG)
    key = serialization.load_pem_private_key(exported[exported.index("-----BEGIN ENC") :].encode(), LONG.encode())
    assert (
        refusal(lambda: care.remove_root_key(ADMIN, rooms.authorities.signer().authority.fingerprint)) == "key-needed"
    )
    care.remove_root_key(ADMIN, root.fingerprint)
    with rooms.database.read() as connection:
        kept = sa.select(t.authorities.c.key).where(t.authorities.c.fingerprint == root.fingerprint)
        assert connection.execute(kept).scalar_one() is None
    assert refusal(lambda: care.export_root(ADMIN, LONG)) == "root-offline"
    rooms.enrolled()  # devices are served all the same
    asked = care.request_issuing(ADMIN)
    request = x509.load_pem_x509_csr(asked.request.encode())
    above = x509.load_pem_x509_certificate(root.certificate.encode())
    made = issuing_certificate(request.subject, request.public_key(), above, key)
    added = care.add_issuing(ADMIN, pem(made), sealed_key=asked.sealed_key)
    assert (added.state, added.issuer, added.has_key) == ("next", root.fingerprint, True)
    assert refusal(lambda: care.add_issuing(ADMIN, pem(made), sealed_key=asked.sealed_key)) == "exists"
    other = care.request_issuing(ADMIN).sealed_key
    assert refusal(lambda: care.add_issuing(ADMIN, pem(made), sealed_key=other)) == "key-mismatch"
    assert refusal(lambda: care.add_issuing(ADMIN, pem(made), sealed_key="AAAA")) == "key-passphrase"


def customers():
    root_key, key = rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1())
    name = common("Acme root")
    root = authority_certificate(name, root_key.public_key(), name, root_key, NOW, dt.timedelta(days=99), depth=1)
    own = authority_certificate(common("Acme"), key.public_key(), name, root_key, NOW, dt.timedelta(days=90), depth=0)
    return root, root_key, own, key


def test_a_customers_authority_instead_of_ours(rooms):
    care = rooms.identity.key_care
    root, _, own, key = customers()
    assert refusal(lambda: care.add_issuing(ADMIN, pem(own), key=pem(key))) == "chain-incomplete"
    added = care.add_issuing(ADMIN, pem(own) + pem(root), key=pem(key))
    assert added.state == "active"  # nobody had a certificate of ours
    assert rooms.authorities.anchors() == [pem(root)]
    made = rooms.enrolled()
    leaf = x509.load_pem_x509_certificate(made.certificate.encode())
    leaf.verify_directly_issued_by(own)
    assert isinstance(leaf.signature_hash_algorithm, hashes.SHA384)
    assert rooms.identity.server.ensure()
    rooms.identity.revocation.revoke(made.fingerprint, "superseded", "t")
    assert len(x509.load_der_x509_crl(rooms.identity.lists.of())) == 1


def test_unfit_authorities(rooms):
    care = rooms.identity.key_care
    root, root_key, own, key = customers()
    device = x509.load_pem_x509_certificate(rooms.enrolled().certificate.encode())
    past = authority_certificate(
        common("Old"),
        key.public_key(),
        root.subject,
        root_key,
        NOW - dt.timedelta(days=9),
        dt.timedelta(days=1),
        depth=0,
    )
    below = authority_certificate(  # which its issuer may not have
        common("Below"), key.public_key(), own.subject, key, NOW, dt.timedelta(days=9), depth=0
    )
    for chain, private, code in (
        (pem(past) + pem(root), key, "authority-unfit"),
        (pem(below) + pem(own) + pem(root), key, "authority-unfit"),
        (pem(device), key, "key-mismatch"),
        (pem(own) + pem(root), root_key, "key-mismatch"),
        ("nonsense", key, "certificate-malformed"),
    ):
        assert refusal(lambda chain=chain, private=private: care.add_issuing(ADMIN, chain, key=pem(private))) == code
    assert refusal(lambda: care.add_issuing(ADMIN, pem(own), key="nonsense")) == "key-malformed"
    sealed = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x" * 12)
    ).decode()
    chain = pem(own) + pem(root)
    assert refusal(lambda: care.add_issuing(ADMIN, chain, key=sealed)) == "key-passphrase"
    assert refusal(lambda: care.add_issuing(ADMIN, chain, key=sealed, passphrase="wrong")) == "key-passphrase"
    assert care.add_issuing(ADMIN, chain, key=sealed, passphrase="x" * 12).state == "next"


def test_another_passphrase(rooms):
    care, own = rooms.identity.key_care, rooms.directory / "tls" / "passphrase"
    assert care.change_passphrase(ADMIN, LONG) is True
    assert own.read_text().strip() == LONG
    rooms.again()
    assert rooms.enrolled("pump-1")
    # Interrupted before anything was sealed anew, and after: either way the next start finds what is in force.
    own.with_suffix(".next").write_text("never came into force\n")
    rooms.again()
    assert rooms.enrolled("pump-2")
    assert not own.with_suffix(".next").exists()
    own.with_suffix(".next").write_text(own.read_text())
    own.write_text("of long ago\n")
    rooms.again()
    assert rooms.enrolled("pump-3")
    assert own.read_text().strip() == LONG
    rooms.again(passphrase=LONG)
    assert rooms.identity.key_care.change_passphrase(ADMIN, LONG + "2") is False  # its owner keeps it
    assert own.read_text().strip() == LONG


def at_rest(rooms) -> bytes:
    return b"".join(each.read_bytes() for each in rooms.directory.rglob("*") if each.is_file())


def sealed_keys(rooms) -> dict[str, bytes]:
    c = t.authorities.c
    with rooms.database.read() as connection:
        return {row.kind: row.key for row in connection.execute(sa.select(c.kind, c.key).where(c.key.is_not(None)))}


def test_what_left_is_in_no_file(rooms):
    care, sealed = rooms.identity.key_care, sealed_keys(rooms)
    assert sealed["root"] in at_rest(rooms)  # while the platform runs: database and write-ahead log
    root, _ = care.export_root(ADMIN, LONG)
    care.remove_root_key(ADMIN, root.fingerprint)
    assert sealed["root"] not in at_rest(rooms)
    assert sealed["issuing"] in at_rest(rooms)
    care.change_passphrase(ADMIN, LONG)
    assert sealed["issuing"] not in at_rest(rooms)  # who learned the old passphrase has nothing to open with it


def test_a_sealed_key_opens_in_its_own_row_only(rooms):
    mine, other = rooms.authorities.make_issuing("next", "t"), rooms.authorities.signer().authority
    c = t.authorities.c
    with rooms.database.write() as connection:  # whoever can write the database gives one authority another's key
        key = connection.execute(sa.select(c.key).where(c.fingerprint == other.fingerprint)).scalar_one()
        same = {"key": key, "subject": other.subject}
        connection.execute(t.authorities.update().where(c.fingerprint == mine.fingerprint).values(same))
    rooms.again()
    moved = rooms.authorities.get(mine.fingerprint)
    assert moved.subject == other.subject
    assert refusal(lambda: rooms.authorities.signer_of(moved)) == "key-passphrase"


def test_nonces_and_keys_are_of_one_process(rooms):
    passphrase = (rooms.directory / "tls" / "passphrase").read_bytes().strip()
    made = [each.seal(b"secret", "it") for each in (Vault(passphrase), Vault(passphrase)) for _ in range(50)]
    assert len({each[:28] for each in made}) == 100  # salt and nonce: a restored database goes on with others
    assert len({each[:16] for each in made}) == 2
    assert all(Vault(passphrase).open(each, "it") == b"secret" for each in made[::50])


def test_a_commit_whose_answer_is_lost_loses_no_key(rooms, monkeypatch):
    care, own = rooms.identity.key_care, rooms.directory / "tls" / "passphrase"
    dialect = rooms.database.engine.dialect
    commit = dialect.do_commit

    def then_lost(connection):
        commit(connection)
        raise sa.exc.OperationalError("COMMIT", None, Exception("the connection is gone"))

    monkeypatch.setattr(dialect, "do_commit", then_lost)
    assert refusal(lambda: care.change_passphrase(ADMIN, LONG)) == "registry-unavailable"
    monkeypatch.undo()
    assert own.read_text().strip() == LONG  # it is in force: everything is sealed with it
    assert rooms.authorities.make_issuing("next", "t")
    rooms.again()
    assert all(rooms.authorities.key_of(each) for each in rooms.authorities.all())

    def refused(_connection):
        raise sa.exc.OperationalError("COMMIT", None, Exception("the disk is full"))

    monkeypatch.setattr(rooms.database.engine.dialect, "do_commit", refused)
    assert refusal(lambda: rooms.identity.key_care.change_passphrase(ADMIN, "never came into force")) != ""
    monkeypatch.undo()
    assert own.read_text().strip() == LONG
    assert not own.with_suffix(".next").exists()
    assert rooms.authorities.make_issuing("next", "t")
    rooms.again()
    assert all(rooms.authorities.key_of(each) for each in rooms.authorities.all())


def test_what_is_sealed_while_the_passphrase_changes_is_not_lost(rooms):
    """Whoever makes keys waits, and seals with the one in force; whoever opens is not refused meanwhile."""
    vault, care = rooms.identity.vault, rooms.identity.key_care
    failed = []
    done = threading.Event()

    def open_again_and_again():
        while not done.is_set():
            try:
                rooms.authorities.key_of(rooms.authorities.issuing())
            except RejectedError as error:
                failed.append(error)

    def make_again_and_again():
        while not done.is_set():
            rooms.authorities.make_issuing("next", "t")

    threads = [threading.Thread(target=each) for each in (open_again_and_again, make_again_and_again)]
    for each in threads:
        each.start()
    for number in range(3):
        care.change_passphrase(ADMIN, f"{LONG} {number}")
    sealed_before = care.request_issuing(ADMIN)
    done.set()
    for each in threads:
        each.join()
    assert failed == []
    assert vault.open(base64.b64decode(sealed_before.sealed_key), "issuing request")
    rooms.again()
    assert all(rooms.authorities.key_of(each) for each in rooms.authorities.all() if each.has_key)


def test_only_administrators_of_the_installation(rooms):
    someone = Principal("ann", None, "operator")
    with pytest.raises(RejectedError) as refused:
        rooms.identity.key_care.export_root(someone, LONG)
    assert refused.value.code == "forbidden"
