"""The server's own certificate: made once, renewed in time, whole, and not readable by others."""

import datetime as dt
import stat

import pytest
from cryptography import x509

from godwit.contract.errors import RejectedError
from godwit.mqtt.tls import server_context
from godwit.server.identity.server_certificate import ensure_server_certificate

NOW = dt.datetime(2026, 11, 1, tzinfo=dt.UTC)


def test_made_once_and_renewed_near_its_end(tmp_path):
    files = ensure_server_certificate(tmp_path, NOW)
    first = files.certificate.read_bytes()
    assert stat.S_IMODE(files.key.stat().st_mode) == 0o600
    server_context(*files)
    certificate = x509.load_pem_x509_certificate(first)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "localhost" in names.get_values_for_type(x509.DNSName)
    assert {str(each) for each in names.get_values_for_type(x509.IPAddress)} == {"127.0.0.1", "::1"}
    ensure_server_certificate(tmp_path, NOW + dt.timedelta(days=300))
    assert files.certificate.read_bytes() == first
    ensure_server_certificate(tmp_path, NOW + dt.timedelta(days=380))
    assert files.certificate.read_bytes() != first


def test_half_written_files_are_made_anew(tmp_path):
    files = ensure_server_certificate(tmp_path, NOW)
    files.key.write_bytes(files.key.read_bytes()[:40])
    server_context(*ensure_server_certificate(tmp_path, NOW))


def test_given_files_must_both_be_there(tmp_path):
    own = ensure_server_certificate(tmp_path, NOW)
    given = ensure_server_certificate(tmp_path / "x", NOW, certificate=str(own.certificate), key=str(own.key))
    assert given == own
    with pytest.raises(RejectedError):
        ensure_server_certificate(tmp_path, NOW, certificate=str(own.certificate))
