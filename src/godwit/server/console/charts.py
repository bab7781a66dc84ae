"""The two drawings of the console as NiceGUI elements. They draw in the browser; the server only hands over points."""

from typing import Any

from nicegui.element import Element
from nicegui.elements.echart.echart import EChart  # registers the bundled ECharts under `nicegui-echart`

__all__ = ["Curves", "EChart", "Places"]


class Curves(Element, component="static/curves.js"):
    """A panel with a chart for each chosen reading. Points are `[ms, value]`."""

    def __init__(self, units: dict[str, str], chosen: list[str]) -> None:
        super().__init__()
        self._props["readings"] = list(units)
        self._props["units"] = units
        self._props["chosen"] = chosen

    def choose(self, chosen: list[str]) -> None:
        """Show these readings."""
        self._props["chosen"] = chosen
        self.update()

    def extend(self, units: dict[str, str]) -> None:
        """Make known readings that were not there before."""
        self._props["readings"] = list(units)
        self._props["units"] = units
        self.update()

    def load(self, points: dict[str, list[list[float]]], start_ms: int, end_ms: int, *, follow: bool) -> None:
        """Replace all points. With `follow` the window slides with the clock and keeps its width."""
        self.run_method("load", points, {"from": start_ms, "to": end_ms, "follow": follow})

    def append(self, points: dict[str, list[list[Any]]]) -> None:
        """Add points of readings."""
        self.run_method("append", points)


class Places(Element, component="static/places.js"):
    """Devices on a grid of degrees. Points are `[longitude, latitude, device id, online]`."""

    def __init__(self, points: list[list[Any]]) -> None:
        super().__init__()
        self._props["points"] = points

    def load(self, points: list[list[Any]]) -> None:
        """Replace the points."""
        self.run_method("load", points)
