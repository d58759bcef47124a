"""xdist's workers on other hosts: each variant made once, on one host, in a report as one host alone gives.

Two hosts, each with files of its own: neither sees those of the other, nor those of the run that starts the workers.
With all fixture models: `benchmarks/two_hosts.py`.
"""

from __future__ import annotations

import json
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from tests.golden_text import check_golden
from tests.hosts import SshHost, needs_hosts, ssh_host
from tests.plugin.conftest import NET, Run
from tests.sameness import differences, junit

pytestmark = needs_hosts
OTHER = NET.replace("manual_seed(0)", "manual_seed(5)")
MODELS = ("--mnn-model=net.py:build", "--mnn-model=other.py:build", "--mnn-recipe=w8", "-k", "not latency")
#: A model that is never ready where a file says so.
STALLS = """def build():
    import pathlib, time
    if pathlib.Path("stall").exists():
        pathlib.Path("stalled").touch()
        time.sleep(60)
"""
# The run's own cache would be seen by both hosts.
REPORTS = ("--mnn-report=r.json", "--junit-xml=r.xml", "--mnn-cache-dir=kept")


class Far:
    """A host and the checkout there."""

    def __init__(self, host: SshHost, checkout: Path) -> None:
        self.host, self.checkout = host, checkout
        self.renew()

    def renew(self) -> None:
        """The checkout as it should be."""
        shutil.rmtree(self.checkout, ignore_errors=True)
        self.checkout.mkdir(parents=True)
        (self.checkout / "net.py").write_text(NET)
        (self.checkout / "other.py").write_text(OTHER)

    @property
    def tx(self) -> tuple[str, str]:
        return "--tx", self.host.worker(self.checkout)


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Far, Far]]:
    base = tmp_path_factory.mktemp("hosts")
    homes = [base / name for name in ("host0", "host1")]
    for home in homes:
        home.mkdir()
    with ExitStack() as using:
        far = [Far(using.enter_context(ssh_host(base / f"keys{at}", (homes[1 - at],))), homes[at] / "net")
               for at in (0, 1)]  # fmt: skip
        yield far[0], far[1]


@pytest.fixture
def far(hosts: tuple[Far, Far], pytester: pytest.Pytester) -> tuple[Far, Far]:
    for one in hosts:
        one.renew()
    (pytester.path / "net.py").write_text(NET)
    (pytester.path / "other.py").write_text(OTHER)
    return hosts


@pytest.fixture
def refused(run: Run, far: tuple[Far, Far]) -> Callable[..., str]:
    """Runs on one host, which must be refused with one line: that line."""

    def refuse(*args: str, tx: tuple[str, ...] = ()) -> str:
        found = run(*MODELS, *REPORTS, "-d", *(tx or far[0].tx), *args, alone=True)
        errors = [line for line in found.lines if line.startswith("ERROR: ")]
        assert (found.status, len(errors)) == (pytest.ExitCode.USAGE_ERROR, 1), found.text
        assert "Traceback" not in found.text
        return errors[0]

    return refuse


def test_variants_are_spread_and_the_report_is_that_of_one_host(
    run: Run, far: tuple[Far, Far], pytester: pytest.Pytester
) -> None:
    def told() -> tuple[Any, Any]:
        return json.loads((pytester.path / "r.json").read_text()), junit(pytester.path / "r.xml")

    for folder in (pytester.path, *(one.checkout for one in far)):
        (folder / "pyproject.toml").write_text(f'[tool.mnnquant.targets.mine]\ncommand = "{sys.executable}"\n')
    usual = (*MODELS, "--mnn-target=host", "--mnn-target=mine", *REPORTS)
    spread = run(*usual, "-d", *far[0].tx, *far[1].tx, alone=True)
    report, tests = told()
    workers = [{variant["worker"] for variant in model["variants"]} for model in report["models"]]
    assert sorted(workers, key=min) == [{one.host.name} for one in far]
    for one in far:  # Each has made the one variant that it judged.
        (made,) = one.checkout.glob("kept/variant/*/model.mnn")
        assert str(made) in json.dumps(report)
    assert not [*pytester.path.glob("kept/*/*")]
    alone = run(*usual, alone=True)
    assert spread.status == alone.status == 0, spread.text
    assert spread.items == alone.items
    again, tests_again = told()
    assert [*differences(again, report), *differences(tests_again, tests)] == []
    assert len(tests) == 24


