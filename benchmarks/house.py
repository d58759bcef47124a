"""How the code base is built: what a refactoring must make smaller, counted in one or several checkouts.

    python benchmarks/house.py [CHECKOUT ...]

Without an argument it counts in the checkout that it lies in. Everything is counted in the source, by ruff and by
Python's syntax trees; nothing is imported, so that older layouts are counted as well.

loose modules        `.py` files in the package's root, without `__init__.py`
layers               entries of import-linter's contract of type "layers"
largest module       lines of the longest module of the package
complex functions    ruff's C901: functions with a cyclomatic complexity above 10
metric lookups       `x["literal"]` and `x.get("literal")` in the package, if x is called `metrics`, `figures`,
                     `measured` or `task`, or is itself `y["metrics"]` or the like
tables of checks     dictionaries, tuples, lists and sets in the package that hold two or more names of checks as keys
                     or elements
prose assertions     `assert` statements in tests/ that hold a string of four words or more, a word being what
                     `str.split` makes; the parts of f-strings count as strings
other prose          strings of four words or more that are compared in other ways: `match=` of `pytest.raises` and
                     `pytest.warns`, and values of `pytest.mark.parametrize` whose argument an `assert` of the test uses

Commit 8de0896 had 26 loose modules, 18 layers, 706 lines in its largest module, 8 complex functions, 90 metric lookups,
25 tables of checks, 456 prose assertions and 408 strings of other prose.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PACKAGE = "pytest_mnnquant"
CHECKS = {
    *("conversion", "params", "coverage", "weights", "execution", "calibration"),
    *("accuracy", "latency", "memory", "size", "bundle", "baseline", "entries"),
}
OF_METRICS = {"metrics", "figures", "measured", "task"}
WORDS = 4
COMPLEXITY = 10


def modules(folder: Path) -> list[Path]:
    """All modules below a folder."""
    return sorted(folder.rglob("*.py"))


def nodes(folder: Path) -> Iterator[ast.AST]:
    """All nodes of all modules below a folder."""
    for path in modules(folder):
        yield from ast.walk(ast.parse(path.read_text(encoding="utf-8")))


def loose_modules(checkout: Path) -> int:
    """Modules in the package's root."""
    return len([path for path in (checkout / PACKAGE).glob("*.py") if path.name != "__init__.py"])


def layers(checkout: Path) -> int:
    """Layers of import-linter's contract."""
    settings = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))
    contracts: list[dict[str, Any]] = settings["tool"]["importlinter"]["contracts"]
    return sum(len(contract["layers"]) for contract in contracts if contract["type"] == "layers")


def largest_module(checkout: Path) -> str:
    """Lines and name of the longest module."""
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in modules(checkout / PACKAGE)}
    longest = max(lines, key=lambda path: lines[path])
    return f"{lines[longest]} {longest.relative_to(checkout / PACKAGE)}"


def complex_functions(checkout: Path) -> int:
    """Functions that ruff calls too complex."""
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--no-cache", "--exit-zero", "--output-format=json"]
    command += ["--select=C901", f"--config=lint.mccabe.max-complexity={COMPLEXITY}", str(checkout / PACKAGE)]
    found: list[object] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return len(found)


def metric_lookups(checkout: Path) -> int:
    """Metrics that are looked up by a literal key."""
    return sum(_is_metric_lookup(node) for node in nodes(checkout / PACKAGE))


def _is_metric_lookup(node: ast.AST) -> bool:
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
        return _text(node.slice) is not None and _holds_metrics(node.value)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get" and node.args:
        return _text(node.args[0]) is not None and _holds_metrics(node.func.value)
    return False


def _holds_metrics(value: ast.expr) -> bool:
    if isinstance(value, ast.Subscript):
        return _text(value.slice) in OF_METRICS
    return (isinstance(value, ast.Name) and value.id in OF_METRICS) or (
        isinstance(value, ast.Attribute) and value.attr in OF_METRICS
    )


def _text(node: ast.AST | None) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def tables_of_checks(checkout: Path) -> int:
    """Literals that hold several names of checks."""
    return sum(len({_text(part) for part in _parts(node)} & CHECKS) > 1 for node in nodes(checkout / PACKAGE))


def _parts(node: ast.AST) -> list[ast.expr | None]:
    if isinstance(node, ast.Dict):
        return [*node.keys]
    return [*node.elts] if isinstance(node, (ast.Tuple, ast.List, ast.Set)) else []


def prose_assertions(checkout: Path) -> int:
    """Assertions that pin four words or more."""
    return sum(isinstance(node, ast.Assert) and bool(_prose(node)) for node in nodes(checkout / "tests"))


def _prose(node: ast.AST) -> list[str]:
    """The strings of four words or more in a node."""
    texts = (_text(part) for part in ast.walk(node))
    return [text for text in texts if text is not None and len(text.split()) >= WORDS]


def other_prose(checkout: Path) -> int:
    """Strings of four words or more in `match=`, and in values of parameters that an assertion uses."""
    found = 0
    for node in nodes(checkout / "tests"):
        if isinstance(node, ast.Call):
            found += sum(len(_prose(keyword.value)) for keyword in node.keywords if keyword.arg == "match")
        if isinstance(node, ast.FunctionDef):
            found += sum(map(len, map(_prose, _asserted_values(node))))
    return found


def _asserted_values(function: ast.FunctionDef) -> Iterator[ast.expr]:
    """The values of a test's parameters, literally given, whose names stand in one of its assertions."""
    assertions = (node for node in ast.walk(function) if isinstance(node, ast.Assert))
    used = {name.id for node in assertions for name in ast.walk(node.test) if isinstance(name, ast.Name)}
    for call in function.decorator_list:
        if isinstance(call, ast.Call) and ast.unparse(call.func).endswith("parametrize") and len(call.args) > 1:
            names = [part.strip() for text in _strings(call.args[0]) for part in text.split(",")]
            for row in call.args[1].elts if isinstance(call.args[1], (ast.List, ast.Tuple)) else []:
                values = row.args if isinstance(row, ast.Call) else getattr(row, "elts", [row])
                pairs = zip(names, values if len(names) > 1 else [row], strict=False)
                yield from (value for name, value in pairs if name in used)


def _strings(node: ast.AST) -> list[str]:
    return [text for text in map(_text, ast.walk(node)) if text is not None]


MEASURES: dict[str, Callable[[Path], object]] = {
    "loose modules": loose_modules,
    "layers": layers,
    "largest module": largest_module,
    "complex functions": complex_functions,
    "metric lookups": metric_lookups,
    "tables of checks": tables_of_checks,
    "prose assertions": prose_assertions,
    "other prose": other_prose,
}


def main() -> None:
    """Print a row for each measure, with a column for each checkout."""
    here = Path(__file__).resolve().parent.parent
    checkouts = [Path(name).resolve() for name in sys.argv[1:]] or [here]
    for name, measure in MEASURES.items():
        print(f"{name:18}", *(f"{measure(checkout)!s:32}" for checkout in checkouts))


if __name__ == "__main__":
    main()
