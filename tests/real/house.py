"""A platform in the process of the test, and clients of others beside it."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

sys.path.insert(0, str(Path(__file__).parent))

from fleet_certificates import Bundle, Maker, issue

from godwit.mqtt.packets import Publish
from godwit.server.accounts.principal import Principal
from godwit.server.identity import rows
from godwit.server.identity.authorities import describe
from godwit.server.identity.claims import NewClaim
from godwit.server.identity.model import AuthorityKind
from godwit.server.main import Server
from godwit.server.registry.model import Device
from godwit.server.settings import Settings
from godwit.server.storage.identity_tables import authorities
from godwit.server.storage.tables import audit

ADMIN = Principal("test")
READING = '{"readings": {"temperature": 21.5}}'


class House:
    """A platform in this process, so that a test can do what the API does, and clients beside it."""

    def __init__(self, directory: Path, ports: list[int], **settings: Any) -> None:
        http, mqtt, mqtts, device = ports
        self.directory, self.http, self.mqtt, self.mqtts = directory, http, mqtt, mqtts
        self.server = Server(
            Settings(
                data_dir=directory / "data",
                server_port=http,
                mqtt_port=mqtt,
                mqtts_port=mqtts,
                device_port=device,
                mqtt_ws_port=0,
                log_level="error",
                **settings,
            )
        )
        self.server.start()
        self.registry, self.identity = self.server._registry, self.server._identity

    def refusals(self) -> list[dict[str, Any]]:
        statement = sa.select(audit.c.after).where(audit.c.what == "mqtt.refuse")
        with self.server._database.read() as connection:
            return list(connection.execute(statement).scalars())

    def trust(self, maker: Maker) -> None:
        """Trust a factory's authority, as an operator who has proven it does."""
        authority = msgspec.structs.replace(describe(maker.certificate, AuthorityKind.FACTORY), tenant="default")
        with self.server._database.write() as connection:
            connection.execute(authorities.insert(), rows.row_of_authority(authority, None))
        self.identity.news.tell(authority)

    def post(self, topic: str) -> None:
        """Publish as the platform does."""
        road = self.server._road
        self.server._loop.soon(road.post, Publish(topic, b"{}", 1), time.time_ns())

    def claim(self, device_id: str) -> str:
        return self.identity.enrollment.claims.create(ADMIN, NewClaim(None, "", device_id=device_id))[1]

    def api_token(self, grants: dict[str, str], scopes: tuple[str, ...]) -> str:
        return self.server._accounts.tokens.create(Principal("admin"), "dashboard", grants=grants, scopes=scopes).secret

    def device(self, device_id: str, *, tenant: str = "default", **how: Any) -> Bundle:
        self.registry.create_device(ADMIN, Device(device_id, tenant))
        how["tenant"] = tenant
        return issue(self.identity, self.directory / device_id, device_id, **how)

    def client(self, program: str, *arguments: str, bundle: Bundle | None = None) -> list[str]:
        trust = ["--cafile", str(self.directory / "data" / "tls" / "ca.crt")]
        own = bundle.mosquitto if bundle else []
        begin = ["stdbuf", "-oL", program, "-h", "localhost", "-p", str(self.mqtts), "-V", "mqttv5"]
        return [*begin, *trust, *own, *arguments]

    def publish(
        self, topic: str, bundle: Bundle | None, *arguments: str, text: str = READING
    ) -> subprocess.CompletedProcess[str]:
        command = self.client("mosquitto_pub", "-q", "1", "-t", topic, "-m", text, *arguments, bundle=bundle)
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)

    def on_loopback(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [program, "-p", str(self.mqtt), "-V", "mqttv5", "-q", "1", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)


def until(program: subprocess.Popen[str], word: str) -> str:
    """Return the line of a program that has `word` in it; fails with what it said instead."""
    said = []
    while line := program.stdout.readline():
        said.append(line)
        if word in line:
            return line
    pytest.fail(f"{word} never came: {''.join(said)}")
