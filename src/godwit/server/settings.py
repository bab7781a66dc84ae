"""Settings, under the names of their environment variables, in lower case. Interface; loading is added beside it."""

from pathlib import Path

import msgspec


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What is in force. Every field is an environment variable and a line of `.env`, in upper case."""

    server_host: str = "127.0.0.1"
    server_port: int = 8080
    log_level: str = "info"
    mqtt_broker: str = "embedded"
    mqtt_host: str = "127.0.0.1"
    mqtt_port: int = 1883
    mqtts_port: int = 8883
    mqtts_host: str = "0.0.0.0"  # noqa: S104 - TLS is the listener that a fleet reaches
    mqtt_client_id: str = "godwit"
    mqtt_keep_alive: int = 60
    mqtt_clean_session: bool = True
    mqtt_username: str = ""
    mqtt_password: str = ""
    local_listener: bool = True
    database_url: str = ""
    data_dir: Path = Path("godwit-data")
    topic_layout: str = "native"
    tls_certificate: str = ""
    tls_key: str = ""
    payload_bytes_max: int = 1_048_576
    disk_free_bytes_min: int = 536_870_912
    hot_rows_max: int = 5_000_000
    seal_after_s: int = 3_600
    query_memory: str = "512MB"
