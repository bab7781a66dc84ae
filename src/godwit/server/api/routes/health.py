"""Health, metrics, statistics, and the documents that describe the interfaces."""

from time import time_ns
from typing import Any

import msgspec
from fastapi import APIRouter, Response
from fastapi.responses import HTMLResponse, PlainTextResponse

from godwit import __version__
from godwit.contract.asyncapi import asyncapi_document, asyncapi_html
from godwit.server.api.access import Rooms, Who
from godwit.server.api.answers import answer, time_or_none
from godwit.server.api.problems import documented
from godwit.server.api.strict import StrictRoute
from godwit.server.platform import Platform
from godwit.server.registry.model import Principal

router = APIRouter(route_class=StrictRoute)


@router.get("/health/live", tags=["health"], summary="Is the process alive?")
def live() -> dict[str, str]:
    """Answer as long as the process runs."""
    return {"status": "alive"}


@router.get(
    "/health/ready", tags=["health"], summary="Does it store?", responses={503: {"description": "Not ready, and why"}}
)
def ready(rooms: Rooms) -> Response:
    """Answer 200 while messages are stored and acknowledged; 503 with the reasons while they are not."""
    trouble = rooms.trouble()
    return answer({"status": "degraded" if trouble else "ready", "trouble": trouble}, 503 if trouble else 200)


@router.get("/api/v1/stats", tags=["health"], responses=documented(), summary="Numbers of the platform")
def stats(who: Who, rooms: Rooms) -> Response:
    """Return counters of ingest, broker, store and fleet. Who may not see all tenants gets those of the own fleet."""
    document: dict[str, Any] = {
        "version": __version__,
        "started": time_or_none(rooms.started),
        "freshness": rooms.ingest.freshness(who.tenants),
        "fleet": rooms.registry.counts(who),
    }
    if who.tenants is None:
        document |= {"ingest": rooms.ingest.stats(), "broker": rooms.broker.stats(), "store": rooms.store.stats()}
    return answer(document)


def _metric(name: str, kind: str, text: str, value: float, labels: str = "") -> str:
    return f"# HELP godwit_{name} {text}\n# TYPE godwit_{name} {kind}\ngodwit_{name}{labels} {value:g}\n"


def _quantiles(name: str, text: str, values: dict[float, float]) -> str:
    lines = "".join(f'godwit_{name}{{quantile="{of:g}"}} {value:g}\n' for of, value in values.items())
    return f"# HELP godwit_{name} {text}\n# TYPE godwit_{name} gauge\n{lines}"


@router.get("/metrics", tags=["health"], response_class=PlainTextResponse, responses=documented(), summary="Prometheus")
def metrics(who: Who, rooms: Rooms) -> Response:
    """Return the platform's numbers in Prometheus' text format: of the own fleet only for who sees some tenants."""
    lines = _fleet_metrics(who, rooms)
    if who.tenants is None:
        lines = [*_platform_metrics(rooms), *lines]
    return Response("".join(lines), media_type="text/plain; version=0.0.4; charset=utf-8")


def _fleet_metrics(who: Principal, rooms: Platform) -> list[str]:
    fleet, fresh = rooms.registry.counts(who), rooms.ingest.freshness(who.tenants)
    return [
        _metric("devices", "gauge", "Devices registered.", fleet["total"]),
        _metric("devices_online", "gauge", "Devices online.", fleet["online"]),
        _metric("devices_live", "gauge", "Devices whose telemetry was stored in the last 5 minutes.", fresh.live),
        _metric("devices_catching_up", "gauge", "Live devices that deliver a backlog.", fresh.catching_up),
        _quantiles(
            "sample_age_seconds",
            "Age of the newest sample of a live device.",
            {0.5: fresh.age_p50_s, 0.95: fresh.age_p95_s},
        ),
        _quantiles(
            "behind_seconds",
            "How old the newest sample of a device that catches up was when it came.",
            {0.5: fresh.behind_p50_s, 1: fresh.behind_max_s},
        ),
    ]


def _platform_metrics(rooms: Platform) -> list[str]:
    ingest, broker, store = rooms.ingest.stats(), rooms.broker.stats(), rooms.store.stats()
    lines = [
        _metric("uptime_seconds", "gauge", "Time since start.", (time_ns() - rooms.started) / 1e9),
        _metric("ready", "gauge", "1 while messages are stored.", 0 if rooms.trouble() else 1),
        _metric("messages_total", "counter", "Messages of the contract received.", ingest.messages),
        _metric("readings_total", "counter", "Readings stored.", ingest.readings),
        _metric("duplicates_total", "counter", "Samples that had arrived before.", ingest.duplicates),
        _metric("quarantined_total", "counter", "Messages and samples refused.", ingest.quarantined),
        _metric("late_total", "counter", "Samples that came late.", ingest.late),
        _metric("commits_total", "counter", "Groups committed.", ingest.commits),
        _metric("pending_bytes", "gauge", "Received and not durable yet.", ingest.pending_bytes),
        _metric("mqtt_connections", "gauge", "Open connections.", broker.connections),
        _metric("mqtt_sessions", "gauge", "Sessions, connected or kept.", broker.sessions),
        _metric("mqtt_subscriptions", "gauge", "Subscriptions.", broker.subscriptions),
        _metric("mqtt_retained", "gauge", "Retained documents.", broker.retained),
        _metric("mqtt_forbidden_total", "counter", "Publishes without the right to.", broker.forbidden),
        _metric("mqtt_dropped_total", "counter", "Messages that a full queue did not take.", broker.dropped),
        *(
            _metric(f"mqtt_limited_{name}_total", "counter", f"Times that the limit of {name} was hit.", count)
            for name, count in broker.limited.items()
        ),
        _metric("mqtt_bytes_in_total", "counter", "Bytes from clients.", broker.bytes_in),
        _metric("mqtt_bytes_out_total", "counter", "Bytes to clients.", broker.bytes_out),
        _metric("points_hot", "gauge", "Points not sealed yet.", store.points_hot),
        _metric("points_sealed", "gauge", "Points in Parquet.", store.points_sealed),
        _metric("store_bytes", "gauge", "Bytes on disk.", store.bytes_hot + store.bytes_sealed),
    ]
    lines.append("# HELP godwit_station_seconds CPU per message and station.\n# TYPE godwit_station_seconds gauge\n")
    for name, microseconds in ingest.stations_us.items():
        lines.append(f'godwit_station_seconds{{station="{name}"}} {microseconds / 1e6:.9f}\n')
    return lines


@router.get("/asyncapi.json", tags=["documents"], summary="AsyncAPI 3 of the MQTT interface")
def asyncapi() -> dict[str, Any]:
    """Return the MQTT contract, generated from the structs that decode the messages."""
    document: dict[str, Any] = msgspec.to_builtins(asyncapi_document())
    return document


@router.get("/asyncapi", tags=["documents"], response_class=HTMLResponse, summary="The MQTT interface, to read")
def asyncapi_page() -> str:
    """Return the MQTT contract as a page."""
    return asyncapi_html(asyncapi_document())
