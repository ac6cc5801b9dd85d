"""The built site: complete, and self-sufficient."""

import re
from html.parser import HTMLParser
from pathlib import Path

from hack.docs.pages import ROOT, pages

_LOADS = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src"}


class _Loaded(HTMLParser):
    """Addresses that a browser fetches by itself when it shows a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "link" and (given.get("rel") or "") not in ("canonical", "next", "prev", "alternate"):
            self.found.add(given.get("href") or "")
        if tag in _LOADS:
            self.found.add(given.get(_LOADS[tag]) or "")


def test_nothing_is_fetched_from_other_servers(site: Path) -> None:
    loaded = _Loaded()
    styles = [path.read_text() for path in site.rglob("*.css")]
    for page in site.rglob("*.html"):
        loaded.feed(page.read_text())
    named = loaded.found | {url for style in styles for url in re.findall(r"url\(['\"]?([^'\")]+)", style)}
    assert named
    assert [url for url in sorted(named) if url.startswith(("http:", "https:", "//"))] == []


def test_every_page_is_in_the_site(site: Path) -> None:
    titles = {page: re.search(r"^# (.+)$", (ROOT / page).read_text(), re.MULTILINE) for page in pages()}
    built = " ".join(path.read_text() for path in site.rglob("*.html"))
    assert [page for page, title in titles.items() if title and _plain(title[1]) not in _plain(built)] == []


def test_markers_are_not_shown(site: Path) -> None:
    shown = [path.name for path in site.rglob("*.html") if re.search(r"&lt;!-- (not )?run:", path.read_text())]
    # The page that explains markers shows them.
    assert shown == ["CONTRIBUTING.html"]


def _plain(text: str) -> str:
    """Letters alone: quotes and code are written differently in HTML."""
    return re.sub(r"&\w+;|<[^>]+>|\W", "", text)
