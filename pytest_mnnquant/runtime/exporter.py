"""Runs the user's exporter of language models without MNN's telemetry and without calls of pip.

An exporter without a built MNNConvert imports `MNN.tools`, which installs a package with pip, and sends sizes and
arguments home. The module is replaced by one that calls the converter directly.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pytest_mnnquant.runtime.jobs import FailureKind, NativeFailure
from pytest_mnnquant.runtime.worker import end_family

_BOOT: Final = """
import os, sys, types
def is_pip(command):
    words = command if isinstance(command, str) else " ".join(map(str, command))
    return "pip" in words.replace("/", " ").split() or "aliyun" in words
system, popen = os.system, os.popen
os.system = lambda command: 1 if is_pip(command) else system(command)
import MNN
tools, converter = types.ModuleType("MNN.tools"), types.ModuleType("MNN.tools.mnnconvert")
def main():
    import _tools
    _tools.mnnconvert(list(sys.argv))
converter.main = main
tools.mnnconvert, tools.__path__, MNN.tools = converter, [], tools
sys.modules.update({"MNN.tools": tools, "MNN.tools.mnnconvert": converter})
sys.argv = sys.argv[1:]
sys.path[0] = os.path.dirname(os.path.abspath(sys.argv[0]))
with open(sys.argv[0], encoding="utf-8") as file:
    code = compile(file.read(), sys.argv[0], "exec")
exec(code, {"__name__": "__main__", "__file__": sys.argv[0]})
"""
_FIND: Final = """
import importlib.util
found = importlib.util.find_spec("llmexport")
print(found.origin if found and found.origin else "")
"""


def installed_exporter(python: str) -> Path | None:
    """The script of the package `llmexport`, whose own command can't import itself; None if it is not installed."""
    result = subprocess.run([python, "-c", _FIND], capture_output=True, text=True, check=False)
    name = result.stdout.strip()
    script = Path(name).with_name("llmexport.py") if name else Path()
    return script if name and script.is_file() else None


def run_exporter(python: str, script: Path, arguments: Sequence[str], timeout: float) -> int:
    """Run an exporter in the working folder, with its output shown; returns its exit status, negative for a signal.

    Raises `NativeFailure` if it can't be started, or runs for longer than `timeout` seconds.
    """
    command = [python, "-c", _BOOT, str(script), *arguments]
    try:
        process = subprocess.Popen(command, env=dict(os.environ), start_new_session=True)
    except OSError as error:
        raise NativeFailure(FailureKind.NOT_STARTED, f"{python} can't be run: {error.strerror}") from None
    try:
        return process.wait(timeout)
    except subprocess.TimeoutExpired:
        reason = f"the exporter has not finished after {timeout:g} s (limit: --mnn-timeout)"
        raise NativeFailure(FailureKind.TIMED_OUT, reason) from None
    finally:
        end_family(process)
