"""The design in one place: colours as CSS custom properties, light and dark, and the order of chart colours.

`static/console.css` uses these names and no colour of its own. Text on `surface` and `ground` keeps a contrast of at
least 4.5 to 1 in both modes (WCAG 2.2, 1.4.3).
"""

from typing import Final

LIGHT: Final = {
    "ground": "#f6f7f7",
    "surface": "#ffffff",
    "raised": "#ffffff",
    "sunken": "#eef1f1",
    "line": "#e1e6e6",
    "line-strong": "#c9d1d1",
    "ink": "#14201f",
    "ink-soft": "#4a5958",
    "ink-faint": "#616f6d",
    "accent": "#0b6e69",
    "accent-ink": "#ffffff",
    "accent-wash": "#e0f1ef",
    "good": "#1d7a45",
    "good-wash": "#e2f4e8",
    "warn": "#8f5a00",
    "warn-wash": "#fdf1d8",
    "bad": "#b3352b",
    "bad-wash": "#fce8e5",
    "idle": "#8a9796",
    "shadow": "0 1px 2px rgb(16 32 31 / .05), 0 4px 16px rgb(16 32 31 / .04)",
    "chart-1": "#0f8a83",
    "chart-2": "#c2612c",
    "chart-3": "#5b63c9",
    "chart-4": "#b08a10",
    "chart-5": "#b3487e",
    "chart-6": "#3d82b8",
}

DARK: Final = {
    "ground": "#0d1314",
    "surface": "#141c1d",
    "raised": "#1a2425",
    "sunken": "#0f1718",
    "line": "#233031",
    "line-strong": "#374748",
    "ink": "#e6eeed",
    "ink-soft": "#a9b8b6",
    "ink-faint": "#889a98",
    "accent": "#4fc7bd",
    "accent-ink": "#06201e",
    "accent-wash": "#12312f",
    "good": "#62cf8c",
    "good-wash": "#13301f",
    "warn": "#e8b458",
    "warn-wash": "#33270f",
    "bad": "#f48a7e",
    "bad-wash": "#3a1d1a",
    "idle": "#65777a",
    "shadow": "0 1px 2px rgb(0 0 0 / .35)",
    "chart-1": "#4fc7bd",
    "chart-2": "#ee9a6a",
    "chart-3": "#9aa2f5",
    "chart-4": "#dcbc4f",
    "chart-5": "#e58bb8",
    "chart-6": "#7cbbe8",
}


def _block(selector: str, colours: dict[str, str], scheme: str) -> str:
    body = "".join(f"--{name}:{value};" for name, value in colours.items())
    return f"{selector}{{color-scheme:{scheme};{body}}}"


def css() -> str:
    """Return the custom properties: light, dark by the system's wish, and either by the person's choice."""
    system = _block(":root:not([data-theme=light])", DARK, "dark")
    return "".join(
        (
            _block(":root", LIGHT, "light"),
            f"@media (prefers-color-scheme: dark){{{system}}}",
            _block(":root[data-theme=dark]", DARK, "dark"),
        )
    )


BEFORE_PAINT: Final = (
    "(()=>{try{const t=localStorage.getItem('godwit-theme');if(t)document.documentElement.dataset.theme=t}catch{}})()"
)
"""Script for the head: a person's choice of theme applies before anything is painted."""
