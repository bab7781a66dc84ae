"""The server's certificate: from our own authority, renewed in time, whole, and not readable by others."""

import asyncio
import datetime as dt
import stat

import pytest
from cryptography import x509

from godwit.contract.errors import RejectedError
from godwit.mqtt.tls import server_context
from godwit.server.identity.server_certificate import Given, ServerCertificates, names_of

NOW = dt.datetime.now(dt.UTC)


def test_issued_by_our_authority_for_our_names(rooms):
    own = ServerCertificates(rooms.directory, rooms.authorities, Given(("iot.example.org", "0.0.0.0", "10.1.2.3")))
    files = own.ensure()
    assert stat.S_IMODE(files.key.stat().st_mode) == 0o600
    server_context(*files)
    certificate, issuing = x509.load_pem_x509_certificates(files.certificate.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {"localhost", "iot.example.org"} <= set(names.get_values_for_type(x509.DNSName))
    assert {"127.0.0.1", "::1", "10.1.2.3"} <= {str(each) for each in names.get_values_for_type(x509.IPAddress)}
    assert certificate.not_valid_after_utc - certificate.not_valid_before_utc <= dt.timedelta(days=397)
    certificate.verify_directly_issued_by(issuing)
    (root,) = x509.load_pem_x509_certificates(own.ca.read_bytes())
    issuing.verify_directly_issued_by(root)


def test_made_once_and_renewed_near_its_end_or_for_other_names(rooms):
    own = rooms.identity.server
    files = own.ensure()
    first = files.certificate.read_bytes()
    assert not own.refresh(NOW + dt.timedelta(days=300))
    assert files.certificate.read_bytes() == first
    assert own.refresh(NOW + dt.timedelta(days=380))
    assert files.certificate.read_bytes() != first
    second = files.certificate.read_bytes()
    ServerCertificates(rooms.directory, rooms.authorities, Given(("iot.example.org",))).ensure()
    assert files.certificate.read_bytes() != second


def test_half_written_and_self_signed_files_are_made_anew(rooms):
    own = rooms.identity.server
    files = own.ensure()
    files.key.write_bytes(files.key.read_bytes()[:40])
    server_context(*own.ensure())
    alone = x509.load_pem_x509_certificates(own.ca.read_bytes())[0]
    assert alone.issuer == alone.subject
    files.certificate.write_bytes(own.ca.read_bytes())
    server_context(*own.ensure())


def test_given_files_must_both_be_there_and_fit(rooms, tmp_path):
    own = rooms.identity.server.ensure()
    given = Given((), str(own.certificate), str(own.key))
    assert ServerCertificates(tmp_path, rooms.authorities, given).ensure() == own
    for wrong in (Given((), str(own.certificate)), Given((), str(own.certificate), str(rooms.identity.server.ca))):
        with pytest.raises(RejectedError) as refused:
            ServerCertificates(tmp_path, rooms.authorities, wrong).ensure()
        assert refused.value.code == "tls-files"


def test_listeners_hear_of_other_files_but_not_of_halves(rooms, tmp_path):
    own = rooms.identity.server.ensure()
    crt, key = tmp_path / "given.crt", tmp_path / "given.key"
    crt.write_bytes(own.certificate.read_bytes())
    key.write_bytes(own.key.read_bytes())
    given = ServerCertificates(tmp_path, rooms.authorities, Given((), str(crt), str(key)))
    context = server_context(*given.ensure())
    heard = []
    given.on_change(lambda: heard.append(context.load_cert_chain(*given.files)))
    asyncio.run(given.look())
    assert not heard
    rooms.identity.server.refresh(NOW + dt.timedelta(days=390))
    crt.write_bytes(own.certificate.read_bytes())
    asyncio.run(given.look())  # the key is still the old one
    assert not heard
    key.write_bytes(own.key.read_bytes())
    asyncio.run(given.look())
    assert len(heard) == 1


def test_names_have_no_wildcard_addresses():
    assert not {"0.0.0.0", "::", ""} & set(names_of(["0.0.0.0", "::", ""]))
