"""Examples of every message, for the AsyncAPI document. A test decodes each with the decoder of its channel."""

from typing import Any, Final

EXAMPLES: Final[dict[str, dict[str, dict[str, Any]]]] = {
    "TelemetryData": {
        "sensors": {
            "deviceId": "sensor001",
            "timestamp": "2024-01-15T10:30:00Z",
            "sensors": {"temperature": 23.5, "humidity": 65.2, "pressure": 1013.25, "battery": 87.3},
            "location": {"latitude": 37.7749, "longitude": -122.4194},
        },
        "native": {
            "deviceId": "machine-1",
            "schemaVersion": 1,
            "stream": "main",
            "epoch": "9f3c2a7be1d04c55",
            "seq": 1200,
            "samples": [
                {"timestamp": "2024-01-15T10:30:00Z", "readings": {"temperature": {"value": 74.9, "unit": "Cel"}}},
                {"timestamp": "2024-01-15T10:30:02Z", "readings": {"temperature": 75.1}},
            ],
        },
        "gaps": {
            "stream": "main",
            "epoch": "9f3c2a7be1d04c55",
            "gaps": [{"first": 100, "last": 899, "reason": "evicted"}],
        },
        "compared": {
            "stream": "main",
            "epoch": "9f3c2a7be1d04c55",
            "seq": 1202,
            "sentAt": "2024-01-15T10:30:06Z",
            "sync": [1705314605000000000, 1705314605020000000, 1705314605030000000, 1705314605050000000],
            "readings": {"temperature": 75.2},
        },
        "withoutClock": {
            "stream": "main",
            "epoch": "9f3c2a7be1d04c55",
            "seq": 0,
            "clock": "uptime",
            "bootId": "b7",
            "sentAt": 93000000000,
            "samples": [{"timestamp": 61000000000, "readings": {"temperature": 21.5}}],
        },
        "flat": {"sensor_id": "sensor001", "temperature": 23.5, "humidity": 65.2, "timestamp": 1705314600},
        "aggregate": {"min": 21.0, "max": 24.5, "avg": 23.1, "count": 60, "timestamp": 1705314600},
    },
    "StoredUpTo": {
        "stored": {
            "stream": "main",
            "epoch": "9f3c2a7be1d04c55",
            "seq": 1201,
            "deviceSent": 1705314605000000000,
            "serverReceived": 1705314605020000000,
            "serverSent": 1705314605030000000,
        }
    },
    "DeviceStatus": {
        "online": {
            "deviceId": "sensor001",
            "status": "online",
            "health": {"cpu": 45.2, "memory": 67.8, "disk": 23.1, "uptime": 86400},
            "lastSeen": "2024-01-15T10:30:00Z",
        },
        "lastWill": {"status": "offline"},
    },
    "DeviceEvent": {
        "boot": {"event": "boot", "timestamp": "2024-01-15T10:30:00Z", "details": {"reason": "power"}},
    },
    "DeviceCommand": {
        "changeInterval": {
            "commandId": "0b7d0f0e-0c3a-4a53-9a43-6a3f4c2f9d11",
            "deviceId": "sensor001",
            "command": "change_interval",
            "parameters": {"seconds": 30},
            "createdAt": "2024-01-15T10:30:00Z",
            "expiresAt": "2024-01-16T10:30:00Z",
            "priority": "normal",
        },
    },
    "CommandResult": {
        "running": {"commandId": "0b7d0f0e-0c3a-4a53-9a43-6a3f4c2f9d11", "status": "running", "progress": 40},
    },
    "TwinDocument": {"interval": {"state": {"reportingInterval": 60}, "version": 7}},
    "FirmwareOffer": {
        "offer": {
            "releaseId": "r-42",
            "version": "2.1.0",
            "manifestUrl": "firmware/r-42/manifest.json",
            "size": 524288,
        },
    },
    "FirmwareProgress": {"downloading": {"releaseId": "r-42", "state": "downloading", "progress": 35}},
    "FirmwareChunk": {"wanted": {"releaseId": "r-42", "offset": 65536, "length": 4096}},
    "Notice": {
        "quarantined": {"code": "time-in-future", "message": "A timestamp lies in the future."},
        "gapWanted": {
            "code": "gap-wanted",
            "message": "Samples are missing: send them again, or say in a gap record that they are gone.",
            "details": {"stream": "main", "epoch": "9f3c2a7be1d04c55", "ranges": [[100, 299], [305, 305]]},
        },
        "cloneDetected": {
            "code": "clone-detected",
            "message": "These numbers were used before, for other samples: begin a new epoch.",
            "details": {"stream": "main", "epoch": "9f3c2a7be1d04c55", "first": 300, "keptAs": "9f3c2a7be1d04c55~2"},
        },
        "newCa": {
            "code": "new-ca",
            "message": "Another authority is to be trusted: keep it, and say so in the next status.",
            "details": {"authorities": ["-----BEGIN CERTIFICATE-----\n..."], "announced": "5f" * 32},
        },
        "renew": {
            "code": "renew",
            "message": "Renew the certificate now, with a new key.",
            "details": {"reason": "rollover", "authority": "5f" * 32},
        },
    },
    "EnrollmentRequest": {
        "request": {"deviceId": "sensor001", "request": "-----BEGIN CERTIFICATE REQUEST-----\n...", "claim": "K7QX-22"},
    },
    "EnrollmentGrant": {
        "granted": {"deviceId": "sensor001", "certificate": "-----BEGIN CERTIFICATE-----\n...", "chain": []},
    },
    "CriticalAlert": {
        "firing": {
            "alertId": "a-17",
            "severity": "critical",
            "message": "temperature above 80 Cel",
            "timestamp": "2024-01-15T10:30:00Z",
            "deviceId": "sensor001",
        },
    },
    "SystemHeartbeat": {
        "healthy": {
            "timestamp": "2024-01-15T10:30:00Z",
            "status": "healthy",
            "version": "0.1.0",
            "uptime": 86400.0,
            "connectedDevices": 12,
            "messagesPerSecond": 6.2,
            "trouble": [],
        },
    },
}
