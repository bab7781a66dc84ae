"""A person at a browser, and what devices say meanwhile."""

import json
import subprocess
from typing import Any

from playwright.sync_api import Browser, Page


class Visit:
    """A signed-in tab that notes what goes wrong in it, and where it asks for things."""

    def __init__(self, browser: Browser, platform: Any, **how: Any) -> None:
        self.base = f"http://127.0.0.1:{platform.http}"
        self.page: Page = browser.new_context(**how).new_page()
        self.complaints: list[str] = []
        self.hosts: set[str] = set()
        self.page.on("console", lambda said: said.type in {"error", "warning"} and self.complaints.append(said.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.hosts.add(request.url.split("/")[2]))
        self.page.on("websocket", lambda socket: self.hosts.add(socket.url.split("/")[2]))

    def sign_in(self, token: str) -> None:
        self.page.goto(f"{self.base}/sign-in")
        self.page.get_by_label("Admin token").fill(token)
        self.page.get_by_role("button", name="Sign in with the token").click()
        self.page.wait_for_url(f"{self.base}/")

    def show(self, path: str) -> Page:
        """Open a page, and wait until it is alive: its socket is connected."""
        self.page.goto(self.base + path)
        self.page.wait_for_function("window.socket?.connected && document.querySelector('.wrap')")
        return self.page


def say(platform: Any, topic: str, payload: str) -> None:
    subprocess.run(
        ["mosquitto_pub", "-h", "127.0.0.1", "-p", str(platform.mqtt), "-q", "1", "-t", topic, "-m", payload],
        check=True,
        timeout=10,
    )


def telemetry(**sensors: float) -> str:
    return json.dumps({"sensors": sensors})
