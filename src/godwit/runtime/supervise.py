"""Tasks that end loudly: a bug in a background task is logged and told, never swallowed.

The one place where a broad `except` stands: whoever supervises has to hear of everything.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

log = logging.getLogger(__name__)

OnFailure: TypeAlias = Callable[[str, BaseException], None]
"""Told the task's name and the error that ended it."""


def supervise(work: Coroutine[Any, Any, None], name: str, on_failure: OnFailure) -> asyncio.Task[None]:
    """Run `work` as a task; `on_failure(name, error)` is called when it ends by an error."""

    async def watched() -> None:
        try:
            await work
        except asyncio.CancelledError:
            raise
        except Exception as error:
            log.exception("%s ended by a bug", name)
            on_failure(name, error)

    return asyncio.get_running_loop().create_task(watched(), name=name)
