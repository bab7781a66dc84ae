"""Does every command and link of the README and the docs work as it stands there?

Commands are taken from the fenced `sh` blocks. Each kind of command has a runner here; a command without one fails, so
that nobody writes one that is never run. Ports and directories are the only things that are put in.
"""

import json
import re
import shlex
import shutil
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from godwit.cli.main import run

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
COMMANDS_OF_MAKE = {"up", "test"}


def commands() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for block in re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
            lexer = iter(block.splitlines())
            command = ""
            for line in lexer:
                command += line + "\n"
                if is_whole(command) and command.strip():
                    yield page.name, command.strip()
                    command = ""


def is_whole(command: str) -> bool:
    try:
        shlex.split(command)
    except ValueError:  # an open quote
        return False
    return not command.endswith("\\\n")


def words_of(command: str) -> list[str]:
    return shlex.split(command, comments=True)


def gives_an_owner(command: str) -> bool:
    """Whether a device has an owner from then on, so that the plaintext port does not speak for it any more."""
    return re.match(r"godwit device (enroll|join|claim|token|key)|curl .*/(enroll|devices\b)", command) is not None


ALL = sorted(commands(), key=lambda each: gives_an_owner(each[1]))


def test_there_are_commands_to_run() -> None:
    assert len(ALL) >= 8


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_make_knows_the_targets_of_the_docs(repository: Path) -> None:
    text = (repository / "Makefile").read_text()
    phony = set(re.findall(r"^\.PHONY:(.*)$", text, re.MULTILINE)[0].split())
    for page in PAGES:
        used = re.findall(r"`make (\w+)|^make (\w+)", page.read_text(), re.MULTILINE)
        assert {one or other for one, other in used} <= phony


def test_every_command_has_help_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(["--help"])
    listed = capsys.readouterr().out
    for command in (
        "up",
        "demo",
        "simulate",
        "mqtt",
        "mqtt sub",
        "mqtt pub",
        "trace",
        "device run",
        "device join",
        "device enroll",
        "ca show",
        "ca export-root",
        "ca issue-intermediate",
        "ca import",
        "ca passphrase",
        "ca rollover",
        "user add",
        "user list",
        "user disable",
        "user enable",
        "user password",
        "user grant",
        "user remove",
        "token create",
        "token list",
        "token revoke",
        "claim create",
        "claim list",
        "claim revoke",
        "rule put",
        "rule list",
        "rule delete",
        "factory add",
        "factory prove",
        "device claim",
        "device release",
        "device transfer",
        "config",
        "audit",
        "tenant list",
        "tenant add",
        "tenant remove",
        "tenant quota",
        "version",
    ):
        assert re.search(rf"^\s+{command.split()[0]}\s", listed, re.MULTILINE), command
        with pytest.raises(SystemExit) as ended:
            run([*command.split(), "--help"])
        assert ended.value.code == 0
        help_text = " ".join(capsys.readouterr().out.split())
        assert re.search(rf"Examples?: (\S+=\S+ )?godwit {command}", help_text), f"{command} --help shows no example"


EXAMPLES = [
    found
    for page in ("device.md", "messages.md")
    for found in re.findall(
        r"^```python\n(.*?)^```", (REPOSITORY / "docs" / page).read_text(), re.DOTALL | re.MULTILINE
    )
]


@pytest.mark.real
@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_the_example_runs(example: str, docs_platform: Any, tmp_path: Path) -> None:
    is_plain = 'tls=True, username="fleet", password="secret"' in example
    assert is_plain or "claim=claim" in example or "Device(" not in example
    there = f'"127.0.0.1", {docs_platform.mqtt}, spool="{tmp_path}/s"'
    code = example.replace('"iot.example.org", tls=True, username="fleet", password="secret"', there)
    if "claim=claim" in example:
        (device,) = re.findall(r'Device\("([\w-]+)"', example)
        there = f'"127.0.0.1", {docs_platform.mqtts}, https_port={docs_platform.https}, identity="{tmp_path}/i"'
        code = example.replace('"iot.example.org"', f'{there}, spool="{tmp_path}/s"')
        code = code.replace('"gwc_..."', repr(claim_of(device, docs_platform)))
        code = code.replace('"5f1d..."', repr(root_of(docs_platform)))
    subprocess.run([sys.executable, "-W", "error", "-c", code], env=docs_platform.environment, timeout=60, check=True)


