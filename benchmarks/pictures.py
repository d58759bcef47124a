"""Takes the pictures of README and docs from real runs: writes docs/images/.

    python benchmarks/pictures.py FOLDER     # FOLDER gets the planted model, reports and logs

Runs the demo's planted failure and one healthy fixture model in a terminal of 88 columns, draws what pytest prints as
SVG (light and dark), and photographs the HTML report with headless Chromium. The exit status is 1 when a picture is
larger than its limit; a run that does not end as its picture claims (failing: 1, passing: 0) is an error.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.terminal_theme import DEFAULT_TERMINAL_THEME, MONOKAI, TerminalTheme
from rich.text import Text

ROOT: Final = Path(__file__).resolve().parent.parent
IMAGES: Final = ROOT / "docs" / "images"
COLUMNS: Final = 88
#: Largest sizes in bytes: a first page must load on a slow line.
SVG_LIMIT, PNG_LIMIT = 60_000, 250_000
#: As rich's own, without a font from the network.
_SVG: Final = """<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg" role="img">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: {char_height}px; line-height: {line_height}px; }}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: sans-serif; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/></clipPath>
{lines}</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}<g class="{unique_id}-matrix">
{matrix}
</g></g></svg>
"""
_THEMES: Final = {"light": DEFAULT_TERMINAL_THEME, "dark": MONOKAI}


@dataclass(frozen=True)
class Picture:
    """A run to draw: its name, the command as a reader types it, its arguments, the exit status that it must have."""

    name: str
    typed: str
    arguments: tuple[str, ...]
    status: int


def pictures() -> tuple[Picture, ...]:
    """The two runs: the planted failure of the demo, and a healthy model."""
    failing = "--mnn-model=net.onnx --mnn-quantized=net.mnn --mnn-params=compress_params_index.bin"
    passing = "--mnn-model=digits_cnn.py:build --mnn-mode=eval"
    return (
        Picture("failing", f"pytest {failing} -k coverage", (*failing.split(), "-k", "coverage"), 1),
        Picture("passing", f"pytest {passing}", tuple(passing.split()), 0),
    )


def printed(picture: Picture, folder: Path) -> str:
    """What the run prints, in colour, without pytest's lines about the machine, and with a short path to the cache.

    Raises:
        RuntimeError: The run ends with another status.
    """
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--color=yes",
        "--no-header",
        "-p",
        "no:cacheprovider",
        *picture.arguments,
    ]
    # In CI pytest repeats each failure in its short summary.
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "BUILD_NUMBER")}
    done = subprocess.run(
        [*command, f"--mnn-report={picture.name}.html", "--mnn-cache-dir=cache"],
        cwd=folder,
        env={**environment, "COLUMNS": str(COLUMNS)},
        capture_output=True,
        text=True,
        check=False,
    )
    (folder / f"{picture.name}.log").write_text(done.stdout + done.stderr)
    if done.returncode != picture.status:
        raise RuntimeError(f"{picture.name}: exit status {done.returncode}, required {picture.status}\n{done.stdout}")
    return done.stdout.replace(f"{folder}/", "")


def lay_out(folder: Path) -> None:
    """Make FOLDER a project of its own: the planted failure, a healthy fixture model."""
    subprocess.run([sys.executable, ROOT / "demo" / "plant.py", folder], check=True, cwd=ROOT)
    (folder / "pytest.ini").write_text("[pytest]\n")
    for name in ("digits_cnn.py", "digits_data.py", "digits.npz"):
        shutil.copy(ROOT / "fixtures" / name, folder)
    shutil.copytree(ROOT / "fixtures" / "weights", folder / "weights", dirs_exist_ok=True)


def svg(text: str, typed: str, theme: TerminalTheme, name: str) -> str:
    """A terminal that shows `text` after the typed command."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(f"[bold]$[/bold] {typed}", highlight=False)
    console.print(Text.from_ansi(text), highlight=False)
    return console.export_svg(title="pytest", theme=theme, code_format=_SVG, unique_id=name)


def photograph(report: Path, target: Path, dark: bool) -> None:
    """The top of an HTML report, as headless Chromium shows it at 1100 x 900 pixels."""
    scheme = ["--force-dark-mode", "--enable-features=WebContentsForceDark:inversion_method/none"] if dark else []
    subprocess.run(
        [
            "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--blink-settings=preferredColorScheme=" + ("0" if dark else "1"), *scheme,
            "--virtual-time-budget=4000", "--window-size=1100,900", f"--screenshot={target}", report.as_uri(),
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip


def main(folder: Path) -> int:
    """Write all pictures; 1 if one is too large."""
    folder.mkdir(parents=True, exist_ok=True)
    IMAGES.mkdir(exist_ok=True)
    lay_out(folder)
    for picture in pictures():
        text = printed(picture, folder)
        for theme, colours in _THEMES.items():
            (IMAGES / f"{picture.name}-{theme}.svg").write_text(svg(text, picture.typed, colours, picture.name))
    for theme in _THEMES:
        photograph(folder / "failing.html", IMAGES / f"report-{theme}.png", theme == "dark")
    limits = {".svg": SVG_LIMIT, ".png": PNG_LIMIT}
    large = [path.name for path in sorted(IMAGES.iterdir()) if path.stat().st_size > limits.get(path.suffix, 0)]
    for path in sorted(IMAGES.iterdir()):
        print(f"{path.name}: {path.stat().st_size:,} bytes")
    print("too large: " + ", ".join(large) if large else "all within their limits")
    return 1 if large else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
