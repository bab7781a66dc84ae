"""`godwit device join`: get this machine an identity. And the arguments by which `run` gets one, too."""

import argparse
import asyncio
import logging
import os
import sys
from pathlib import Path
from typing import Any, Final

from godwit.contract.errors import RejectedError, UnavailableError
from godwit.contract.ids import parse_device_id

WAIT_S: Final = 60.0
LOOK_EVERY_S: Final = 0.1


def add_parser(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the action."""
    join = actions.add_parser(
        "join",
        help="get this machine a certificate, by a claim",
        description="Make a key on this machine, ask the platform for a certificate with a claim, and connect once.\n"
        "The key stays here; the claim is spent afterwards. When it is interrupted, by a power cut too, the same\n"
        "command goes on where it was. `godwit device run ID --identity DIR` then needs no claim, and renews in time.",
        epilog="Examples: godwit device join press-7 --host iot.example.org --claim-file claim \\\n"
        "              --ca-fingerprint 5f1d...\n"
        "          godwit device join --link 'godwit://iot.example.org:8883/join?...'\n"
        "          GODWIT_CLAIM=... godwit device join press-7 --host iot.example.org \\\n"
        "              --cafile ca.crt --https",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    join.add_argument("device_id", metavar="ID", nargs="?", help="of the device (default: as the link says)")
    join.add_argument("--link", metavar="LINK", help="of a claim, as its QR code holds it: host, claim, whom to trust")
    add_server_arguments(join)
    add_identity_arguments(join)
    join.add_argument(
        "--wait", type=float, default=WAIT_S, metavar="S", help=f"give up after S seconds (default {WAIT_S:g})"
    )
    join.set_defaults(run=run_join)


def add_server_arguments(to: "argparse._ActionsContainer") -> None:
    """Add where the platform is."""
    to.add_argument("--host", default="127.0.0.1", help="(default 127.0.0.1)")
    to.add_argument("--port", type=int, help="of MQTT (default 1883, with TLS 8883)")
    to.add_argument("--cafile", type=Path, metavar="FILE", help="PEM of whom to trust; it means TLS")
    to.add_argument(
        "--ca-fingerprint", metavar="HEX", help="SHA-256 of the platform's root, as its owner says it; it means TLS"
    )


def add_identity_arguments(to: "argparse._ActionsContainer") -> None:
    """Add how to get in by a certificate."""
    to.add_argument("--identity", type=Path, metavar="DIR", help="of key and certificate (default: in the state dir.)")
    to.add_argument("--claim", metavar="TOKEN", help="enroll with it (others see it in `ps`: better a file)")
    to.add_argument("--claim-file", type=Path, metavar="FILE", help="file that holds it; or GODWIT_CLAIM says it")
    protect = to.add_mutually_exclusive_group()
    protect.add_argument(
        "--sign", dest="sealing", action="store_const", const="sign", help="sign every message, end to end"
    )
    protect.add_argument(
        "--encrypt", dest="sealing", action="store_const", const="encrypt", help="sign and encrypt every message"
    )
    to.add_argument(
        "--message-key-days", type=float, default=60.0, metavar="N",
        help="how long keys of messages are used before others follow (default 60; 0: for ever)",
    )  # fmt: skip
    to.add_argument("--https", action="store_true", help="enroll by HTTPS (default: by MQTT)")
    to.add_argument("--https-port", type=int, default=8443, metavar="N", help="of devices (default 8443)")


def identity_of(options: argparse.Namespace) -> dict[str, Any]:
    """Return what `Device` is told. Raises RejectedError where a file cannot be read."""
    from godwit.device.trust import read_fingerprint, read_pems  # noqa: PLC0415 - the other commands do without

    if options.cafile is not None:
        read_pems(options.cafile)  # a wrong name is told now, and not after a while
    if options.ca_fingerprint is not None:
        read_fingerprint(options.ca_fingerprint)
    claim = options.claim or secret_of(options.claim_file) or os.environ.get("GODWIT_CLAIM") or None
    return {
        "identity": options.identity or bool(claim),
        "claim": claim,
        "sealing": options.sealing,
        "message_key_days": options.message_key_days,
        "ca": options.cafile,
        "ca_fingerprint": options.ca_fingerprint,
        "is_https": options.https,
        "https_port": options.https_port,
    }


def secret_of(path: Path | None) -> str | None:
    """Return what a file holds, without the end of its line. Raises RejectedError (`file-unreadable`)."""
    if path is None:
        return None
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise RejectedError(f"{path} cannot be read: {error}", code="file-unreadable") from None


def run_join(options: argparse.Namespace) -> int:
    """Join; returns the exit code."""
    return asyncio.run(_join(options))


def _follow(options: argparse.Namespace) -> None:
    """Take from the link what was not said. Raises RejectedError (`usage`), MalformedError (`invalid-link`)."""
    from godwit.contract.join_link import read_join_link  # noqa: PLC0415

    link = read_join_link(options.link)
    if link.device_id and options.device_id not in (None, link.device_id):
        raise RejectedError(f"this link is for {link.device_id}, not for {options.device_id}", code="usage")
    options.device_id = options.device_id or link.device_id
    options.host, options.port, options.claim = link.host, options.port or link.mqtts_port, link.claim
    options.https_port = link.https_port or options.https_port
    if options.cafile is None and options.ca_fingerprint is None:
        options.ca_fingerprint = link.ca


async def _join(options: argparse.Namespace) -> int:
    from godwit.device import Device, Durability  # noqa: PLC0415 - the other commands do without
    from godwit.device.client import identity_path  # noqa: PLC0415
    from godwit.device.identity import Identity  # noqa: PLC0415

    logging.getLogger("godwit").addHandler(logging.NullHandler())  # what is wrong is said here, once
    if options.link:
        _follow(options)
    if not options.device_id:
        raise RejectedError("say the device's ID: the link is good for any", code="usage")
    device_id = parse_device_id(options.device_id)
    more = identity_of(options)
    directory = options.identity or identity_path(device_id)
    identity = await asyncio.to_thread(Identity, directory, device_id)
    print(f"identity: {directory} ({identity.state})")
    device = Device(
        device_id, options.host, options.port, durability=Durability.MEMORY, **(more | {"identity": identity})
    )
    said = ""
    async with device:
        end = asyncio.get_running_loop().time() + options.wait
        while not device.is_settled:
            if device.trouble not in (said, "", "not connected yet"):
                said = device.trouble
                print(f"godwit: {said}", file=sys.stderr)
            if device.is_stuck:
                raise RejectedError("a person has to change something first", code="not-joined")
            if asyncio.get_running_loop().time() > end:
                raise UnavailableError(f"not within {options.wait:g} s: run it again, it goes on where it was")
            await asyncio.sleep(LOOK_EVERY_S)
        held = identity.newest
        assert held is not None
        print(f"{device_id} is enrolled: its certificate is good until {held.until}")
    return 0
