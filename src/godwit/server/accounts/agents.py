"""What kind of browser asks: a session belongs to one. Versions are left out, since browsers renew themselves. Pure."""

from typing import Final

_BROWSERS: Final = (
    ("edg/", "Edge"), ("edgios/", "Edge"), ("edga/", "Edge"), ("opr/", "Opera"), ("samsungbrowser/", "Samsung"),
    ("firefox/", "Firefox"), ("fxios/", "Firefox"), ("crios/", "Chrome"), ("chrome/", "Chrome"),
    ("chromium/", "Chrome"), ("safari/", "Safari"), ("curl/", "curl"),
)  # fmt: skip
_SYSTEMS: Final = (
    ("android", "Android"), ("iphone", "iOS"), ("ipad", "iOS"), ("windows", "Windows"), ("mac os", "macOS"),
    ("cros", "ChromeOS"), ("linux", "Linux"),
)  # fmt: skip


def family(user_agent: str) -> str:
    """Return browser and system, such as `Firefox on Linux`."""
    lowered = user_agent[:512].lower()
    browser = next((name for mark, name in _BROWSERS if mark in lowered), "a program")
    system = next((name for mark, name in _SYSTEMS if mark in lowered), "")
    return f"{browser} on {system}" if system else browser