def test_what_is_missing_or_other_on_a_host_is_refused_in_a_line(
    refused: Callable[..., str], far: tuple[Far, Far], pytester: pytest.Pytester
) -> None:
    checkout = far[0].checkout
    place = f"worker gw0 on {far[0].host.name} in {checkout}: "
    (checkout / "other.py").unlink()
    check_golden("plugin-workers/a-missing-file", refused(), worker=place.strip())
    (checkout / "other.py").write_text(NET)
    check_golden("plugin-workers/another-model", refused(), worker=place.strip())
    (checkout / "other.py").write_text(OTHER)
    (checkout / "limits.toml").write_text("[tool.mnnquant]\nmin_coverage = 0.1\n")
    (pytester.path / "limits.toml").write_text("[tool.mnnquant]\n")
    check_golden("plugin-workers/another-configuration", refused("--mnn-config=limits.toml"), worker=place.strip())
    (checkout / "mnn-0.0.1.dist-info").mkdir()
    (checkout / "mnn-0.0.1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: MNN\nVersion: 0.0.1\n")
    check_golden("plugin-workers/another-mnn", refused(), worker=place.strip(), mnn=version("mnn"))
    shutil.rmtree(checkout)
    assert f"{place}net.py: " in refused()


def test_a_host_without_python_or_pytest_is_refused_in_a_line(
    refused: Callable[..., str], far: tuple[Far, Far]
) -> None:
    spec = far[0].host.worker(far[0].checkout)
    start, _, end = spec.partition("//python=")
    gone = f"{start}//python=/no/python//{end.partition('//')[2]}"
    assert f"started on {far[0].host.name}" in refused(tx=("--tx", gone))
    barred = spec.replace(str(far[0].checkout), "/proc/barred")
    assert "FileNotFoundError" in refused(tx=("--tx", barred))
    (far[0].checkout / "pluggy.py").write_text("raise ImportError('pluggy is gone')\n")
    assert "pluggy is gone;" in refused()


def test_paths_as_words_of_their_own_are_refused(refused: Callable[..., str]) -> None:
    line = refused("--mnn-evaluation", "net.py:evaluation", "net.py")
    check_golden("plugin-workers/paths-as-words-of-their-own", line)


def test_a_host_that_is_lost_is_no_pass(run: Run, far: tuple[Far, Far], pytester: pytest.Pytester) -> None:
    for folder in (pytester.path, *(one.checkout for one in far)):
        (folder / "net.py").write_text(NET.replace("def build():", STALLS))
        (folder / "other.py").write_text(OTHER.replace("def build():", STALLS))
    lost, ended = far[0], threading.Event()
    (lost.checkout / "stall").touch()

    def lose() -> None:
        while not (lost.checkout / "stalled").exists():
            if ended.wait(0.1):
                return
        lost.host.stop()

    thread = threading.Thread(target=lose)
    thread.start()
    start = time.monotonic()
    try:
        found = run(*MODELS, *REPORTS, "-d", *far[0].tx, *far[1].tx, alone=True)
    finally:
        ended.set()
        thread.join()
        lost.host.stop()
        lost.host.start()
    assert found.status == pytest.ExitCode.USAGE_ERROR
    assert time.monotonic() - start < 50
    assert "crashed while running" in found.text
    assert " of 20 tests" in found.text
    assert f"started on {lost.host.name}" in found.starting("ERROR: ")
