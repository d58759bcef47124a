"""Tables of the configuration file."""

from __future__ import annotations

import pytest

from pytest_mnnquant.config.toml_file import table_values


def test_tables_may_use_plurals_and_only_what_belongs_to_a_model() -> None:
    table = {"recipes": ["w4"], "skip_layers": ["a*"], "min_cosine": 0.9, "models": {}, "mode": "train"}
    assert table_values(table, "t", ("models",)) == {
        "recipe": ("w4",),
        "skip_layer": ("a*",),
        "min_cosine": 0.9,
        "mode": "train",
    }
    for key in ("models", "min_cosin", "mnn_mode", "report", "strict", "config"):
        with pytest.raises(ValueError, match=rf"^t: unknown key '{key}'; known: .*min_cosine"):
            table_values({key: "x"}, "t", ())
    with pytest.raises(ValueError, match=r"^t: recipes: unknown recipe 'int4'"):
        table_values({"recipes": ["int4"]}, "t", ())
