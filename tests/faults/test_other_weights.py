"""Models and params files that were made for other weights: of another training, or of another network."""

from __future__ import annotations

import os

import pytest
import torch
from torch.nn import functional

from pytest_mnnquant.quantize.prepared import Prepared
from tests.faults.conftest import JUDGED, Judge
from tests.faults.factory import FIRST, HIDDEN, LAST, NET, SECOND, Factory

DAY = 86_400


@pytest.fixture(scope="module")
def retrained(factory: Factory) -> Prepared:
    """The net of the repository after one more minute of training, as a team's next version is."""
    module = factory.module(NET)
    torch.manual_seed(0)
    images, labels = map(torch.from_numpy, module.digits_data.train(module.SIZE))
    net = module.build().train()
    optimizer = torch.optim.AdamW(net.parameters(), 3e-3)
    for _ in range(60):
        batch = torch.randint(len(images), (64,))
        loss = functional.cross_entropy(net(images[batch]), labels[batch])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    return factory.prepared(NET, net.eval())


def test_what_the_last_conversion_left_behind_fails_as_stale(
    factory: Factory, judge: Judge, retrained: Prepared
) -> None:
    source, stale = retrained.model.path, factory.copy(factory.int8())
    written = source.stat().st_mtime
    os.utime(stale, (written - 2 * DAY, written - 2 * DAY))
    verdict = judge(source, stale, params=factory.params())
    assert verdict.status == 1
    assert "int8::weights" in verdict.failed <= {"int8::weights", "int8::accuracy"}
    assert verdict.layers("MNQ410") == {FIRST, SECOND, HIDDEN, LAST}
    verdict.tells("MNQ410", why="2 days")


def test_a_newer_model_of_another_training_fails_too(factory: Factory, judge: Judge, retrained: Prepared) -> None:
    model = factory.copy(factory.int8())
    later = retrained.model.path.stat().st_mtime + DAY
    os.utime(model, (later, later))
    verdict = judge(retrained.model.path, model, "-k", "weights", still=True)
    assert verdict.status == 1
    verdict.tells("MNQ410", where=HIDDEN)


def test_params_of_the_weights_before_a_retraining_fail(factory: Factory, judge: Judge, retrained: Prepared) -> None:
    source, old = retrained.model.path, factory.params()
    model = factory.convert(source, "--compressionParamsFile", old)
    verdict = judge(source, model, params=old)
    assert verdict.status == 1
    assert verdict.failed == {"int8::weights"}  # Everything is stored in int8 and runs in int8, in the right size.
    assert {HIDDEN, LAST} <= verdict.layers("MNQ410")
    verdict.tells("MNQ410", where=LAST)


def test_params_of_the_weights_after_it_pass(factory: Factory, judge: Judge, retrained: Prepared) -> None:
    source, params = retrained.model.path, factory.params(retrained)
    verdict = judge(source, factory.convert(source, "--compressionParamsFile", params), params=params)
    assert verdict.status == 0, verdict.text
    assert verdict.passed == JUDGED


def test_a_model_made_with_another_params_file_fails(factory: Factory, judge: Judge, retrained: Prepared) -> None:
    verdict = judge(factory.float(), factory.int8(), "-k", "params", params=factory.params(retrained), still=True)
    assert verdict.status == 1
    assert verdict.layers("MNQ305") == {FIRST, SECOND, HIDDEN, LAST}
    verdict.tells("MNQ305", where="in the params file", fix="--compressionParamsFile")


def test_a_model_of_another_network_fails(factory: Factory, judge: Judge) -> None:
    verdict = judge(factory.float(), factory.int8("garment_classifier"))
    assert verdict.status == 1
    assert verdict.failed >= {"int8::conversion", "int8::coverage", "int8::weights", "int8::execution", "int8::size"}
    verdict.tells("MNQ203", where="4 of the source's 4 layers")
    assert "5 of its layers" in verdict.text
    other = "garment_classifier"
    healthy = judge(factory.float(other), factory.int8(other), data=factory.evaluation(other))
    assert healthy.status == 0, healthy.text
    assert healthy.skipped == {"int8::params"}