@pytest.mark.real
@pytest.mark.parametrize(("page", "command"), ALL, ids=[f"{page}: {command[:40]}" for page, command in ALL])
def test_the_command_runs(page: str, command: str, docs_platform: Any, tmp_path: Path) -> None:
    words = words_of(command)
    match words:
        case ["make", target]:
            assert target in COMMANDS_OF_MAKE  # test_make_up runs them
        case ["godwit", "up" | "demo", *_]:
            assert run_parser(words[1:])  # test_make_up and each test with a platform run them
        case ["godwit", "simulate", *rest]:
            simulate(rest, docs_platform, tmp_path)
        case ["godwit", "mqtt", *rest]:
            assert mqtt(rest, docs_platform, tmp_path) in (0, 27)
        case ["godwit", "trace", *rest]:
            command = [sys.executable, "-m", "godwit.cli.main", "trace", *rest, "--for", "1"]
            subprocess.run(command, cwd=tmp_path, env=docs_platform.environment, timeout=60, check=True)
        case ["godwit", "claim" | "rule" | "factory", *_] | ["godwit", "device", "claim" | "release" | "transfer", *_]:
            enrollment(words[1:], docs_platform, tmp_path)
        case ["godwit", "audit" | "tenant" | "user" | "token", *_]:
            command = [sys.executable, "-m", "godwit.cli.main", *words[1:], "--server", docs_platform.url]
            told = ["--token-file", str(docs_platform.data_dir / "admin-token")]
            subprocess.run([*command, *told], cwd=tmp_path, timeout=60, check=True, stdout=subprocess.DEVNULL)
        case ["godwit", "ca", "show"] | ["godwit", "device", "enroll", *_]:
            (tmp_path / "devices.csv").write_text("device_id,tags\npress-8,hall=2\npress-9,\n")
            environment = docs_platform.environment | {"GODWIT_SERVER": docs_platform.url} | token_of(docs_platform)
            command = [sys.executable, "-m", "godwit.cli.main", *words[1:]]
            subprocess.run(command, cwd=tmp_path, env=environment, timeout=60, check=True)
        case ["godwit", "ca", *_]:
            assert run_parser(words[1:])  # test_ca_command runs them: they change what other pages rely on
        case ["godwit", "device", "join", device, *_]:
            join(device, command, docs_platform, tmp_path)
        case ["godwit", *rest]:
            done = subprocess.run(
                [sys.executable, "-m", "godwit.cli.main", *rest],
                cwd=tmp_path,
                env=docs_platform.environment | {"GODWIT_SERVER": docs_platform.url},
                capture_output=True,
                text=True,
                check=True,
            )
            assert done.stdout
        case ["mosquitto_pub", *rest]:
            subprocess.run(["mosquitto_pub", "-p", str(docs_platform.mqtt), *rest], check=True, timeout=10)
        case ["echo", *_] if "godwit device run" in command:
            device = f"{sys.executable} -m godwit.cli.main device run --port {docs_platform.mqtt} --spool {tmp_path}/s"
            piped = command.replace("godwit device run", device)
            subprocess.run(["timeout", "50", "sh", "-c", piped], env=docs_platform.environment, check=True)
        case ["curl", *_]:
            curl(command, docs_platform, tmp_path)
        case _:
            pytest.fail(f"{page} has a command that no test runs: {command}")


@pytest.fixture(scope="module")
def docs_platform(tmp_path_factory: pytest.TempPathFactory, platform_class: Callable[..., Any]) -> Iterator[Any]:
    platform = platform_class(tmp_path_factory.mktemp("docs") / "godwit-data").start()
    # what the README publishes, before it asks for it
    for page, command in ALL:
        if page == "README.md" and command.startswith("mosquitto_pub"):
            _, *rest = words_of(command)
            subprocess.run(["mosquitto_pub", "-p", str(platform.mqtt), *rest], check=True, timeout=10)
    yield platform
    platform.stop()


def claim_of(device: str, platform: Any) -> str:
    """Make a claim for a device."""
    return str(platform.post("/api/v1/claims", {"deviceId": device})["token"])


def root_of(platform: Any) -> str:
    """Return the fingerprint of the platform's root."""
    return sha256(ssl.PEM_cert_to_DER_cert(platform.certificate.read_text())).hexdigest()


