"""Does the first `.env` work as it stands, and does every bad value name itself?"""

from pathlib import Path

import pytest

from godwit.contract.errors import RejectedError
from godwit.server.settings import Settings, load, shown
from godwit.server.storage.lock import DataDirLock

SEED_ENV = """
# Server Configuration
SERVER_HOST=0.0.0.0
SERVER_PORT=8080
LOG_LEVEL=info

# MQTT Configuration
MQTT_HOST=localhost
MQTT_PORT=1883
MQTT_CLIENT_ID=iot-device-manager
MQTT_KEEP_ALIVE=30
MQTT_CLEAN_SESSION=true

# Optional: MQTT Authentication
MQTT_USERNAME=
MQTT_PASSWORD=

# Database Configuration (for storing telemetry)
DATABASE_URL=postgresql://user:password@localhost/iot_db
"""


def test_the_seeds_env_works_as_it_stands(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text(SEED_ENV)
    loaded = load({}, path, {})
    settings = loaded.settings
    assert (settings.server_host, settings.server_port, settings.mqtt_host) == ("0.0.0.0", 8080, "localhost")
    assert (settings.mqtt_client_id, settings.mqtt_keep_alive, settings.mqtt_username) == ("iot-device-manager", 30, "")
    assert settings.database_url == "postgresql+psycopg://user:password@localhost/iot_db"
    assert loaded.sources["mqtt_username"] == "default"
    assert loaded.sources["mqtt_port"] == str(path)
    assert "password" not in shown(settings, "database_url")


def test_flags_win_over_environment_over_file(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text('export MQTT_PORT="1111"\nMQTTS_PORT=2222 # comment\nSERVER_PORT=3333\n')
    loaded = load({"MQTTS_PORT": "4444", "SERVER_PORT": "5555"}, path, {"SERVER_PORT": "6666"})
    settings = loaded.settings
    assert (settings.mqtt_port, settings.mqtts_port, settings.server_port) == (1111, 4444, 6666)
    assert loaded.sources["server_port"] == "flag"
    assert loaded.sources["mqtts_port"] == "environment"
    assert load({}, None, {}).settings == Settings()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SERVER_PORT", "0"), ("SERVER_PORT", "70000"), ("MQTT_PORT", "mqtt"), ("LOCAL_LISTENER", "maybe"),
        ("MQTT_BROKER", "mosquitto"), ("DATABASE_URL", "mysql://x"), ("LOG_LEVEL", "loud"), ("MQTT_KEEP_ALIVE", "-1"),
        ("MQTT_WS_PORT", "70000"),
    ],
)  # fmt: skip
def test_a_bad_value_names_itself(variable: str, value: str) -> None:
    with pytest.raises(RejectedError) as caught:
        load({variable: value}, None, {})
    assert caught.value.code == "invalid-setting"
    assert variable in str(caught.value)
    assert "environment" in str(caught.value)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+asyncpg", "postgresql+psycopg2"])
def test_every_usual_spelling_of_the_scheme(scheme: str) -> None:
    found = load({"DATABASE_URL": f"{scheme}://u@h/d"}, None, {}).settings.database_url
    assert found == "postgresql+psycopg://u@h/d"


def test_one_platform_a_data_directory(tmp_path: Path) -> None:
    lock = DataDirLock(tmp_path)
    with pytest.raises(RejectedError, match="already runs on"):
        DataDirLock(tmp_path)
    lock.release()
    DataDirLock(tmp_path).release()


def test_operations_lists_every_setting() -> None:
    text = (Path(__file__).parents[3] / "docs" / "operations.md").read_text()
    missing = [name.upper() for name in Settings.__struct_fields__ if f"`{name.upper()}`" not in text]
    assert missing == []
