"""What no route takes, refused before a route runs: bodies too large, or JSON that other parsers read otherwise.

FastAPI reads a body before it asks who sends it, and takes NaN, repeated keys and NUL; PostgreSQL and JSON do not.
"""

import json
from collections.abc import Callable, Coroutine
from math import isfinite
from typing import Any, Final

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict

from godwit.contract.duplicate_keys import check_depth
from godwit.contract.errors import MalformedError
from godwit.contract.limits import PAYLOAD_BYTES_MAX
from godwit.server.api.access import OPEN, admit, role_of
from godwit.server.api.bodies import read_body

_INTEGER_MAX: Final = 2**63


class Body(BaseModel):
    """A JSON body: no unknown fields, no conversions such as "1" to 1, no NaN."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class StrictRoute(APIRoute):
    """A route that asks who asks before it reads anything else, and reads only what is unambiguous."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler with the checks before it. Raises RuntimeError for a route that declares no role."""
        handle = super().get_route_handler()
        role = role_of(self.dependant)
        if role is None:
            if self.path not in OPEN:
                raise RuntimeError(f"{self.path} says no role: let it ask for Who, Operator or Admin (api/access.py)")
            return handle
        needed, has_body = role, self.body_field is not None

        async def checked(request: Request) -> Response:
            await admit(request, needed)
            if has_body:
                # What was read is kept by the request: FastAPI parses the same bytes.
                request._body = await read_body(request, PAYLOAD_BYTES_MAX)  # noqa: SLF001 - Starlette has no other way to bound a body
                if request._body:  # noqa: SLF001
                    check_json(request._body)  # noqa: SLF001
            return await handle(request)

        return checked


def check_json(payload: bytes) -> None:
    """Raise MalformedError unless `payload` is JSON that every parser reads alike, and every store can keep."""
    try:
        tree = json.loads(payload.decode(), object_pairs_hook=_unique, parse_constant=_no_number)
    except RecursionError:
        raise MalformedError("objects are nested too deep", code="nesting-too-deep") from None
    except ValueError as error:
        raise MalformedError(f"not JSON: {error}"[:200], code="malformed-json") from None
    check_depth(tree)
    _check_leaves(tree)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise MalformedError(f"the key {key[:64]!r} stands twice in one object", code="duplicate-key")
        found[key] = value
    return found


def _no_number(text: str) -> None:
    raise MalformedError(f"{text} is no JSON number", code="not-finite")


def _check_leaves(tree: object) -> None:
    left: list[tuple[str, object]] = [("", tree)]
    while left:
        where, each = left.pop()
        if isinstance(each, dict):
            for key, value in each.items():
                check_text(key, f"the key {key[:64]!r}")
                left.append((f"{where}.{key[:64]}"[-256:], value))
        elif isinstance(each, list):
            left.extend((f"{where}.{at}"[-256:], value) for at, value in enumerate(each))
        elif isinstance(each, str):
            check_text(each, where.removeprefix("."))
        elif isinstance(each, float) and not isfinite(each):
            raise MalformedError(f"{where.removeprefix('.')}: larger than a double holds", code="not-finite")
        elif isinstance(each, int) and not -_INTEGER_MAX <= each < _INTEGER_MAX:
            raise MalformedError(f"{where.removeprefix('.')}: an integer has at most 64 bits", code="out-of-range")


def check_text(text: str, name: str) -> None:
    """Raise MalformedError (`invalid-text`) for text with NUL, which PostgreSQL cannot keep, or half a character."""
    if "\0" in text:
        raise MalformedError(f"{name}: NUL characters are not taken", code="invalid-text")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise MalformedError(f"{name}: half of a surrogate pair", code="invalid-text") from None
