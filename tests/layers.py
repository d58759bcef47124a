"""What each test needs, as a marker: `unit` tests need neither MNN, torch nor a child process.

A folder or a module has its layers here; the fixtures that a test requests, and markers of its own, add to them.
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Final

LAYERS: Final = ("unit", "mnn", "torch", "pytester", "slow", "browser", "ssh")

#: The layers of all tests in a folder or module of `tests/`. The longest path decides; what is not named is `unit`.
NEEDS: Final = {
    "checks/weights/test_check.py": ("torch",),
    "cli/test_at_once.py": ("torch",),
    "cli/test_calibrate.py": ("torch",),
    "cli/test_wrong_lines.py": ("torch",),
    "cli/test_operator_changes.py": ("mnn", "torch"),
    "cli/test_target.py": ("mnn",),
    "docs": ("slow",),
    "docs/test_chinese.py": ("unit",),
    "evidence": ("mnn", "torch"),
    "evidence/test_check_inputs.py": ("unit",),
    "evidence/test_sample_views.py": ("unit",),
    "evidence/test_steps.py": ("unit",),
    "faults": ("mnn", "torch", "pytester"),
    "faults/test_corpus.py": ("mnn", "torch", "pytester", "slow"),
    "healthy": ("mnn", "torch", "pytester", "slow"),
    "hostile/test_conversions.py": ("mnn", "torch"),
    "hostile/test_networks.py": ("mnn", "torch"),
    "mnnfile/test_commands.py": ("mnn", "torch"),
    "mnnfile/test_constants.py": ("mnn", "torch"),
    "mnnfile/test_data_sizes.py": ("mnn", "torch"),
    "mnnfile/test_damaged_models.py": ("torch",),
    "mnnfile/test_damaged_params.py": ("torch",),
    "mnnfile/test_decoding.py": ("torch",),
    "mnnfile/test_dump_agreement.py": ("mnn",),
    "mnnfile/test_entries.py": ("torch",),
    "mnnfile/test_every_storage.py": ("torch",),
    "mnnfile/test_fused.py": ("torch",),
    "mnnfile/test_ledger.py": ("torch",),
    "mnnfile/test_model.py": ("torch",),
    "mnnfile/test_output_parts.py": ("mnn", "torch"),
    "mnnfile/test_pooling.py": ("torch",),
    "plugin": ("mnn", "torch", "pytester"),
    "quantize": ("mnn", "torch"),
    "quantize/test_mnnquant_crash.py": ("unit",),
    "report/test_html_in_a_browser.py": ("browser",),
    "runtime": ("mnn", "torch"),
    "sources/test_copy_check.py": ("torch",),
    "sources/test_data.py": ("torch",),
    "sources/test_forms_of_data.py": ("torch",),
    "sources/test_forward_operators.py": ("torch",),
    "sources/test_images.py": ("mnn", "torch"),
    "sources/test_model_digest.py": ("torch",),
    "sources/test_network_checks.py": ("torch",),
    "sources/test_onnx_data.py": ("torch",),
    "sources/test_pytorch.py": ("torch",),
    "sources/test_pytorch_batches.py": ("torch",),
    "sources/test_state_names.py": ("torch",),
    "sources/test_torch_call.py": ("torch",),
    "sources/test_torch_file.py": ("torch",),
    "sources/test_torch_module.py": ("torch",),
    "sources/test_torch_replacements.py": ("torch",),
    "targets": ("mnn",),
    "test_action.py": ("mnn", "torch", "pytester", "slow"),
    "test_integer_reference.py": ("mnn", "torch"),
    "test_shapes_of_models.py": ("mnn", "torch"),
    "zoo": ("mnn", "torch", "slow"),
}

#: What the makers of fixtures need.
_OF_FIXTURES: Final = {
    "workshop": ("mnn", "torch"),
    "pytester": ("pytester",),
    "browser": ("browser",),
    "host": ("ssh",),
    "hosts": ("ssh",),
}

#: What a unit test must not import: MNN's two packages, torch, and what only tests of models need.
FORBIDDEN: Final = ("MNN", "_tools", "torch", "onnx", "onnxruntime", "mnncompress", "selenium")

_CHILD_PROCESSES: Final = ("subprocess.Popen", "os.system", "os.fork", "os.forkpty", "os.posix_spawn", "os.exec")


def layers_of_path(path: str) -> tuple[str, ...]:
    """The layers of a module or folder, given relative to `tests/` with `/` between the parts."""
    parts = Path(path).parts
    for count in range(len(parts), 0, -1):
        if layers := NEEDS.get("/".join(parts[:count])):
            return layers
    return ("unit",)


def layers_of_test(path: str, fixtures: Collection[str], markers: Collection[str]) -> set[str]:
    """The layers of one test; `markers` are the names of all its own markers."""
    layers = {*layers_of_path(path), *(name for name in markers if name in LAYERS)}
    for fixture in fixtures:
        layers |= {*_OF_FIXTURES.get(fixture, ())}
    return layers - {"unit"} or {"unit"}


def may_hold_unit_tests(path: str) -> bool:
    """Whether a module may hold unit tests, or a folder may hold such a module."""
    below = (layers for name, layers in NEEDS.items() if name.startswith(f"{path}/"))
    return "unit" in layers_of_path(path) or any("unit" in layers for layers in below)


class ImportGuard:
    """A finder that makes the import of `FORBIDDEN` packages fail, as if they were not installed."""

    def install(self) -> None:
        """Guard this process from here on."""
        imported = [name for name in FORBIDDEN if name in sys.modules]
        assert not imported, f"imported too early: {imported}"
        sys.meta_path.insert(0, self)

    def find_spec(self, name: str, *_: object) -> None:
        """Raise `ModuleNotFoundError` for what unit tests must not import."""
        if name in FORBIDDEN:
            raise ModuleNotFoundError(f"unit tests must not import {name}: tests/layers.py", name=name)


class ProcessGuard:
    """Refuses child processes while a unit test runs; `test` is its name."""

    def __init__(self) -> None:
        self.test: str | None = None
        sys.addaudithook(self._audit)
        start = BaseProcess.start

        def guarded(process: BaseProcess) -> None:  # A process that is spawned has no audit event.
            self._refuse("multiprocessing")
            start(process)

        BaseProcess.start = guarded  # type: ignore[method-assign,assignment]

    def _audit(self, event: str, _arguments: object) -> None:
        if event in _CHILD_PROCESSES:
            self._refuse(event)

    def _refuse(self, how: str) -> None:
        if self.test:
            raise RuntimeError(f"{self.test} is a unit test and starts a child process ({how}): give it a marker")
