"""`pytest-mnnquant llmexport -- python llmexport.py ARGS`: the user's exporter, and a run of the gate on its folder."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from pytest_mnnquant.cache.temporary import temporary_prefix
from pytest_mnnquant.cli.llmexport_arguments import read_arguments, refusals
from pytest_mnnquant.cli.mnnconvert_flags import Refused
from pytest_mnnquant.cli.written_files import FileState, file_states, unwritten_files
from pytest_mnnquant.config.evaluation_text import require_text
from pytest_mnnquant.config.options import BY_FLAG
from pytest_mnnquant.llm.checkpoint import read_checkpoint
from pytest_mnnquant.llm.folder import is_export
from pytest_mnnquant.runtime.exporter import installed_exporter, run_exporter
from pytest_mnnquant.sources.spec import SourceError

USAGE: Final = """usage: pytest-mnnquant llmexport [--mnn-OPTION ...] -- python llmexport.py ARGUMENTS

Run the exporter of a language model without MNN's telemetry, and judge the folder that it writes. The exit status is 0
only for an export that is what these arguments request. `-- llmexport ARGUMENTS` runs the package llmexport.
  --mnn-evaluation FILE   text to evaluate the predictions on
  --mnn-timeout S         time limit for one native step and for the exporter, in seconds (default: 3600)
  --mnn-...               any other option of the gate that does not name the models to judge
"""
_SECONDS: Final = 3600.0
_NAMES: Final = ("llmexport", "llmexport.exe")
#: They replace or add to what is judged.
_MODELS: Final = ("--mnn-model", "--mnn-quantized", "--mnn-config")
_SCALE_BIT: Final = re.compile(r"""["']--scale_bit["']""")
#: Variables that choose plugins and options of pytest: they must not change what is judged.
_PYTEST: Final = ("PYTEST_ADDOPTS", "PYTEST_PLUGINS", "PYTEST_DISABLE_PLUGIN_AUTOLOAD")
_TESTS_FAILED: Final = 1  # pytest.ExitCode


def llmexport(words: Sequence[str]) -> int:
    """Refuse, export and judge; returns the exit status.

    Raises `Refused` for arguments that can't be used, `BadExport` or `OSError` for a source that can't be read, and
    `NativeFailure` if the exporter can't be run.
    """
    options, command = _split(words)
    python, script, arguments = _program(command)
    given = read_arguments(arguments, has_scale_bit=_has_scale_bit(script))
    if "path" not in given.values:
        raise Refused("--path: give the folder of the checkpoint")
    model = Path(given.values["path"])
    reasons = refusals(given, read_checkpoint(model))
    if reasons:
        raise Refused(*reasons)
    _require_text(options)
    before = file_states(given.output)
    status = run_exporter(python, script, arguments, _timeout(options))
    if status != 0:
        print(f"pytest-mnnquant: the exporter ended with exit status {status}", file=sys.stderr)
        return 1
    return _judge(model.resolve(), given.output, options) if _is_written(given.output, before) else 1


def _require_text(options: Sequence[tuple[str, str]]) -> None:
    """Refuse what is not a text before the exporter runs. Raises `Refused`."""
    for flag, value in options:
        if flag == "--mnn-evaluation":
            try:
                require_text(flag, value, Path())
            except (ValueError, SourceError) as error:
                raise Refused(str(error)) from None


def _is_written(output: Path, before: Mapping[str, FileState]) -> bool:
    """Whether the exporter wrote the graph and the weights; if not, a line says so."""
    if not is_export(output):
        print(f"pytest-mnnquant: the exporter wrote no export into {output}", file=sys.stderr)
        return False
    stale = unwritten_files(output, before)
    if stale:
        names = ", ".join(stale)
        print(f"pytest-mnnquant: the exporter did not write {names} in {output}: an older export", file=sys.stderr)
    return not stale


def _split(words: Sequence[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """The options of the gate, as pairs of flag and value (empty for switches), and the command of the exporter."""
    if "--" not in words:
        raise Refused("give the command of the exporter after --: pytest-mnnquant llmexport -- python llmexport.py ...")
    place = list(words).index("--")
    rest, options = list(words[:place]), []
    while rest:
        flag, equals, value = rest.pop(0).partition("=")
        if flag not in BY_FLAG:
            raise Refused(f"{flag}: only options of the gate (--mnn-...) and their values come before --")
        if flag in _MODELS:
            raise Refused(f"{flag}: the folder that the exporter writes is judged against --path; remove {flag}")
        has_value = BY_FLAG[flag].kind is not bool
        if has_value and not equals:
            if not rest or rest[0].startswith("--"):
                raise Refused(f"{flag}: requires a value")
            value = rest.pop(0)
        if equals and not has_value:
            raise Refused(f"{flag}: takes no value")
        options.append((flag, value))
    return options, list(words[place + 1 :])


def _has_scale_bit(script: Path) -> bool:
    """Whether the exporter declares --scale_bit, in its script or in the modules of its package."""
    for path in (script, *script.parent.glob("*.py"), *script.parent.glob("utils/*.py")):
        with contextlib.suppress(OSError):
            if path.is_file() and _SCALE_BIT.search(path.read_text("utf-8", "replace")):
                return True
    return False


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


def _timeout(options: Sequence[tuple[str, str]]) -> float:
    text = dict(options).get("--mnn-timeout", str(_SECONDS))
    try:
        return float(text)
    except ValueError:
        raise Refused(f"--mnn-timeout {text}: requires a number of seconds") from None


def _judge(model: Path, output: Path, options: Sequence[tuple[str, str]]) -> int:
    """Run the gate on an export, without tests, settings and plugins of the working folder and the environment."""
    environment = {name: value for name, value in os.environ.items() if name not in _PYTEST}
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # Else an installed plugin is registered for a second time.
    absolute = [_absolute(flag, value) for flag, value in options]
    with tempfile.TemporaryDirectory(prefix=temporary_prefix()) as folder:
        arguments = [f"--rootdir={folder}", "-c", os.devnull, "-q", "-p", "no:cacheprovider"]
        command = [sys.executable, "-m", "pytest", "-p", "pytest_mnnquant.plugin.hooks", *arguments]
        command += [f"--mnn-model={model}", f"--mnn-quantized={output.resolve()}", *absolute]
        status = subprocess.run(command, cwd=folder, env=environment, check=False).returncode
    verdict = "is what was requested" if status == 0 else f"was not judged (exit status {status} of pytest)"
    print(f"{output.resolve()} {'is not what was requested' if status == _TESTS_FAILED else verdict}")
    return int(status != 0)


def _absolute(flag: str, value: str) -> str:
    """The option as one word; names of files are absolute, since the gate runs in another folder."""
    option = BY_FLAG[flag]
    if option.kind is bool:
        return flag
    is_file = option.metavar in ("FILE", "DIR") or (option.is_path and Path(value).exists())
    return f"{flag}={Path(value).resolve()}" if value and is_file else f"{flag}={value}"
