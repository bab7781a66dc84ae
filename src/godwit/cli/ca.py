"""`godwit ca`: the authorities. Look at them, keep the root's key offline, bring in others, roll over."""

import argparse
import getpass
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from godwit.cli.platform_client import PlatformClient, add_server_arguments, client_of
from godwit.contract.errors import RejectedError
from godwit.runtime.files import write_whole

EXAMPLES: Final = """examples:
  godwit ca show
  godwit ca export-root root.pem                        move the root's key offline
  godwit ca issue-intermediate --root root.pem          sign a new issuing authority with it
  godwit ca import --cert acme.pem --key acme.key       have a customer's authority issue
  godwit ca rollover start intermediate
  godwit ca rollover status --follow
"""
PASSPHRASE: Final = "GODWIT_CA_PASSPHRASE"  # noqa: S105 - the name of a variable
FOLLOW_S: Final = 1.0


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = commands.add_parser(
        "ca",
        help="look after the certificate authorities",
        description="Look after the authorities whose certificates devices and this platform have. Passphrases are\n"
        f"asked for, or come from --passphrase-file or {PASSPHRASE}.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(title="actions", metavar="action", required=True)

    def action(
        name: str, does: Callable[[argparse.Namespace], int], text: str, example: str
    ) -> argparse.ArgumentParser:
        made = actions.add_parser(
            name, help=text, description=f"{text[0].upper()}{text[1:]}.", epilog=f"Example: {example}"
        )
        made.set_defaults(run=does)
        return made

    action("show", show, "show the authorities and their fingerprints", "godwit ca show")
    export = action(
        "export-root",
        export_root,
        "move the root's key into a file, under a passphrase",
        "godwit ca export-root root.pem",
    )
    export.add_argument("file", type=Path, metavar="FILE")
    export.add_argument("--keep", action="store_true", help="leave the key here, too")
    issue = action(
        "issue-intermediate", issue_intermediate, "sign a new issuing authority with the root's key from a file",
        "godwit ca issue-intermediate --root root.pem",
    )  # fmt: skip
    issue.add_argument("--root", type=Path, required=True, metavar="FILE", help="as export-root wrote it")
    bring = action(
        "import", import_issuing, "have another authority issue, such as a customer's own",
        "godwit ca import --cert acme.pem --key acme.key",
    )  # fmt: skip
    bring.add_argument(
        "--cert", type=Path, required=True, metavar="FILE", help="PEM, with those above it up to the root"
    )
    bring.add_argument("--key", type=Path, required=True, metavar="FILE", help="PEM of its key")
    action("passphrase", passphrase, "change the passphrase that the keys are kept under", "godwit ca passphrase")
    rollover = action(
        "rollover", roll, "bring another authority to every device", "godwit ca rollover start intermediate"
    )
    rollover.add_argument("what", choices=("start", "status", "pause", "resume", "cancel", "finish"))
    rollover.add_argument("kind", nargs="?", choices=("intermediate", "root"), help="of start")
    rollover.add_argument("--rate", type=int, default=20, metavar="N", help="devices told a second (default 20)")
    rollover.add_argument("--follow", action="store_true", help="of status: until it is over")
    rollover.add_argument("--force", action="store_true", help="of finish: shut out who has not renewed")
    for each in actions.choices.values():
        add_server_arguments(each)
        each.add_argument("--passphrase-file", type=Path, metavar="FILE", help="file that holds the passphrase")


# --- looking ----------------------------------------------------------------------------------------------------------


def show(options: argparse.Namespace) -> int:
    """Show the authorities as a tree."""
    items = client_of(options).call("GET", "/api/v1/authorities")["items"]
    print(tree(items))
    return 0


def tree(items: list[dict[str, Any]]) -> str:
    """Return authorities as text: each below the one that issued it."""
    known = {each["fingerprint"] for each in items}
    lines: list[str] = []

    def add(each: dict[str, Any], depth: int) -> None:
        key = "key here" if each["hasKey"] else "key elsewhere"
        whose = f", of {each['tenant']}" if each["tenant"] else ""
        indent = "    " * depth
        lines.append(f"{indent}{each['name']}  ({each['kind']}, {each['state']}, {key}{whose})")
        lines.append(f"{indent}  until {each['notAfter'][:10]}{', EXPIRED' if each['expired'] else ''}")
        lines.append(f"{indent}  SHA-256 {each['fingerprint']}")
        for below in items:
            if below["issuer"] == each["fingerprint"] != below["fingerprint"]:
                add(below, depth + 1)

    for each in items:
        if each["issuer"] in (None, each["fingerprint"]) or each["issuer"] not in known:
            add(each, 0)
    return "\n".join(lines)


# --- keys -------------------------------------------------------------------------------------------------------------


def export_root(options: argparse.Namespace) -> int:
    """Write the root's key into a file, see that the file can be read, then have the key removed here."""
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415

    client, word = client_of(options), _passphrase(options, "Passphrase for the root's key", is_new=True)
    path: Path = options.file
    if path.exists():
        raise RejectedError(f"{path} is there already; it is not overwritten", code="exists")
    told = client.call("POST", "/api/v1/authorities/root/export", {"passphrase": word})
    write_whole(path, told["pem"].encode(), mode=0o600)
    _, key = _split(path)
    serialization.load_pem_private_key(key, word.encode())  # what was written can be read
    if options.keep:
        print(f"{path} holds the root's key; it is here, too")
        return 0
    client.call("DELETE", f"/api/v1/authorities/{told['fingerprint']}/key")
    print(
        f"{path} holds the root's key, which is not here any more. Keep two copies, and the passphrase apart from them."
    )
    return 0


def issue_intermediate(options: argparse.Namespace) -> int:
    """Sign a new issuing authority; its key is made in the platform, the root's is only used here."""
    from cryptography import x509  # noqa: PLC0415
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415

    from godwit.server.identity.authorities import issuing_certificate  # noqa: PLC0415

    root, key = _split(options.root)
    word = _passphrase(options, f"Passphrase of {options.root}")
    try:
        root_key = serialization.load_pem_private_key(key, word.encode())
        above = x509.load_pem_x509_certificate(root)
    except (ValueError, TypeError) as error:
        raise RejectedError(
            f"{options.root} cannot be opened: is it the passphrase? ({error})", code="key-passphrase"
        ) from None
    client = client_of(options)
    asked = client.call("POST", "/api/v1/authorities/issuing-request")
    request = x509.load_pem_x509_csr(asked["request"].encode())
    made = issuing_certificate(request.subject, request.public_key(), above, root_key)  # type: ignore[arg-type]
    pem = made.public_bytes(serialization.Encoding.PEM) + root
    return _bring(client, {"certificate": pem.decode(), "sealedKey": asked["sealedKey"]})


def import_issuing(options: argparse.Namespace) -> int:
    """Bring in a certificate and its key."""
    key = _text(options.key)
    is_locked = "ENCRYPTED" in key
    word = _passphrase(options, f"Passphrase of {options.key}") if is_locked else ""
    return _bring(client_of(options), {"certificate": _text(options.cert), "key": key, "passphrase": word})


def _bring(client: PlatformClient, document: dict[str, str]) -> int:
    added = client.call("POST", "/api/v1/authorities/issuing", document)
    what = "issues from now on" if added["state"] == "active" else "waits for: godwit ca rollover start"
    print(f"{added['name']} (SHA-256 {added['fingerprint']}) {what}")
    return 0


def passphrase(options: argparse.Namespace) -> int:
    """Change the passphrase of the keys."""
    word = _passphrase(options, "New passphrase for the keys of the platform", is_new=True)
    told = client_of(options).call("POST", "/api/v1/authorities/passphrase", {"passphrase": word})
    if told["kept"]:
        print("All keys are under the new passphrase, which DATA_DIR/tls/passphrase holds")
    else:
        print(
            "All keys are under the new passphrase. Put it where the old one came from (KEY_PASSPHRASE, "
            "KEY_PASSPHRASE_FILE or the systemd credential) before the next start"
        )
    return 0


# --- rollover ---------------------------------------------------------------------------------------------------------


def roll(options: argparse.Namespace) -> int:
    """Start a rollover, look at it, or change its course."""
    client = client_of(options)
    if options.what == "start":
        if options.kind is None:
            raise RejectedError("say which: godwit ca rollover start intermediate, or root", code="usage")
        print(_line(client.call("POST", "/api/v1/rollovers", {"kind": options.kind, "rate": options.rate})))
        return 0
    items = client.call("GET", "/api/v1/rollovers")["items"]
    if not items:
        raise RejectedError("there was no rollover yet", code="not-found")
    newest = items[0]
    if options.what != "status":
        body = {"force": options.force} if options.what == "finish" else None
        newest = client.call("POST", f"/api/v1/rollovers/{newest['campaignId']}/{options.what}", body)
    while options.what == "status" and options.follow and newest["state"] in ("running", "paused"):
        print(_line(newest), flush=True)
        time.sleep(FOLLOW_S)
        newest = client.call("GET", f"/api/v1/rollovers/{newest['campaignId']}")
    print(_line(newest))
    return 0


def _line(campaign: dict[str, Any]) -> str:
    steps = campaign["devices"]
    total = sum(steps.values())
    done = steps["renewed"]
    filled = 24 if total == 0 else 24 * done // total
    counts = ", ".join(f"{count:,} {step}" for step, count in steps.items() if count) or "no devices"
    bar = "#" * filled + "." * (24 - filled)
    return f"{campaign['kind']} {campaign['campaignId']}: {campaign['state']}  [{bar}] {counts}"


# --- files and words --------------------------------------------------------------------------------------------------


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise RejectedError(f"{path} cannot be read: {error}", code="file-unreadable") from None


def _split(path: Path) -> tuple[bytes, bytes]:
    """Return certificate and key of an exported root."""
    text = _text(path)
    at = text.find("-----BEGIN ENCRYPTED PRIVATE KEY")
    if at < 0 or "-----BEGIN CERTIFICATE" not in text[:at]:
        raise RejectedError(f"{path} is not what export-root writes: a certificate and a key", code="file-unreadable")
    return text[:at].encode(), text[at:].encode()


def _passphrase(options: argparse.Namespace, what: str, *, is_new: bool = False) -> str:
    if options.passphrase_file is not None:
        return _text(options.passphrase_file).strip()
    given = os.environ.get(PASSPHRASE)
    if given:
        return given
    if not sys.stdin.isatty():
        raise RejectedError(f"no passphrase: say --passphrase-file FILE or set {PASSPHRASE}", code="passphrase-missing")
    word = getpass.getpass(f"{what}: ")
    if is_new and getpass.getpass("Again: ") != word:
        raise RejectedError("these were two different passphrases", code="passphrase-differs")
    return word
