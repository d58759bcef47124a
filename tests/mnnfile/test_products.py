"""Files with multiplications by ones: everything else stays, and so does what MNN computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pytest_mnnquant.mnnfile.channel_classes import channel_classes, scaling_places
from pytest_mnnquant.mnnfile.model import read_model
from pytest_mnnquant.mnnfile.products import FACTORS, PRODUCT, with_products
from pytest_mnnquant.runtime.inference import run
from pytest_mnnquant.runtime.options import RunOptions
from tests.conftest import TIMEOUT
from tests.workshop import Workshop


def test_only_readers_read_the_products_and_outputs_stay(workshop: Workshop, tmp_path: Path) -> None:
    model = workshop.prepared("mobile_net").model
    places = scaling_places(model)
    assert len(places) > 3
    path = tmp_path / "products.mnn"
    path.write_bytes(with_products(model.path.read_bytes(), places))
    changed = read_model(path)
    added = {name for place in places for name in (place.name + FACTORS, place.name + PRODUCT)}
    assert set(changed.tensor_names) == {*model.tensor_names, *added}
    for place in places:
        readers = [op for op in changed.ops if place.name + PRODUCT in op.input_names]
        assert {op.outputs[0] for op in readers} == place.readers
        (product,) = (op for op in changed.ops if op.name == place.name + PRODUCT)
        assert product.input_names == (place.name, place.name + FACTORS)
    rewired = {output for place in places for output in place.readers}
    untouched = [op for op in changed.ops if op.outputs[0] not in rewired and op.name not in added]
    assert untouched == [op for op in model.ops if op.outputs[0] not in rewired]
    assert {op.name for op in channel_classes(changed).products} == {place.name + PRODUCT for place in places}
    data = workshop.prepared("mobile_net").data
    assert data is not None
    first, second = (run(each, data.head(4), RunOptions(TIMEOUT)).outputs["output"] for each in (model, changed))
    assert np.array_equal(first, second)
