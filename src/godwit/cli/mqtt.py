"""`godwit mqtt sub` and `godwit mqtt pub`: subscribe and publish for people who have no MQTT client at hand.

Options are those that users of mosquitto_sub and mosquitto_pub know. What is not said comes from the settings, so that
on the platform's own machine a topic is all that is needed.
"""

import argparse
import asyncio
from collections.abc import Coroutine
from typing import Any, Final

from godwit.cli import mqtt_connection, mqtt_pub, mqtt_sub
from godwit.contract.errors import RejectedError

SUB_EXAMPLES: Final = """Examples:
  godwit mqtt sub '#'                                        everything, with topics
  godwit mqtt sub 'devices/+/telemetry' -C 1 -W 10           one message, or give up after 10 s (exit code 27)
  godwit mqtt sub -h broker.example -p 8883 --cafile ca.pem -u me --password-file secret -t 'alerts/#' -v
  godwit mqtt sub 'devices/#' --json | jq .payload           one JSON document a message
  godwit mqtt sub 'devices/#' -F '%I %t %p'                  a format of your own

Formats (-F): %p payload, %x payload in hex, %t topic, %q QoS, %r retained (0 or 1), %l payload bytes, %m packet id,
%I time of arrival (ISO 8601), %U time of arrival (Unix), %j one JSON document, %% a percent sign; \\n and \\t too."""

PUB_EXAMPLES: Final = """Examples:
  godwit mqtt pub devices/sensor-1/telemetry '{"sensors": {"temperature": 21.5}}' -q 1
  godwit mqtt pub -t lights/kitchen -m on -r                 retained
  godwit mqtt pub -t lights/kitchen -n -r                    take the retained message away
  tail -f log | godwit mqtt pub -t logs/here -l              each line of the input
  godwit mqtt pub -t devices/cam/events -f event.cbor --content-type application/cbor -q 1"""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add both commands."""
    parser = commands.add_parser(
        "mqtt",
        help="subscribe or publish from the command line",
        description="An MQTT 5 and 3.1.1 client for people, with the options of mosquitto_sub and mosquitto_pub.",
        epilog="Examples: godwit mqtt sub '#'\n          godwit mqtt pub greetings hello",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    kinds = parser.add_subparsers(title="commands", metavar="sub|pub", required=True)
    _add_sub(kinds)
    _add_pub(kinds)


def _add_sub(kinds: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    sub = kinds.add_parser(
        "sub",
        help="print messages as they come",
        description="Subscribe, and print messages as they come, until Ctrl-C. A lost connection is made again.",
        epilog=SUB_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
    )
    sub.add_argument("filters", nargs="*", metavar="FILTER", help="topic filter, as -t, and with -v")
    sub.add_argument(
        "-t", "--topic", action="append", default=[], metavar="FILTER", help="topic filter; may be said again"
    )
    sub.add_argument(
        "-q", "--qos", type=int, choices=(0, 1, 2), default=0, help="highest QoS of what comes (default 0)"
    )
    sub.add_argument("-C", dest="count", type=int, metavar="N", help="end after N messages")
    sub.add_argument("-W", dest="timeout", type=float, metavar="S", help="give up after S seconds (exit code 27)")
    sub.add_argument("-R", dest="without_stale", action="store_true", help="leave out retained messages")
    sub.add_argument("--retained-only", action="store_true", help="end at the first message that is not retained")
    output = sub.add_argument_group("output")
    output.add_argument("-v", "--verbose", action="store_true", help="print the topic before the payload")
    output.add_argument("-N", dest="without_eol", action="store_true", help="no end of line after a payload")
    output.add_argument("-F", dest="format", metavar="FORMAT", help="format of a message, see below")
    output.add_argument("--json", action="store_true", help="one JSON document a message")
    mqtt_connection.add_options(sub)
    sub.set_defaults(run=lambda options: _run(mqtt_sub.subscribe(options)))


def _add_pub(kinds: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    pub = kinds.add_parser(
        "pub",
        help="publish a message",
        description="Publish, wait for the acknowledgement, and say what the broker said if it refuses.",
        epilog=PUB_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
    )
    pub.add_argument("words", nargs="*", metavar="TOPIC [MESSAGE]", help="as -t and -m")
    pub.add_argument("-t", "--topic", metavar="TOPIC", help="where to publish")
    pub.add_argument("-q", "--qos", type=int, choices=(0, 1, 2), default=0, help="quality of service (default 0)")
    pub.add_argument("-r", "--retain", action="store_true", help="have the broker keep it for later subscribers")
    what = pub.add_mutually_exclusive_group()
    what.add_argument("-m", "--message", metavar="TEXT", help="what to publish")
    what.add_argument("-f", "--file", metavar="FILE", help="publish a file, whole")
    what.add_argument("-l", "--stdin-line", action="store_true", help="publish each line of standard input")
    what.add_argument("-s", "--stdin-file", action="store_true", help="publish standard input, whole")
    what.add_argument("-n", "--null-message", action="store_true", help="publish an empty message")
    pub.add_argument("--repeat", type=int, default=1, metavar="N", help="publish it N times")
    pub.add_argument("--repeat-delay", type=float, default=0.0, metavar="S", help="wait S seconds in between")
    five = pub.add_argument_group("MQTT 5")
    five.add_argument("--content-type", metavar="TYPE", help="such as application/json")
    five.add_argument("--expiry", type=int, metavar="S", help="how long the message is worth delivering")
    five.add_argument("--response-topic", metavar="TOPIC", help="where an answer is expected")
    five.add_argument("--correlation-data", metavar="TEXT", help="what the answer is to carry")
    five.add_argument("--user-property", action="append", default=[], metavar="NAME=VALUE", help="may be said again")
    mqtt_connection.add_options(pub)
    pub.set_defaults(run=lambda options: _run(mqtt_pub.publish(options)))


def _run(work: Coroutine[Any, Any, int]) -> int:
    """Run; what the operating system says is said in a sentence."""
    try:
        return asyncio.run(work)
    except BrokenPipeError:  # `godwit mqtt sub '#' | head`
        raise
    except OSError as error:
        raise RejectedError(str(error.strerror or error)) from error
