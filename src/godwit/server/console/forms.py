"""What forms say, read: fields, lists, numbers, where devices land."""

import json
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qs

from starlette.requests import Request

from godwit.contract.errors import RejectedError
from godwit.server.identity.model import Landing

DIGITS_MAX: Final = 9


def form_of(arg: str) -> dict[str, str]:
    """Return the fields of a dialogue's form. Raises RejectedError (`invalid-form`)."""
    try:
        found: Any = json.loads(arg)
    except ValueError:
        raise RejectedError("this form cannot be read: load the page again", code="invalid-form") from None
    if not isinstance(found, dict):
        raise RejectedError("this form cannot be read: load the page again", code="invalid-form")
    return {str(name): str(value).strip() for name, value in found.items()}


async def posted(request: Request, bytes_max: int) -> dict[str, str]:
    """Return the fields of a form that a browser sends by itself. Raises RejectedError (`payload-too-large`)."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > bytes_max:
            raise RejectedError(f"a form has at most {bytes_max:,} bytes", code="payload-too-large")
    return {name: values[0] for name, values in parse_qs(body.decode("utf-8", "replace")).items()}


def number(said: Mapping[str, str], name: str, otherwise: int) -> int:
    """Return a whole number of a form; `otherwise` where it says none. Raises RejectedError (`invalid-form`)."""
    text = said.get(name, "")
    if not text:
        return otherwise
    if not (text.isascii() and text.isdecimal() and len(text) <= DIGITS_MAX):
        raise RejectedError(f"{name}: a whole number of at most {DIGITS_MAX} digits", code="invalid-form")
    return int(text)


def listed(text: str) -> tuple[str, ...]:
    """Return what stands between commas."""
    return tuple(each.strip() for each in text.split(",") if each.strip())


def landing_of_form(said: dict[str, str]) -> Landing:
    """Return where devices land. Raises RejectedError (`invalid-form`)."""
    tags: dict[str, str] = {}
    for each in listed(said.get("tags", "")):
        key, colon, value = each.partition(":")
        if not key or not colon:
            raise RejectedError(f"{each[:64]!r}: a tag is key:value, such as hall:2", code="invalid-form")
        tags[key[:64]] = value[:256]
    configuration: Any = {}
    if said.get("configuration", "").strip():
        try:
            configuration = json.loads(said["configuration"])
        except ValueError as error:
            raise RejectedError(f"the configuration is not JSON: {error}", code="invalid-form") from None
        if not isinstance(configuration, dict):
            raise RejectedError("the configuration is a JSON object", code="invalid-form")
    return Landing(None, listed(said.get("groups", "")), tags, configuration)
