"""`pytest-mnnquant llmexport -- python llmexport.py ARGS`: the user's exporter, and a run of the gate on its folder."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pytest_mnnquant.cache.temporary import temporary_prefix
from pytest_mnnquant.cli.llmexport_arguments import read_arguments, refusals
from pytest_mnnquant.cli.mnnconvert_flags import Refused
from pytest_mnnquant.llm.checkpoint import read_checkpoint
from pytest_mnnquant.llm.folder import is_export
from pytest_mnnquant.runtime.exporter import installed_exporter, run_exporter

USAGE: Final = """usage: pytest-mnnquant llmexport [--mnn-OPTION ...] -- python llmexport.py ARGUMENTS

Run the exporter of a language model without MNN's telemetry, and judge the folder that it writes. The exit status is 0
only for an export that is what these arguments request. `-- llmexport ARGUMENTS` runs the package llmexport.
  --mnn-evaluation FILE   text to evaluate the predictions on
  --mnn-timeout S         time limit for one native step and for the exporter, in seconds (default: 3600)
  --mnn-...               any other option of the gate
"""
_SECONDS: Final = 3600.0
_NAMES: Final = ("llmexport", "llmexport.exe")


def llmexport(words: Sequence[str]) -> int:
    """Refuse, export and judge; returns the exit status.

    Raises `Refused` for arguments that can't be used, `BadExport` or `OSError` for a source that can't be read, and
    `NativeFailure` if the exporter can't be run.
    """
    options, command = _split(words)
    python, script, arguments = _program(command)
    source_text = "".join(path.read_text("utf-8", "replace") for path in script.parent.rglob("*.py"))
    given = read_arguments(arguments, has_scale_bit="scale_bit" in source_text)
    if "path" not in given.values:
        raise Refused("--path: give the folder of the checkpoint")
    model = Path(given.values["path"])
    reasons = refusals(given, read_checkpoint(model))
    if reasons:
        raise Refused(*reasons)
    status = run_exporter(python, script, arguments, _timeout(options))
    if status != 0:
        print(f"pytest-mnnquant: the exporter ended with exit status {status}", file=sys.stderr)
        return 1
    if not is_export(given.output):
        print(f"pytest-mnnquant: the exporter wrote no export into {given.output}", file=sys.stderr)
        return 1
    return _judge(model.resolve(), given.output.resolve(), options)


def _split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    if "--" not in words:
        raise Refused("give the command of the exporter after --: pytest-mnnquant llmexport -- python llmexport.py ...")
    place = list(words).index("--")
    options, command = list(words[:place]), list(words[place + 1 :])
    wrong = [word for word in options if word.startswith("-") and not word.startswith("--mnn-")]
    if wrong:
        raise Refused(f"{wrong[0]}: only options of the gate (--mnn-...) come before --")
    return options, command


def _program(command: Sequence[str]) -> tuple[str, Path, list[str]]:
    """The interpreter, the script, and its arguments."""
    if command and Path(command[0]).name in _NAMES:
        python, arguments = _beside(command[0]), list(command[1:])
        script = installed_exporter(python)
        if script is None:
            raise Refused("llmexport is not installed: pip install llmexport, or give the path of llmexport.py")
        return python, script, arguments
    if len(command) < 2:
        raise Refused("give an interpreter and a script: -- python llmexport.py ...")
    python, script = command[0], Path(command[1])
    if not script.is_file():
        raise Refused(f"{script}: no such file")
    return python, script, list(command[2:])


def _beside(name: str) -> str:
    """The Python of the environment that a console script belongs to."""
    python = Path(name).with_name("python")
    return str(python) if os.sep in name and python.exists() else sys.executable


def _timeout(options: Sequence[str]) -> float:
    words = list(options)
    for number, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name == "--mnn-timeout":
            text = value if equals else words[number + 1] if number + 1 < len(words) else ""
            try:
                return float(text)
            except ValueError:
                raise Refused(f"--mnn-timeout {text}: requires a number of seconds") from None
    return _SECONDS


def _judge(model: Path, output: Path, options: Sequence[str]) -> int:
    """Run the gate on an export, without tests and settings of the working folder."""
    absolute = [_absolute(word) for word in options]
    with tempfile.TemporaryDirectory(prefix=temporary_prefix()) as folder:
        arguments = [f"--rootdir={folder}", "-c", os.devnull, "-q", "-p", "no:cacheprovider"]
        command = [sys.executable, "-m", "pytest", *arguments]
        command += [f"--mnn-model={model}", f"--mnn-quantized={output}", *absolute]
        status = subprocess.run(command, cwd=folder, check=False).returncode
    verdict = "is what was requested" if status == 0 else "is not what was requested"
    print(f"{output} {verdict}")
    return int(status != 0)


def _absolute(word: str) -> str:
    """An option whose value is the name of a file that exists, with the absolute name."""
    name, equals, value = word.partition("=")
    file = value if equals else word
    if file.startswith("--") or not file or not Path(file).exists():
        return word
    return f"{name}={Path(file).resolve()}" if equals else str(Path(file).resolve())
