"""All planted faults: of every module beside this one."""

from __future__ import annotations

import importlib
import pkgutil

from tests.faults import corpus
from tests.faults.corpus.plan import FAULTS, Fault

for _module in sorted(module.name for module in pkgutil.iter_modules(corpus.__path__)):
    if _module not in ("every", "plan"):
        importlib.import_module(f"{corpus.__name__}.{_module}")

__all__ = ["FAULTS", "Fault"]
