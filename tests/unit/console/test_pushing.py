"""Only what changed is pushed, and open pages share one answer."""

from godwit.server.console.cached import Cached
from godwit.server.console.screen import Screen


class Browser:
    """Stands where a NiceGUI client would: takes the scripts."""

    def __init__(self) -> None:
        self.scripts: list[str] = []

    def run_javascript(self, code: str) -> None:
        self.scripts.append(code)


def test_only_what_changed_is_sent() -> None:
    browser = Browser()
    screen = Screen(browser)  # type: ignore[arg-type]
    screen.sent("a", "1")
    screen.put("a", "1")
    screen.flush()
    assert browser.scripts == []
    screen.put("a", "2")
    screen.put("b", "3")
    screen.call("toast", "</script>")
    screen.flush()
    screen.put("a", "2")
    screen.flush()
    assert browser.scripts == ['godwit.apply({"a": "2", "b": "3"});godwit.toast("</script>")']


def test_an_answer_is_shared_for_a_while() -> None:
    now, asked = [0.0], []
    cached: Cached[int] = Cached(1.0, now=lambda: now[0])

    def ask() -> int:
        asked.append(now[0])
        return len(asked)

    assert [cached.get("k", ask), cached.get("k", ask)] == [1, 1]
    assert cached.get("other", ask) == 2
    now[0] = 1.0
    assert cached.get("k", ask) == 3
    now[0] = 1.5
    assert cached.get("k", ask) == 3
    assert cached.get("k", ask, younger_s=0.5) == 4
