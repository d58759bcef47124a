"""The line that the wrapped tools end with."""

from __future__ import annotations

from pytest_mnnquant.cli.verify import Verdict
from pytest_mnnquant.quantize.float_model import Prepared
from pytest_mnnquant.quantize.variant import Variant


def test_a_file_that_grew_is_not_called_smaller(digits: Prepared, digits_w4: Variant) -> None:
    before, after = digits.model, digits_w4.model
    line = Verdict((), ()).line
    assert f"x smaller than float ({before.size:,} to {after.size:,} bytes)" in line(before, after)
    assert f"x LARGER than float ({after.size:,} to {before.size:,} bytes)" in line(after, before)
