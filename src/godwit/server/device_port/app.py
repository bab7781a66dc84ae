"""The application of the port of devices. Errors are problem documents, as those of the API."""

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from godwit import __version__
from godwit.server.api import problems
from godwit.server.api.routes import enroll as grants
from godwit.server.api.routes import pki
from godwit.server.device_port import enrollment, est, published, scep, telemetry
from godwit.server.device_port.rooms import Rooms
from godwit.server.platform import Platform


def create_app(rooms: Rooms, platform: Platform) -> FastAPI:
    """Return the application with all routes.

    Those of the API that are there for devices are here too: the console may be on loopback.
    """
    app = FastAPI(title="godwit for devices", version=__version__, docs_url=None, redoc_url=None, openapi_url=None)
    app.router.redirect_slashes = False
    app.state.rooms, app.state.platform = rooms, platform
    app.router.routes[:] = [
        *telemetry.ROUTES,
        *enrollment.ROUTES,
        *est.ROUTES,
        *scep.ROUTES,
        *published.ROUTES,
        Route("/health/live", live, methods=["GET"]),
    ]
    app.include_router(grants.router)
    app.include_router(pki.router)
    problems.install(app)
    return app


async def live(_request: Request) -> Response:
    """Say that the port is there, to whoever looks after it."""
    return Response(b'{"status":"live"}', media_type="application/json")
