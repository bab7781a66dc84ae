"""Bodies of requests, bounded while they come."""

from starlette.requests import Request

from godwit.contract import codes
from godwit.contract.errors import RejectedError


async def read_body(request: Request, bytes_max: int) -> bytes:
    """Return the body. Raises RejectedError (`payload-too-large`) as soon as it is too large."""
    told = request.headers.get("content-length", "")
    if told.isdigit() and int(told) > bytes_max:
        raise _too_large(bytes_max)
    pieces: list[bytes] = []
    length = 0
    async for piece in request.stream():
        length += len(piece)
        if length > bytes_max:
            raise _too_large(bytes_max)
        pieces.append(piece)
    return b"".join(pieces)


def _too_large(bytes_max: int) -> RejectedError:
    return RejectedError(f"the body has at most {bytes_max} bytes", code=codes.PAYLOAD_TOO_LARGE)
