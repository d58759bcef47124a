"""Model, data and metric code that ends a test or the process never ends in exit status 0."""

from __future__ import annotations

import pytest

from tests.plugin.conftest import NET, Run

ENDINGS = (
    "import pytest; pytest.skip('x')",
    "import pytest; pytest.xfail('x')",
    "import pytest; pytest.exit('x', returncode=0)",
    "raise SystemExit(0)",
    "raise KeyboardInterrupt",
    "import os; os._exit(0)",
)
CODE = """

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = build()

    def forward(self, x):
        {ending}
        return self.net(x)


def whole():
    return Net().eval()


def generator():
    yield {{"x": images(1)}}
    {ending}


def metric(outputs, labels):
    {ending}


metric.lower_is_better = False


def pipeline(model, calibration, mode, outdir):
    {ending}
"""
GIVEN = {"model": "net.py:build", "calibration": "net.py:calibration", "evaluation": "net.py:evaluation"}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(
    ("option", "attribute", "codes"),
    [
        ("model", "whole", {"MNQ101", "MNQ102"}),
        ("calibration", "generator", {"MNQ102"}),
        ("metric", "metric", {"MNQ721"}),
        ("recipe", "pipeline", {"MNQ101"}),
    ],
)
def test_a_run_that_is_ended_by_its_own_code_fails(
    run: Run, pytester: pytest.Pytester, ending: str, option: str, attribute: str, codes: set[str]
) -> None:
    pytester.makepyfile(ends=NET + CODE.format(ending=ending))
    given = {**GIVEN, "recipe": "w8", option: f"ends.py:{attribute}"}
    options = [f"--mnn-{name}={value}" for name, value in given.items()]
    drop = ["--mnn-max-accuracy-drop=0.1"] if option == "metric" else []
    outcome = run(*options, *drop, "-k", "(conversion or accuracy) and not train")
    assert outcome.status == 1
    assert any(code in outcome.text for code in codes), outcome.text
    assert "ends.py" in outcome.text


@pytest.mark.parametrize(
    "ending", ["import os, sys; sys.modules[os.name]._exit(0)", "atexit.register(os._exit, 0); 1 / 0"]
)
def test_the_status_of_the_process_is_that_of_the_run(run: Run, pytester: pytest.Pytester, ending: str) -> None:
    pytester.makepyfile(ends="import atexit, os\n" + NET + CODE.format(ending=ending))
    options = [f"--mnn-{name}={value}" for name, value in {**GIVEN, "model": "ends.py:whole", "recipe": "w8"}.items()]
    outcome = run(*options, "-k", "conversion", alone=True)
    assert outcome.status == 1
    assert "ends.py" in outcome.text
