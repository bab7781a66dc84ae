"""Does an identity survive `kill -9` at any moment? A process enrolls and renews as fast as it can, and is killed."""

import itertools
import os
import random
import signal
import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "device"))

from authorities import Authority, enroll

from godwit.contract.ids import DeviceId
from godwit.device.identity import Identity
from godwit.device.identity_file import State, fingerprint

pytestmark = pytest.mark.real

KILLS = int(os.environ.get("GODWIT_IDENTITY_KILLS", "12"))
LIFE = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from authorities import Authority, answered
from godwit.device.identity import Identity
from godwit.device.identity_file import State, fingerprint
authority, identity = Authority(), Identity(Path(sys.argv[1]), "press-7")
identity.pin((authority.root,))
print("ready", flush=True)
while True:
    if identity.state not in (State.GRANTED, State.RENEWED):
        identity.ask()
        held = identity.take(answered(identity, authority))
        print("granted", fingerprint(held.certificate), flush=True)
    identity.connected(identity.newest)
    print("settled", fingerprint(identity.newest.certificate), flush=True)
"""


def test_an_identity_is_killed(tmp_path: Path) -> None:
    chance = random.Random(7)
    told = ""
    for turn in itertools.count():
        identity = Identity(tmp_path / "identity", DeviceId("press-7"))
        held = [each for each in (identity.kept.current, identity.kept.next) if each is not None]
        assert not identity.trouble
        if told:  # it may be one step further than it could say; what it said is there
            assert told in {fingerprint(each.certificate) for each in held}
            assert identity.kept.current is not None
        for each in held:
            identity.arm(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), each)
        assert len(list((tmp_path / "identity").glob("*/*"))) <= 4, "keys or chains are left behind"
        if turn == KILLS:
            enroll_on(identity)
            identity.close()
            return
        identity.close()
        told = live(tmp_path / "identity", chance.random() * 0.15)


def live(directory: Path, seconds: float) -> str:
    """Let a process live so long; returns the certificate that it said it has, empty: none."""
    shared = str(Path(__file__).parents[1] / "device")
    process = subprocess.Popen([sys.executable, "-c", LIFE, str(directory), shared], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    said, _ = process.communicate()
    lines = [line for line in said.splitlines(keepends=True) if line.endswith("\n")]
    return lines[-1].split()[1] if lines else ""


def enroll_on(identity: Identity) -> None:
    """Go on from wherever it was killed."""
    if identity.state in (State.GRANTED, State.RENEWED):
        assert identity.newest is not None
        identity.connected(identity.newest)
    enroll(identity, Authority())
    assert identity.state is State.SETTLED
