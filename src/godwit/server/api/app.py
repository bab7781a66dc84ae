"""The front application: routes, problems, OpenAPI. The console is mounted beside them by `main`."""

from typing import Any

from fastapi import Depends, FastAPI
from fastapi.openapi.utils import get_openapi

from godwit import __version__
from godwit.server.accounts.room import Accounts
from godwit.server.api import problems
from godwit.server.api.access import refuse_unknown_queries
from godwit.server.api.encoder import Encoders
from godwit.server.api.headers import SecureHeaders
from godwit.server.api.request_rates import RequestRates
from godwit.server.api.routes import (
    account,
    audit_log,
    authorities,
    broker,
    certificates,
    claims,
    clocks,
    custody,
    device_credentials,
    devices,
    enroll,
    foreign_broker,
    health,
    live,
    messages,
    pki,
    quarantine,
    security,
    telemetry,
    tenants,
    trace,
    types,
    users,
)
from godwit.server.platform import Platform

_ABOUT = (
    "Devices, their telemetry and what became of it. Errors are problem documents (RFC 9457) with a stable `code`. "
    "All routes but health need a bearer token: an API token, or the administrator's in DATA_DIR/admin-token."
)


def create_api(platform: Platform, accounts: Accounts, encoders: Encoders) -> FastAPI:
    """Return the application with all API routes."""
    app = FastAPI(title="godwit", version=__version__, description=_ABOUT, docs_url=None, redoc_url=None)
    app.state.platform, app.state.tokens, app.state.encoders = platform, accounts, encoders
    app.state.request_rates = RequestRates(platform.registry.tenancy.quota_of)
    problems.install(app)
    app.add_middleware(SecureHeaders)
    strict = [Depends(refuse_unknown_queries)]
    rooms = (
        health, broker, custody, claims, devices, device_credentials, enroll, foreign_broker, telemetry,
        clocks, types, quarantine, certificates, messages, security, users, account, audit_log, tenants, authorities,
    )  # fmt: skip
    for each in rooms:
        app.include_router(each.router, dependencies=strict)
    app.include_router(pki.router, dependencies=strict)
    app.include_router(live.router)
    app.include_router(trace.router)

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(title=app.title, version=app.version, description=_ABOUT, routes=app.routes)
            schema = problems.Problem.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            schemas.update(schema.pop("$defs", {}))
            schemas["Problem"] = schema
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
    return app
