"""`godwit device claim|revoke|release|transfer`: whose a device is, and that it is shut out."""

import argparse
from urllib.parse import quote

from godwit.cli.platform_client import add_server_arguments, client_of


def add_actions(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the actions."""
    claiming = actions.add_parser(
        "claim",
        help="make a device that came by itself your own",
        description="Make an unclaimed device your own: it lands by rule, and the plaintext listener speaks for it no "
        "more. Example: godwit device claim press-7",
    )
    claiming.add_argument("device_id", metavar="ID")
    claiming.add_argument("--tenant", metavar="NAME", help="(default: the one that it is in)")
    claiming.set_defaults(run=claim)
    releasing = actions.add_parser(
        "release",
        help="give a device up",
        description="Give a device up: its certificates, tokens and keys end, it leaves its groups and is unclaimed. "
        "Its data stays. Example: godwit device release press-7",
    )
    releasing.add_argument("device_id", metavar="ID")
    releasing.set_defaults(run=release)
    transferring = actions.add_parser(
        "transfer",
        help="give a device to another tenant",
        description="Give a device to another tenant, where it enrolls anew. Its telemetry goes with it, unless it is "
        "erased. Example: godwit device transfer press-7 acme",
    )
    transferring.add_argument("device_id", metavar="ID")
    transferring.add_argument("tenant", metavar="TENANT", help="whose it becomes")
    transferring.add_argument("--erase-telemetry", action="store_true", help="the next owner is not to see it")
    transferring.set_defaults(run=transfer)
    revoking = actions.add_parser(
        "revoke",
        help="end all that a device comes in by",
        description="Revoke all certificates, tokens and keys of a device, and the claims for its id: its connection "
        "ends within a second, and it has to be enrolled anew. Example: godwit device revoke press-7",
    )
    revoking.add_argument("device_id", metavar="ID")
    revoking.add_argument("--reason", default="unspecified", metavar="WORD", help="such as keyCompromise (RFC 5280)")
    revoking.set_defaults(run=revoke)
    for each in (claiming, revoking, releasing, transferring):
        add_server_arguments(each)


def claim(options: argparse.Namespace) -> int:
    """Claim a device; returns the exit code."""
    body = {"tenant": options.tenant} if options.tenant else {}
    device = client_of(options).call("POST", _address(options, "claim"), body)
    print(f"{device['deviceId']} is {device['tenant']}'s, and active")
    return 0


def revoke(options: argparse.Namespace) -> int:
    """End a device's credentials; returns the exit code."""
    device = client_of(options).call("POST", _address(options, "revoke"), {"reason": options.reason})
    print(f"{device['deviceId']} comes in by nothing any more: enroll it anew, or release it")
    return 0


def release(options: argparse.Namespace) -> int:
    """Release a device; returns the exit code."""
    device = client_of(options).call("POST", _address(options, "release"))
    print(f"{device['deviceId']} is unclaimed; its certificates are revoked")
    return 0


def transfer(options: argparse.Namespace) -> int:
    """Transfer a device; returns the exit code."""
    body = {"tenant": options.tenant, "keepTelemetry": not options.erase_telemetry}
    device = client_of(options).call("POST", _address(options, "transfer"), body)
    print(f"{device['deviceId']} is {device['tenant']}'s: it enrolls there with a new claim")
    return 0


def _address(options: argparse.Namespace, action: str) -> str:
    return f"/api/v1/devices/{quote(options.device_id, safe='')}/{action}"
