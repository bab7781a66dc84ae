"""A platform without sockets: real rooms, a real group commit on its own loop, the API over ASGI."""

from collections.abc import Iterator
from pathlib import Path
from time import time_ns

import pytest
from starlette.testclient import TestClient

from godwit.contract.topics import topics_for
from godwit.server.accounts.room import Accounts
from godwit.server.api.app import create_api
from godwit.server.api.encoder import Encoders
from godwit.server.broker.authentication import PasswordAuthenticator
from godwit.server.broker.broker import Broker
from godwit.server.broker.door import ThreadSafeDoor
from godwit.server.broker.journal import Journal
from godwit.server.broker.listener import Server
from godwit.server.broker_loop import BrokerLoop
from godwit.server.identity.room import open_identity
from godwit.server.ingest.commit import GroupCommit
from godwit.server.ingest.directory import Directory
from godwit.server.ingest.registration import Registration
from godwit.server.ingest.service import Ingest
from godwit.server.ingest.trace import Trace
from godwit.server.platform import Platform
from godwit.server.registry.presence import PresenceBoard
from godwit.server.registry.service import Registry
from godwit.server.settings import Settings
from godwit.server.storage.database import Database
from godwit.server.storage.engine import open_engine
from godwit.server.telemetry.duckdb import DuckDBStore
from godwit.server.telemetry.live import LiveFeed


class Rig:
    """The rooms, wired as `godwit.server.main` wires them, less listeners and housekeeping."""

    def __init__(self, directory: Path) -> None:
        self.database = Database(open_engine("", directory))
        self.tokens = self.accounts = Accounts(self.database, directory)
        self.registry = Registry(self.database)
        self.identity = open_identity(self.database, self.registry, directory)
        self.store = DuckDBStore(directory / "telemetry")
        self.directory, topics, live = Directory(), topics_for("native"), LiveFeed()
        self.trace = Trace()
        board = PresenceBoard([], time_ns())
        self.ingest = Ingest(self.store, self.directory, topics, board, live, trace=self.trace)
        self.ingest.recover()
        self.loop = BrokerLoop()
        self.registry.on_change(lambda changed: self.loop.soon(self.directory.learn, changed))
        self.journal = Journal(directory / "broker.sqlite")
        self.loop.call(self._start(topics))
        self.platform = Platform(
            settings=Settings(data_dir=directory), registry=self.registry, database=self.database,
            identity=self.identity, accounts=self.accounts, store=self.store, ingest=self.ingest, live=live,
            broker=ThreadSafeDoor(self.broker, self.server.addresses, self.loop.loop), started=time_ns(),
            admin_token=self.tokens.admin_token, sign_in_token="",
            trace=self.trace,
        )  # fmt: skip
        self.encoders = Encoders()
        self.app = create_api(self.platform, self.tokens, self.encoders)

    async def _start(self, topics) -> None:
        self.group = GroupCommit([Registration(self.directory, self.registry), self.ingest, self.journal])
        self.ingest.attach(self.loop.loop, self.group)
        self.broker = Broker(
            topics, self.ingest, self.group, self.journal, PasswordAuthenticator(), trace=self.trace, now=time_ns()
        )
        self.server = Server(self.broker)
        self.task = self.loop.loop.create_task(self.group.run())

    def stop(self) -> None:
        async def end() -> None:
            await self.server.close()
            await self.group.close()
            await self.task

        self.encoders.close()
        self.loop.call(end())
        self.loop.stop()
        self.group.shut()
        self.journal.close()
        self.store.close()


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    rig = Rig(tmp_path_factory.mktemp("api"))
    yield rig
    rig.stop()


@pytest.fixture
def api(rig: Rig) -> TestClient:
    return TestClient(
        rig.app, headers={"Authorization": f"Bearer {rig.tokens.admin_token}"}, raise_server_exceptions=False
    )
