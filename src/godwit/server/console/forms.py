"""What the forms of dialogues say, read: fields, lists, where devices land."""

import json
from typing import Any

from godwit.contract.errors import RejectedError
from godwit.server.identity.model import Landing


def form_of(arg: str) -> dict[str, str]:
    """Return the fields of a form. Raises RejectedError (`invalid-form`)."""
    try:
        found: Any = json.loads(arg)
    except ValueError:
        raise RejectedError("this form cannot be read: load the page again", code="invalid-form") from None
    if not isinstance(found, dict):
        raise RejectedError("this form cannot be read: load the page again", code="invalid-form")
    return {str(name): str(value) for name, value in found.items()}


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
