"""How well the size of a quantized model is predicted from its float model's layers, for models x recipes.

python benchmarks/size_prediction.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from common import MODELS, gate

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.evidence.check_runner import run_check
from pytest_mnnquant.evidence.variant import variant_under_test
from pytest_mnnquant.findings.check_metrics import metrics_of
from pytest_mnnquant.findings.file_metrics import SizeMetrics
from pytest_mnnquant.recipes.names import RECIPES, recipe_named

NAMES = (*RECIPES, "int8+w4", "w8-sym", "w4b32-hqq", "w8-scale16", "w3", "w2")


def main() -> None:
    """Print one row per variant."""
    worst = 0.0
    print(f"{'model':<20}{'recipe':<12}{'bytes':>10}{'expected':>10}{'off by':>9}")
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        for name in MODELS:
            source = gate(name, store)
            for recipe in NAMES:
                case = variant_under_test(source, recipe, "eval" if recipe_named(recipe).activations else None)
                metrics = metrics_of(SizeMetrics, [run_check(case, "size")])
                assert metrics is not None
                off = metrics.quantized_bytes / metrics.expected_bytes - 1
                worst = max(worst, abs(off))
                print(f"{name:<20}{recipe:<12}{metrics.quantized_bytes:>10,}{metrics.expected_bytes:>10,}{off:>+9.2%}")
    print(f"worst: {worst:.2%} (the check allows 3 % and 96 bytes a layer)")


if __name__ == "__main__":
    main()
