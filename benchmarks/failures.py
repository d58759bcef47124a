"""Ten failures as their users see them: writes docs/failures.md.

    python benchmarks/failures.py FOLDER

Plants ten faults of tests/faults/corpus in FOLDER, runs the plugin in an 80-column terminal and takes what it prints
for the check at the root. The exit status is 1 where one is longer than 25 lines, or wider than 80 columns where a name
or a command does not force it.
"""

from __future__ import annotations

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
    """What is printed for the first failed check."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "not latency"]
    with tempfile.TemporaryDirectory() as name:
        done = subprocess.run(
            [*command, f"--mnn-cache-dir={store}", *planted.arguments()],
            cwd=name,
            env={**os.environ, "COLUMNS": str(COLUMNS)},
            capture_output=True,
            text=True,
            check=False,
        )
    parts = re.split(r"^_{3,} .* _{3,}$|^={3,} .* ={3,}$", done.stdout, flags=re.MULTILINE)
    failed = [part.strip("\n") for part in parts if re.match(r"\s*\S+ \S+: \w+ failed: ", part)]
    roots = [part for part in failed if ": follows from " not in part.splitlines()[0]]
    if not roots:
        raise RuntimeError(f"nothing failed:\n{done.stdout}")
    return roots[0]


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
        "# Ten failures\n\nPlanted with the real tools by `python benchmarks/failures.py FOLDER`; what pytest prints "
        "for the check at the\nroot, in 80 columns. Folders are shortened to `out/`.\n\n" + "\n".join(parts)
    )
    (_ROOT / "docs" / "failures.md").write_text(page, encoding="utf-8")
    print("\n".join(bad) or f"{len(parts)} failures written")
    return int(bool(bad))


if __name__ == "__main__":
    raise SystemExit(main())
