"""Whether the stored weights of a whole model can be decoded, whatever uses them."""

from __future__ import annotations

from pytest_mnnquant.mnnfile.model import BadModel, Model
from pytest_mnnquant.mnnfile.storage import Storage
from pytest_mnnquant.mnnfile.structure import Difference


def undecodable(model: Model) -> Difference | None:
    """The first operator whose weights contradict their header, or are cut, and the reason; None if there is none.

    Weights of forms that have no values of their own are left out: scales of products, and unknown storage.
    """
    external = model.bytes_at(0, model.size - model.main_size, external=True)
    for op in model.ops:
        for weights in op.weights:
            if weights.of_product or weights.storage is Storage.OTHER:
                continue
            if not weights.intact:
                return Difference(op.name, "its buffer does not match its header")
            try:
                weights.decoded(external)
            except BadModel as error:
                return Difference(op.name, str(error))
    return None
