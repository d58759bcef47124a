"""The line that the wrapped tools end with."""

from __future__ import annotations

from pytest_mnnquant.cli.verify import Verdict
from pytest_mnnquant.quantize.prepared import Prepared
from pytest_mnnquant.quantize.variant import Variant


def test_a_file_that_grew_is_not_called_smaller(digits: Prepared, digits_w4: Variant) -> None:
    before, after = digits.model, digits_w4.model
    line = Verdict((), ()).line
    for first, second, word in ((before, after, "smaller"), (after, before, "LARGER")):
        assert f"x {word} than float" in line(first, second)
        assert f"({first.size:,} to {second.size:,}" in line(first, second)
