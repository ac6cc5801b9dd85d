"""mkdocs' hook: the site's tree is the repository's.

mkdocs knows one folder of pages. Ours lie where their readers look for them: the README at the top, the chart's beside
the chart, examples in theirs. This hook hands mkdocs all of them under the repository's own paths, so links are those
that GitHub resolves, and `--strict` checks them. What a page links to that is no page (a manifest, a values file) is
copied; a folder without a README gets a list of its pages; decisions and pages that mkdocs.yml does not name are added
to the navigation.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from hack.docs.pages import ROOT, pages, repository_files

_LINK = re.compile(r"(\]\()([^)\s#:]+)(#[^)\s]*)?(\))")
_FILLED = {"Decisions": "docs/decisions", "Examples": "examples"}
"""Sections of the navigation that have all pages of a folder."""
_CODE = re.compile(r"^(```|~~~).*?^\1|`[^`\n]+`", re.MULTILINE | re.DOTALL)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Complete the navigation: what lies in the folders of examples and decisions, and whatever no section names."""
    nav: list[Any] = config.nav or []
    named = set(re.findall(r"'([\w./-]+\.md)'", repr(nav)))
    all_pages = pages(ROOT)
    rest = [page for page in all_pages if page not in named]
    for title, folder in _FILLED.items():
        inside = [page for page in rest if page.startswith(f"{folder}/")]
        rest = [page for page in rest if page not in inside]
        _section(nav, title, list(dict.fromkeys([f"{folder}/README.md", *inside])))
    _section(nav, "More", rest)
    config.nav = nav
    return config


def _section(nav: list[Any], title: str, entries: list[str]) -> None:
    """Put entries where the navigation has this title with an empty list; without entries the title goes."""
    for item in list(nav):
        for name, children in item.items() if isinstance(item, dict) else ():
            if name == title and not children:
                if entries:
                    item[name] = entries
                else:
                    nav.remove(item)
                return
            if isinstance(children, list):
                _section(children, title, entries)


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Replace mkdocs' view of docs/ by the repository; files of the theme stay."""
    ours = [file for file in files if file.generated_by is not None]
    all_pages = pages(ROOT)
    known = {*repository_files(ROOT)}
    linked = {target for page in all_pages for target in _targets(page) if target in known and target not in all_pages}
    made = [_file(config, path) for path in (*all_pages, *sorted(linked))]
    made += [_listing(config, folder, all_pages) for folder in _folders(all_pages)]
    return Files([*ours, *made])


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Links to a folder lead to its README or its list."""

    def to_page(found: re.Match[str]) -> str:
        target = _resolve(page.file.src_uri, found[2])
        if target is None or not (ROOT / target).is_dir():
            return found[0]
        return f"{found[1]}{found[2].rstrip('/')}/README.md{found[3] or ''}{found[4]}"

    return _LINK.sub(to_page, markdown)


def _file(config: MkDocsConfig, path: str) -> File:
    return _placed(File.generated(config, path, abs_src_path=str(ROOT / path)))


def _placed(file: File) -> File:
    """`docs/user-guide.md` is `user-guide.html` in the site."""
    file.dest_uri = file.dest_uri.removeprefix("docs/")
    return file


def _folders(all_pages: list[str]) -> list[str]:
    """Folders that pages link to and that have no README."""
    linked = {target for page in all_pages for target in _targets(page) if (ROOT / target).is_dir()}
    return sorted(folder for folder in linked | {*_FILLED.values()} if not (ROOT / folder / "README.md").is_file())


def _listing(config: MkDocsConfig, folder: str, all_pages: list[str]) -> File:
    inside = [page for page in all_pages if page.startswith(f"{folder}/")]
    lines = [f"* [{_title(page)}]({PurePosixPath(page).relative_to(folder)})" for page in inside]
    heading = PurePosixPath(folder).name.capitalize()
    return _placed(File.generated(config, f"{folder}/README.md", content="\n".join([f"# {heading}", "", *lines, ""])))


def _title(page: str) -> str:
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.search(r"^# (.+)$", text, re.MULTILINE)
    number = re.match(r"\d{4}", PurePosixPath(page).name)
    title = found[1] if found else page
    return title if number is None or number[0] in title else f"{number[0]}: {title}"


def _targets(page: str) -> set[str]:
    """What a page links to inside the repository."""
    prose = _CODE.sub("", (ROOT / page).read_text(encoding="utf-8"))
    found = (_resolve(page, match[2]) for match in _LINK.finditer(prose))
    return {target for target in found if target is not None}


def _resolve(page: str, link: str) -> str | None:
    """A relative link as a path from the repository's root."""
    if link.startswith("/") or "://" in link:
        return None
    target = (ROOT / page).parent.joinpath(link).resolve()
    return target.relative_to(ROOT).as_posix() if target.is_relative_to(ROOT) and target.exists() else None
