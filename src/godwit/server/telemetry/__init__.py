"""Telemetry at rest: columns in, columns out. Knows nothing of MQTT, HTTP or who may see what."""
