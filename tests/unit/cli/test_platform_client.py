"""Which platform a command asks, whom it trusts, and what it says when nobody answers or the words are wrong."""

import ssl
import threading
from argparse import Namespace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from godwit.cli.main import run
from godwit.cli.platform_client import PlatformClient, _unreachable, address_of, client_of, own_authority
from godwit.contract.errors import RejectedError
from godwit.server.settings import Settings


@pytest.fixture
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a token, where nothing of the environment says more."""
    for name in ("GODWIT_SERVER", "GODWIT_TOKEN", "SERVER_HOST", "SERVER_PORT", "DATA_DIR", "TLS_CERTIFICATE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "godwit-data").mkdir()
    (tmp_path / "godwit-data" / "admin-token").write_text("gwt_x")
    return tmp_path


def options(server: str | None = None) -> Namespace:
    return Namespace(server=server, token_file=None, server_ca=None)


@pytest.mark.parametrize(
    ("settings", "address"),
    [
        (Settings(), "http://127.0.0.1:8080"),
        (Settings(server_host="::1", server_port=81), "http://[::1]:81"),
        (Settings(server_host="0.0.0.0", server_port=9443), "https://localhost:9443"),
        (Settings(server_host="10.0.0.7"), "https://10.0.0.7:8080"),
        (
            Settings(server_host="0.0.0.0", tls_certificate="own.pem", public_host="iot.example.org, 10.0.0.7"),
            "https://iot.example.org:8080",
        ),
    ],
)
def test_the_platform_of_the_settings_is_asked(settings: Settings, address: str) -> None:
    assert address_of(settings) == address


def test_settings_of_the_directory_count_for_commands_as_for_the_platform(at_home: Path) -> None:
    (at_home / ".env").write_text("SERVER_HOST=0.0.0.0\nSERVER_PORT=9443\nDATA_DIR=there\n")
    (at_home / "there").mkdir()
    (at_home / "there" / "admin-token").write_text("gwt_there")
    assert client_of(options()).url == "https://localhost:9443"


def test_the_platforms_own_authority_is_trusted_and_no_other_file(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    assert own_authority(settings) is None
    (tmp_path / "tls").mkdir()
    (tmp_path / "tls" / "ca.crt").write_text("x")
    assert own_authority(settings) == tmp_path / "tls" / "ca.crt"


@pytest.mark.parametrize(
    ("server", "code"),
    [
        ("http://iot.example.org:8080", "server-plaintext"),
        ("http://127.example.org:8080", "server-plaintext"),
        ("http://127.0.0.1.example.org", "server-plaintext"),
        ("localhost:8080", "server-address"),
        ("https://", "server-address"),
        ("http://localhost:port", "server-address"),
        ("ftp://localhost", "server-address"),
    ],
)
def test_a_token_does_not_travel_in_the_clear_nor_to_nowhere(at_home: Path, server: str, code: str) -> None:
    with pytest.raises(RejectedError) as refused:
        client_of(options(server))
    assert refused.value.code == code


def test_a_token_goes_nowhere_else_where_the_platform_sends_the_request_on() -> None:
    heard: list[str | None] = []

    class Sends(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heard.append(self.headers["authorization"])
            self.send_response(302 if self.path == "/a" else 200)
            self.send_header("location", f"http://127.0.0.2:{self.server.server_port}/b")  # type: ignore[attr-defined]
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("", 0), Sends) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        PlatformClient(f"http://127.0.0.1:{server.server_port}", "gwt_x").call("GET", "/a")
        server.shutdown()
        serving.join()
    assert heard == ["Bearer gwt_x", None]


def test_who_does_not_answer_is_told_apart_from_who_is_not_trusted() -> None:
    untrusted = ssl.SSLCertVerificationError("no")
    untrusted.verify_message = "unable to get local issuer certificate"
    assert "--server-ca FILE" in str(_unreachable("https://x", untrusted))
    assert "https://" in str(_unreachable("http://x", ConnectionResetError("Connection reset by peer")))
    assert "godwit up" in str(_unreachable("http://x", ConnectionRefusedError("refused")))


def test_wrong_usage_shows_the_command_that_was_meant(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(["device", "token", "create", "press-7"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("usage: godwit device token")
    assert "godwit device token meter-3 > meter-3.token" in said  # an example of how it is said
    assert said.endswith("godwit device token: error: unrecognized arguments: press-7\n")


def test_an_audit_that_could_not_be_made_is_not_one_that_found_nothing_or_something(at_home: Path) -> None:
    assert run(["audit", "--server", "http://127.0.0.1:9"]) == 3


def test_a_file_that_cannot_be_written_is_named_and_nothing_is_asked_for(
    at_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["device", "enroll", "press-7", "--out", str(at_home / "godwit-data" / "admin-token")]) == 1
    assert "admin-token cannot be written to: File exists" in capsys.readouterr().err
