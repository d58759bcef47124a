"""Opens README and the built documentation in headless Chromium, as a reader on a phone and on a laptop.

    python tools/docs_in_browser.py [--only PART ...] [--pictures FOLDER]

Builds the site strictly, and renders README and README.zh-CN as GitHub does (without its style). Each page is opened
390 and 1280 pixels wide, in light and in dark colours. A page fails if a link to a page, a file or an anchor of the
project leads nowhere, if a picture does not load, if it scrolls sideways, or if axe-core finds a serious or critical
violation. The exit status is 1 after any of these. `--only`: pages whose path contains PART. `--pictures`: screenshots
go to FOLDER.

Needs the extra `dev`, Chromium and its driver.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import unquote

import markdown

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.browser import LAPTOP, PHONE, Page, browse  # noqa: E402

#: Sizes in pixels, and whether the system asks for dark colours.
VIEWS: Final = {"phone": (PHONE, False), "laptop": (LAPTOP, False), "laptop-dark": (LAPTOP, True)}
READMES: Final = {"README.md": "en", "README.zh-CN.md": "zh-CN"}
#: GitHub shows tables and code that are too wide in boxes that scroll, and pictures no wider than the page.
_STYLE: Final = """body {max-width: 60rem; margin: auto; padding: 1rem; font: 16px/1.5 sans-serif}
body {overflow-wrap: anywhere} img {max-width: 100%} pre, table {display: block; overflow-x: auto} a {color: #0550ae}"""
#: The pictures that do not load, the links of the page, and how far it scrolls sideways.
_LOOK: Final = """return {
  pictures: [...document.images].filter(i => i.getClientRects().length && !i.naturalWidth).map(i => i.src),
  links: [...document.querySelectorAll('a[href]')].map(a => a.href),
  sideways: document.documentElement.scrollWidth - document.documentElement.clientWidth,
}"""


def render_readme(name: str, folder: Path) -> Path:
    """README as a page in the root of a copy of the project's files, so that its links can be followed."""
    text = (ROOT / name).read_text(encoding="utf-8")
    body = markdown.markdown(text, extensions=["tables", "fenced_code", "toc", "md_in_html"])
    page = f'<!doctype html><html lang="{READMES[name]}"><meta charset="utf-8"><title>{name}</title>'
    page += f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style><main>{body}</main></html>'
    path = folder / f"{name}.html"
    path.write_text(page.replace("<pre>", '<pre tabindex="0">'), encoding="utf-8")
    return path


def build(folder: Path) -> list[Path]:
    """The site and the READMEs in `folder`: all pages.

    Raises:
        SystemExit: mkdocs reports a warning.
    """
    site, files = folder / "site", folder / "project"
    built = subprocess.run([sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", site], cwd=ROOT)
    if built.returncode:
        raise SystemExit(built.returncode)
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in listed.splitlines():
        (files / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, files / name)
    readmes = [render_readme(name, files) for name in READMES]
    return [*readmes, *(path for path in sorted(site.rglob("*.html")) if path.name != "404.html")]


def broken_links(links: Sequence[str], anchors: Callable[[Path], set[str]]) -> Iterator[str]:
    """The links to files that are missing, and to anchors that the file does not have."""
    for link in sorted({link for link in links if link.startswith("file:")}):
        place, _, anchor = unquote(link.removeprefix("file://")).partition("#")
        path = Path(place)
        if not path.exists():
            yield f"link to {path.name}: no such file"
        elif anchor and path.suffix == ".html" and anchor not in anchors(path):
            yield f"link to {path.name}#{anchor}: no such anchor"


class Anchors:
    """The ids of each page, read once."""

    def __init__(self) -> None:
        self._ids: dict[Path, set[str]] = {}

    def __call__(self, path: Path) -> set[str]:
        """All ids of the page."""
        if path not in self._ids:
            from html.parser import HTMLParser

            ids: set[str] = {"__top"}

            class Ids(HTMLParser):
                def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
                    ids.update(value for key, value in attrs if key in ("id", "name") and value)

            Ids().feed(path.read_text(encoding="utf-8"))
            self._ids[path] = ids
        return self._ids[path]


def problems(page: Page, anchors: Callable[[Path], set[str]]) -> list[str]:
    """Everything that is wrong with the open page."""
    seen = page.js(_LOOK)
    wrong = [f"picture does not load: {source}" for source in seen["pictures"]]
    wrong += broken_links(seen["links"], anchors)
    wrong += [f"scrolls sideways by {seen['sideways']} pixels"] if seen["sideways"] > 0 else []
    violations: dict[str, list[str]] = {}
    for violation in page.violations():
        violations.setdefault(violation.partition(":")[0], []).append(violation)
    return wrong + [f"axe: {len(items)} times {items[0]}" for items in violations.values()]


def main(arguments: Sequence[str] | None = None) -> int:
    """Open all pages at both sizes; 1 if one has a problem."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[""])
    parser.add_argument("--pictures", type=Path)
    options = parser.parse_args(arguments)
    anchors, count, failed = Anchors(), 0, 0
    with tempfile.TemporaryDirectory() as name, contextmanager(browse)() as browser:
        folder = Path(name)
        for path in build(folder):
            label = path.relative_to(folder).as_posix()
            if not any(part in label for part in options.only):
                continue
            for view, (size, dark) in VIEWS.items():
                browser.open(path, size, dark and label.startswith("site/"))
                wrong = problems(browser, anchors)
                browser.js("localStorage.clear(); return 0")  # The site remembers the colours of the first visit.
                count, failed = count + 1, failed + bool(wrong)
                print("".join(f"{label} ({view}): {item}\n" for item in wrong), end="", flush=True)
                if options.pictures:
                    options.pictures.mkdir(parents=True, exist_ok=True)
                    browser.picture(options.pictures / f"{label.replace('/', '-')}-{view}.png")
    print(f"{count} views of pages, {failed} with problems")
    return int(failed > 0 or not count)


if __name__ == "__main__":
    sys.exit(main())
