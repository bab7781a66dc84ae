"""Pushes to one open page what has changed since the last push, in one message, and nothing else.

Parts of a page have an id; `put` says what a part should hold. What it already holds is not sent again.
"""

import json

from nicegui import Client


class Screen:
    """What one browser tab shows, as far as it was pushed."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._shown: dict[str, str] = {}
        self._changed: dict[str, str] = {}
        self._calls: list[str] = []

    def sent(self, part: str, html: str) -> str:
        """Remember that the page was built with `html` in `part`; returns it wrapped in the element of that id."""
        self._shown[part] = html
        return f'<div id="{part}" style="display:contents">{html}</div>'

    def put(self, part: str, html: str) -> None:
        """Let `part` hold `html` after the next flush."""
        if self._shown.get(part) != html:
            self._shown[part] = html
            self._changed[part] = html

    def call(self, function: str, *arguments: object) -> None:
        """Call `godwit.<function>` in the browser after the next flush."""
        self._calls.append(f"godwit.{function}({','.join(json.dumps(each) for each in arguments)})")

    def open_sheet(self, html: str) -> None:
        """Show a dialogue."""
        self.put("sheet-in", html)
        self.call("sheet", True)  # noqa: FBT003 - the argument of a function in the browser

    def close_sheet(self, told: str) -> None:
        """Close the dialogue, and tell what came of it."""
        self.call("sheet", False)  # noqa: FBT003 - as above
        self.call("toast", told)

    def flush(self) -> None:
        """Send what has changed, if anything has."""
        if self._changed:
            self._calls.insert(0, f"godwit.apply({json.dumps(self._changed)})")
            self._changed = {}
        if self._calls:
            self._client.run_javascript(";".join(self._calls))
            self._calls = []