def join(device: str, command: str, platform: Any, directory: Path) -> None:
    """Run `godwit device join` with a claim and a fingerprint that are right."""
    (directory / "claim").write_text(claim_of(device, platform))
    words = words_of(command.replace("5f1d...", root_of(platform)).replace("iot.example.org", "127.0.0.1"))
    ports = ["--port", str(platform.mqtts), "--https-port", str(platform.https), "--identity", str(directory / "i")]
    subprocess.run([sys.executable, "-m", "godwit.cli.main", *words[1:], *ports], cwd=directory, timeout=60, check=True)


def run_parser(words: list[str]) -> bool:
    """Whether the command line is understood."""
    with pytest.raises(SystemExit) as ended:
        run([*words, "--help"])
    return ended.value.code == 0


def mqtt(words: list[str], platform: Any, directory: Path) -> int:
    """Run `godwit mqtt` on the platform's machine; one that runs until Ctrl-C, for a second."""
    if words[0] == "sub" and "-W" not in words:
        words = [*words, "-W", "1"]
    command = [sys.executable, "-m", "godwit.cli.main", "mqtt", *words]
    return subprocess.run(command, cwd=directory, env=platform.environment, timeout=60, check=False).returncode


def enrollment(words: list[str], platform: Any, directory: Path) -> None:
    """Run a command of enrollment, where what it names is there."""
    environment = platform.environment | {"GODWIT_SERVER": platform.url}

    def ask(method: str, path: str, body: object) -> Any:
        headers = {"content-type": "application/json"}
        return json.loads(platform.ask(method, path, json.dumps(body).encode(), headers) or b"null")

    (directory / "pumps.json").write_text('{"intervalS": 10}')
    match words:
        case ["claim", "revoke", _]:
            words = [*words[:2], ask("POST", "/api/v1/claims", {})["claimId"]]
        case ["rule", "delete", name]:
            ask("PUT", f"/api/v1/enrollment-rules/{name}", {})
        case ["factory", "add", file, *_]:
            making = f"openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out {file} -subj /CN={directory.name}"
            subprocess.run(making.split(), cwd=directory, check=True, capture_output=True)
        case ["device", action, *_]:
            lifecycle = "unclaimed" if action == "claim" else "active"
            words[2] = f"{words[2]}-{action}"
            ask("POST", "/api/v1/devices", {"deviceId": words[2], "lifecycle": lifecycle})
            ask("PUT", "/api/v1/tenants/acme", {})
        case ["claim", "create", "--device", device, "--revoke-now"]:
            words[3] = f"{device}-replace"
            ask("POST", "/api/v1/devices", {"deviceId": words[3]})
    command = [sys.executable, "-m", "godwit.cli.main", *words]
    subprocess.run(command, cwd=directory, env=environment | token_of(platform), timeout=60, check=True)


def token_of(platform: Any) -> dict[str, str]:
    return {"GODWIT_TOKEN": platform.token}


def simulate(words: list[str], platform: Any, directory: Path) -> None:
    (directory / "machine.csv").write_text("timestamp,value\n2013-12-02 21:15:00,73.9\n2013-12-02 21:20:00,74.9\n")
    if "--duration" in words:
        words[words.index("--duration") + 1] = "2"
    command = [sys.executable, "-m", "godwit.cli.main", "simulate", "--port", str(platform.mqtt), *words]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=60, check=True)
    assert "stored in" in done.stdout


def curl(command: str, platform: Any, directory: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("no curl on this machine")
    is_device = ":8443" in command
    if is_device:  # with the bundle of the page's example
        enroll = [sys.executable, "-m", "godwit.cli.main", "device", "enroll", "pump-1"]
        there = platform.environment | {"GODWIT_SERVER": platform.url}
        subprocess.run(enroll, cwd=directory, env=there, timeout=60, check=True)
    command = command.replace(":8080", f":{platform.http}").replace("godwit-data", str(platform.data_dir))
    command = command.replace(":8443", f":{platform.https}")
    done = subprocess.run(
        ["sh", "-c", f"{command} --fail -s"], check=False, cwd=directory, capture_output=True, text=True, timeout=20
    )
    assert done.returncode == 0, done.stderr
    assert is_device or json.loads(done.stdout)
