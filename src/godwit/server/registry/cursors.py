"""Cursors of lists: where the next page begins, as clients carry it. They were given by us, or are refused."""

import base64
import binascii
import json
from typing import Any

from godwit.contract.errors import RejectedError
from godwit.server.registry import store


def write_cursor(sort: str, value: object, device_id: str) -> str:
    """Return what opens the page after this device."""
    return base64.urlsafe_b64encode(json.dumps([sort, value, device_id]).encode()).decode().rstrip("=")


def read_cursor(cursor: str, sort: str) -> tuple[Any, str]:
    """Return the sort value and the device after which a page begins. Raises RejectedError (`invalid-cursor`)."""
    try:
        said, value, device_id = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, TypeError, binascii.Error):
        raise RejectedError("this cursor was not given by this server", code="invalid-cursor") from None
    kind = store.SORTS[sort].type.python_type
    if said != sort or not isinstance(device_id, str) or not isinstance(value, kind):
        raise RejectedError("this cursor belongs to another list", code="invalid-cursor")
    return value, device_id
