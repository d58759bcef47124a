"""The page of all options, `docs/options.md`, written from their declarations.

    python benchmarks/option_page.py

The meaning of an option is its help; a test holds the page to it.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Final

from pytest_mnnquant.config.option import Option
from pytest_mnnquant.config.options import BY_NAME, OPTIONS, SETTINGS

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "options.md"
_INTRO: Final = """\
# Options

All options, as `pytest --help` shows them (`python benchmarks/option_page.py` writes this page). Each is also an ini
key of pytest: `--mnn-min-coverage` is `mnn_min_coverage`. Those of a single model are keys of `[tool.mnnquant]` and of
`[tool.mnnquant.models.NAME]` in `pyproject.toml`, without `mnn_`; `recipe` and `skip_layer` are `recipes` and
`skip_layers` there. A value with a blank in it must be written `--mnn-x=value`.

Images have one key more in `pyproject.toml`: `preprocess = {format = "RGB", size = [224, 224], mean = [...], normal =
[...], count = 500}`, with the meaning that these have in MNN's own configuration: `(pixel - mean) * normal` on 0..255.
Sounds have `preprocess = {rate = 16000, length = 16000}`. Sub-folders named by class give labels:
[forms of data](data.md).

{settings}

| option | meaning | where |
|---|---|---|
"""
_SETTINGS: Final = """\
Options of the command line that request a judgement are a usage error (exit status 4) without a model, unless a test
uses the fixtures. Options in the ini file, in its `addopts` and in `PYTEST_ADDOPTS` apply to every run, so they are
settings, which change no run without models. These always are: {}.
"""


def page() -> str:
    """The page in Markdown."""
    settings = _SETTINGS.format(", ".join(f"`{BY_NAME[name].flag}`" for name in SETTINGS))
    lines = textwrap.fill(settings, 119, break_on_hyphens=False)
    return _INTRO.replace("{settings}", lines) + "".join(map(_row, OPTIONS))


def _row(option: Option) -> str:
    flag = f"{option.flag} {option.metavar}".rstrip()
    where = "command line" if not option.ini else "a model, or all" if option.per_model else "the run"
    meaning = option.help.replace("|", "\\|").replace("[NAME=]", "\\[NAME=\\]").replace("<", "&lt;").replace("_", "\\_")
    return f"| `{flag}` | {meaning} | {where} |\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
