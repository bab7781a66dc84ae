"""The application of the port of devices. Errors are problem documents, as those of the API."""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from godwit.server.api import problems
from godwit.server.device_port import enrollment, est, scep, telemetry
from godwit.server.device_port.rooms import Rooms


def create_app(rooms: Rooms) -> Starlette:
    """Return the application with all routes."""
    routes = [
        *telemetry.ROUTES,
        *enrollment.ROUTES,
        *est.ROUTES,
        *scep.ROUTES,
        Route("/health/live", live, methods=["GET"]),
    ]
    app = Starlette(routes=routes)
    app.router.redirect_slashes = False
    app.state.rooms = rooms
    problems.install(app)
    return app


async def live(_request: Request) -> Response:
    """Say that the port is there, to whoever looks after it."""
    return Response(b'{"status":"live"}', media_type="application/json")
