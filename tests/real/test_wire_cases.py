"""Does the broker answer to the letter, byte by byte, as the cases of Mosquitto's own suite want it?

The cases that it does not answer so are listed here with the reason and the clause that leaves the choice. A case that
is in the list and passes, or is not and fails, is an error: the list says exactly what differs.
"""

import importlib.util
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.real

TO_THE_LETTER_MIN = 1_780
OLD_VERSION = "MQTT 3.1 (level 3, MQIsdp) is not spoken: it is refused with return code 1, as 3.1.1, 3.1.2-2 says"
TOLD = "the client is told 0x81 in CONNACK, where the case wants only a closed connection; 3.1.4-1 allows both"
EARLY = "at QoS 2 subscribers are served when the message is durable, not at PUBREL; 4.3.3 (figure 4.3) allows both"
AGAIN = "a QoS 2 PUBLISH may be repeated until PUBREL, as often as the client likes; 4.3.3 sets no limit"
RESERVED = "clients may not publish below $SYS; 4.7.2 tells servers to keep them from it"
RESPONSES = "who asks for Response Information gets it; 3.1.2.11.6 leaves it to the server"

NOT_APPLICABLE = {
    "CONNACK: v3.1.1 CONNACK: issue 2163 v3": OLD_VERSION,
    "CONNECT: v3.1   CONNECT: 10 ok": OLD_VERSION,
    "CONNECT: v3.1   CONNECT: 14 ok": OLD_VERSION,
    "CONNECT: v3.1   CONNECT: 10 empty client ID": OLD_VERSION,
    "CONNECT: v3.1.1 CONNECT: 10 missing keepalive": TOLD,
    "CONNECT: v5.0   CONNECT: 10 Will flag 1 Will Qos 3 [MQTT-3.1.2-14]": TOLD,
    "CONNECT: v5.0   CONNECT: 10 [MQTT-3.1.2-17]": TOLD,
    "CONNECT: v5.0   CONNECT: 10 [MQTT-3.1.2-19]": TOLD,
    "CONNECT: v5.0   CONNECT: 10 Username with 0x0000": TOLD,
    "CONNECT: v5.0   CONNECT: 10 Username with 0xD800": TOLD,
    "CONNECT: v5.0   CONNECT: 10 Username with 0x0001": TOLD,
    "CONNECT: v5.0   CONNECT: 10 Username with 0x001F": TOLD,
    "CONNECT: v5.0   CONNECT: 10 Username with 0x007F": TOLD,
    "CONNECT: v5.0   CONNECT: 10 Username with 0x009F": TOLD,
    "CONNECT: v5.0   CONNECT: 10 Username with 0xFFFF": TOLD,
    "CONNECT: v5.0   CONNECT ALLOWED PROPERTIES: request-response-information (byte)": RESPONSES,
    "OTHER: v3.1.1 OTHER: subpub self publish qos2": EARLY,
    "OTHER: v3.1.1 OTHER: subpub retain as normal qos2": EARLY,
    "OTHER: v5.0   OTHER: subpub self publish qos2": EARLY,
    "OTHER: v5.0   OTHER: subpub retain as normal qos2": EARLY,
    "PUBLISH: v3.1.1 PUBLISH: 34 QoS 2 Dup flow*3": AGAIN,
    "PUBLISH: v5.0   PUBLISH: 34 QoS 2 Dup flow*3": AGAIN,
    "PUBLISH: v5.0   PUBLISH: PUBLISH with $ topic - connection/state": RESERVED,
}


@pytest.fixture(scope="module")
def driver() -> ModuleType:
    """Load the driver, which is no package of its own."""
    path = Path(__file__).parents[1] / "wire/driver.py"
    spec = importlib.util.spec_from_file_location("wire_driver", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=[[], ["--workers"]], ids=["one process", "two workers"])
def port(request: pytest.FixtureRequest, tmp_path: Path):
    """Run a broker that announces the limits which the cases expect."""
    script = Path(__file__).with_name("broker_process.py")
    with subprocess.Popen(
        [sys.executable, str(script), str(tmp_path), "0", "--wire", *request.param], stdout=subprocess.PIPE, text=True
    ) as process:
        yield int(process.stdout.readline())
        process.kill()


def test_wire_cases_to_the_letter(driver: ModuleType, port: int) -> None:
    directory = driver.find_cases()
    if directory is None:
        pytest.skip("no wire cases: set GODWIT_WIRE_CASES to their directory")
    outcomes = list(driver.run_all(driver.load(directory), "127.0.0.1", port))
    table = driver.table(outcomes)
    print(table)
    differing = {o.case.title: f"{o.result}: {o.detail}" for o in outcomes if o.result != driver.TO_THE_LETTER}
    unexpected = {title: detail for title, detail in differing.items() if title not in NOT_APPLICABLE}
    assert not unexpected, table
    assert not NOT_APPLICABLE.keys() - differing.keys(), "these pass: take them off the list"
    assert Counter(o.result for o in outcomes)[driver.TO_THE_LETTER] >= TO_THE_LETTER_MIN, table
