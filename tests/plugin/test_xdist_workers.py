"""Which of xdist's workers could not be started, in each version of xdist that is supported.

xdist does not say, so its frames are asked; where xdist changes, these tests fail.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from pytest_mnnquant.plugin.xdist_workers import _worker_being_started

#: The first minor versions that are supported, and the one that is installed.
VERSIONS = ("3.5.0", "3.6.1", "3.7.0", version("pytest-xdist"))
#: Has xdist start workers that can't be started, and prints what is known of each.
PROGRAM = """
import json
import pytest
import xdist
from xdist.workermanage import NodeManager
from pytest_mnnquant.plugin.xdist_workers import _as_usage_error, _worker_being_started

class Starts:
    def __init__(self, *specs):
        self.specs = specs
    def pytest_sessionstart(self, session):
        try:
            NodeManager(session.config, self.specs).setup_nodes(lambda event: None)
        except Exception as error:
            spec, argument = _worker_being_started(error)
            told = _as_usage_error(error)
            print(json.dumps([xdist.__version__, str(spec), argument, str(told)]))
        pytest.exit("that is all", 0)

quiet = ("-p", "no:cacheprovider", "-q", "--rootdir=.")
pytest.main([*quiet], [Starts("ssh=-F none far//python=python3")])
pytest.main([*quiet, "nothing.py"], [Starts("popen//chdir=away")])
"""


@pytest.fixture(params=dict.fromkeys(VERSIONS))
def xdist_path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder to import this version of xdist from; empty for the one that is installed."""
    wanted = request.param
    if wanted == version("pytest-xdist"):
        return ""
    folder = tmp_path_factory.mktemp("xdist")
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder)]
    done = subprocess.run([*install, f"pytest-xdist=={wanted}"], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"pytest-xdist {wanted} can't be installed: {done.stderr.strip()[-200:]}")
    return str(folder)


def test_a_worker_is_known_by_where_its_start_broke_off(xdist_path: str, tmp_path: Path) -> None:
    (tmp_path / "nothing.py").touch()
    path = os.pathsep.join(filter(None, (xdist_path, *sys.path)))
    environment = {**os.environ, "PYTHONPATH": path, "PYTEST_ADDOPTS": ""}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    answers: list[Any] = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    assert len(answers) == 2, done.stdout + done.stderr
    (used, spec, argument, usage_error), (_, _, refused, _) = answers
    assert used == ((Path(xdist_path).name and version_in(xdist_path)) or version("pytest-xdist"))
    assert "ssh=-F none far" in spec
    assert argument == ""
    assert "started on far; " in usage_error
    assert refused == "nothing.py"


def version_in(folder: str) -> str:
    """The version of xdist that was installed into a folder."""
    (name,) = (path.name for path in Path(folder).glob("pytest_xdist-*.dist-info"))
    return name.removeprefix("pytest_xdist-").removesuffix(".dist-info")


def test_what_breaks_elsewhere_is_no_worker_that_could_not_be_started() -> None:
    with pytest.raises(BrokenPipeError) as error:
        raise BrokenPipeError
    assert _worker_being_started(error.value) == (None, "")
