"""The file that BRIDGES names: which other brokers we exchange messages with, and by which rules.

    [[bridge]]
    name = "head-office"
    host = "mqtt.example.com"
    port = 8883
    ca_file = "/etc/godwit/head-office-ca.crt"

    [[bridge.rule]]
    direction = "out"
    filter = "devices/+/telemetry"
    remote_prefix = "site-1/"

A rule's filter is without the prefixes: a message out of topic `local_prefix` + t goes to `remote_prefix` + t, one in
the other way round.
"""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from godwit.contract.errors import RejectedError
from godwit.mqtt.topics import is_topic_filter, is_topic_name, matches
from godwit.server.foreign.terms import Terms, tls_of

Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,31}$")]


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which messages cross in one direction, and where to."""

    direction: Literal["out", "in"]
    filter: str
    qos: Literal[0, 1] = 1
    local_prefix: str = ""
    remote_prefix: str = ""

    @property
    def source_prefix(self) -> str:
        """The prefix where messages come from."""
        return self.local_prefix if self.direction == "out" else self.remote_prefix

    @property
    def target_prefix(self) -> str:
        """The prefix where they go."""
        return self.remote_prefix if self.direction == "out" else self.local_prefix

    @property
    def source(self) -> str:
        """The filter to subscribe to."""
        return self.source_prefix + self.filter

    def rewrite(self, topic: str) -> str | None:
        """Return the topic on the other side; None where the rule is not for this one."""
        if not matches(self.source, topic):
            return None
        return self.target_prefix + topic[len(self.source_prefix) :]


class Bridge(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One other broker."""

    name: Name
    host: str
    port: Annotated[int, Meta(ge=1, le=65_535)]
    rule: Annotated[tuple[Rule, ...], Meta(min_length=1)]
    client_id: str = ""
    keep_alive: Annotated[int, Meta(ge=0, le=65_535)] = 60
    username: str = ""
    password: str = ""
    password_file: str = ""
    tls: bool = False
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""

    def rules(self, direction: str) -> list[Rule]:
        """Return the rules of a direction, in the order of the file."""
        return [each for each in self.rule if each.direction == direction]

    def terms(self) -> Terms:
        """Return how to reach the broker. Raises RejectedError where a file is missing."""
        files = (self.ca_file, self.cert_file, self.key_file)
        where = f"bridge {self.name}: "
        names = (f"{where}ca_file", f"{where}cert_file", f"{where}key_file")
        return Terms(
            host=self.host,
            port=self.port,
            client_id=self.client_id or f"godwit-bridge-{self.name}",
            keep_alive=self.keep_alive,
            username=self.username,
            password=self._secret(),
            tls=tls_of(*files, names) if self.tls or any(files) else None,
            names=(f"{where}username and password", names[0], f"{where}client_id"),
        )

    def _secret(self) -> str:
        if not self.password_file:
            return self.password
        try:
            return Path(self.password_file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise RejectedError(
                f"bridge {self.name}: password_file={self.password_file} cannot be read: {error}",
                code="invalid-setting",
            ) from error


class BridgeFile(msgspec.Struct, forbid_unknown_fields=True):
    """The whole file."""

    bridge: tuple[Bridge, ...] = ()


def load_bridges(path: str) -> tuple[Bridge, ...]:
    """Return the bridges of a file; none for an empty path. Raises RejectedError naming file and field."""
    if not path:
        return ()
    try:
        bridges = msgspec.toml.decode(Path(path).read_bytes(), type=BridgeFile).bridge
    except OSError as error:
        raise RejectedError(f"BRIDGES={path} cannot be read: {error.strerror}", code="invalid-setting") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RejectedError(f"BRIDGES={path}: {error}", code="invalid-setting") from error
    fault = _fault_of(bridges)
    if fault:
        raise RejectedError(f"BRIDGES={path}: {fault}", code="invalid-setting")
    return bridges


def _fault_of(bridges: tuple[Bridge, ...]) -> str:
    names = [each.name for each in bridges]
    for name in names:
        if names.count(name) > 1:
            return f"two bridges are called {name!r}"
    for bridge in bridges:
        if bridge.password and bridge.password_file:
            return f"bridge {bridge.name}: password or password_file, not both"
        for rule in bridge.rule:
            fault = _fault_of_rule(rule)
            if fault:
                return f"bridge {bridge.name}, rule {rule.direction} {rule.filter!r}: {fault}"
        fault = _fault_between(bridge)
        if fault:
            return f"bridge {bridge.name}: {fault}"
    return ""


def _fault_of_rule(rule: Rule) -> str:
    if not is_topic_filter(rule.filter) or rule.filter.startswith("$"):
        return "is no filter that a bridge can have"
    for prefix in (rule.local_prefix, rule.remote_prefix):
        if prefix and (not is_topic_name(prefix) or prefix.startswith("$")):
            return f"{prefix!r} is no prefix of a topic"
        if prefix and not prefix.endswith("/"):
            return f"the prefix {prefix!r} has to end with /"
    return ""


def _fault_between(bridge: Bridge) -> str:
    """Say which rules would take one message twice."""
    for direction in ("out", "in"):
        rules = bridge.rules(direction)
        for at, one in enumerate(rules):
            for other in rules[at + 1 :]:
                if overlap(one.source, other.source):
                    return f"the {direction} rules {one.source!r} and {other.source!r} match the same topics"
    return ""


def overlap(one: str, other: str) -> bool:
    """Whether there is a topic that both filters match."""
    left, right = one.split("/"), other.split("/")
    for a, b in zip(left, right, strict=False):
        if "#" in (a, b):
            return True
        if a != b and "+" not in (a, b):
            return False
    if len(left) == len(right):
        return True
    longer, at = (left, len(right)) if len(left) > len(right) else (right, len(left))
    return longer[at] == "#"  # `a/#` matches `a`, too
