"""How far a simulation is: a bar on a terminal, a line now and then elsewhere, nothing when quiet."""

import sys
from time import monotonic
from types import TracebackType
from typing import IO, TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

LINE_EVERY_S: Final = 5.0
BAR_EVERY_S: Final = 0.1


class Progress:
    """Counts what was acknowledged. `total` None: endless."""

    def __init__(self, noun: str, total: int | None, stream: IO[str] = sys.stderr, *, is_quiet: bool = False) -> None:
        self._noun, self._total, self._stream, self._is_quiet = noun, total, stream, is_quiet
        self._bar: RichProgress | None = None
        self._task: TaskID | None = None
        self._began = self._shown = 0.0
        self._state = ""
        self.done = 0

    def __enter__(self) -> Self:
        self._began = self._shown = monotonic()
        if not self._is_quiet and self._stream.isatty():
            self._open_bar()
        return self

    def _open_bar(self) -> None:
        try:
            from rich import progress  # noqa: PLC0415 - heavy, and not in the base install
            from rich.console import Console  # noqa: PLC0415
        except ModuleNotFoundError:
            return
        columns = (
            (progress.BarColumn(), progress.MofNCompleteColumn(), progress.TimeRemainingColumn())
            if self._total
            else (progress.SpinnerColumn(), progress.MofNCompleteColumn())
        )
        text = progress.TextColumn("{task.description}")
        self._bar = progress.Progress(text, *columns, console=Console(file=self._stream), transient=True)
        self._task = self._bar.add_task(self._noun, total=self._total)
        self._bar.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    @property
    def elapsed_s(self) -> float:
        """Return the time since the beginning."""
        return monotonic() - self._began

    def advance(self, count: int) -> None:
        """Count `count` more as acknowledged; shows it when it is time to."""
        self.done += count
        now = monotonic()
        if now - self._shown >= (LINE_EVERY_S if self._bar is None else BAR_EVERY_S) or self.done == self._total:
            self._shown = now
            self._show()

    def say(self, state: str) -> None:
        """Say what is the matter, such as `waiting for the broker`; empty: nothing any more."""
        if state != self._state:
            self._state = state
            self._show()

    def _show(self) -> None:
        if self._is_quiet:
            if self._state:
                print(f"godwit simulate: {self._state}", file=self._stream, flush=True)
        elif self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self.done, description=self._state or self._noun)
        else:
            of = f" of {self._total:,}" if self._total else ""
            state = f" ({self._state})" if self._state else ""
            print(f"{self.done:,}{of} {self._noun} stored{state}", file=self._stream, flush=True)
