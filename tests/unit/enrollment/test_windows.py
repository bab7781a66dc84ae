"""Nothing slips between a decision and the certificate: on SQLite."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "registry"))
from windows import WindowSuite


class TestSqlite(WindowSuite):
    """The suite on SQLite."""

    @pytest.fixture
    def database(self, rig):
        return rig.database

    @pytest.fixture
    def registry(self, rig):
        return rig.registry

    @pytest.fixture
    def identity(self, rig):
        return rig.identity
