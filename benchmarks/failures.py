"""Ten failures as their users see them: writes docs/failures.md.

    python benchmarks/failures.py FOLDER

Plants ten faults of tests/faults/corpus in FOLDER, runs the plugin in an 80-column terminal and takes its output for
the check with the root cause. The exit status is 1 if an output is longer than 25 lines, or wider than 80 columns
without a long name or command.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(_ROOT))

from pytest_mnnquant.cache.store import Store  # noqa: E402
from tests.faults.corpus.every import FAULTS  # noqa: E402
from tests.faults.corpus.plan import Planted  # noqa: E402
from tests.faults.factory import Factory  # noqa: E402

CHOSEN: Final = (
    "C-params-path-missing-created",
    "C-uuid-is-not-proof",
    "C-stale-guide-disables-weightquant",
    "D-fp16-swallows-int8",
    "D-weightbits-masks-unmatched",
    "D-rc0-on-failure-missing-input-old",
    "D-native-rnn-float",
    "D-params-on-large-linear",
    "E-preprocess-missing",
    "G-weight-file-missing",
)
LINES, COLUMNS = 25, 80


def shown(planted: Planted, store: Path) -> str:
    """What is printed for the first check that fails by itself, not as a consequence of another.

    Raises:
        RuntimeError: No check fails.
    """
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "not latency"]
    with tempfile.TemporaryDirectory() as name:
        report = Path(name) / "report.json"
        done = subprocess.run(
            [*command, f"--mnn-cache-dir={store}", f"--mnn-report={report}", *planted.arguments()],
            cwd=name,
            env={**os.environ, "COLUMNS": str(COLUMNS)},
            capture_output=True,
            text=True,
            check=False,
        )
        models = json.loads(report.read_text(encoding="utf-8"))["models"]
    checks = [check for model in models for variant in model["variants"] for check in variant["checks"]]
    roots = [check["check"] for check in checks if any(item["severity"] == "error" for item in check["findings"])]
    if not roots:
        raise RuntimeError(f"nothing failed:\n{done.stdout}")
    # Each failed item has a heading of underscores around its id, which ends in the name of the check.
    parts = re.split(r"^_{2,} (.*) _{2,}$|^={3,} .* ={3,}$", done.stdout, flags=re.MULTILINE)
    sections = {heading: text for heading, text in zip(parts[1::2], parts[2::2], strict=True) if heading}
    return next(text for heading, text in sections.items() if heading.endswith(roots[0])).strip("\n")


def main() -> int:
    """Plant, run, write."""
    folder = Path(sys.argv[1]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    store, parts, bad = folder / "store", [], []
    with tempfile.TemporaryDirectory(dir=folder) as place:
        factory = Factory(Store(store), Path(place))
        for slug in CHOSEN:
            fault = next(fault for fault in FAULTS if str(fault) == slug)
            text = shown(fault.build(factory).fault, store)
            text = re.sub(rf"{re.escape(str(folder))}/\S*/", "out/", text)
            lines = text.splitlines()
            bad += [f"{slug}: {len(lines)} lines"] if len(lines) > LINES else []
            bad += [f"{slug}: {line}" for line in lines if len(line) > COLUMNS and max(map(len, line.split())) < 30]
            parts.append(f"## {slug}\n\n```text\n{text}\n```\n")
    page = (
        "# Ten failures\n\n"
        "Each was planted with the real tools by `python benchmarks/failures.py FOLDER`. The page shows what "
        "pytest prints for\nthe check with the root cause, in 80 columns. Folders are shortened to `out/`.\n\n"
        + "\n".join(parts)
    )
    (_ROOT / "docs" / "failures.md").write_text(page, encoding="utf-8")
    print("\n".join(bad) or f"{len(parts)} failures written")
    return int(bool(bad))


if __name__ == "__main__":
    raise SystemExit(main())
