"""Section G: models that were made well, and arrived otherwise."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Final

from pytest_mnnquant.quantize.float_model import prepare
from pytest_mnnquant.quantize.prepared import Choices
from pytest_mnnquant.sources.spec import Spec
from tests.conftest import FIXTURES, TIMEOUT, quietly
from tests.faults.corpus.mnnquant import retrained
from tests.faults.corpus.params_files import FLAG, W8, healthy, weight_only
from tests.faults.corpus.plan import Pair, Planted, fault
from tests.faults.corpus.tools import keep, known
from tests.faults.factory import HIDDEN, NET, Factory

#: Why rows of the catalogue's section G are not built here.
NOT_BUILT: Final = {
    "runtime-older-than-converter": "the file is right; the fault is in the runtime of the device, which "
    "--mnn-target runs: tests/targets/test_older_runtimes.py",
}
APART: Final = "--saveExternalData"
GARMENT: Final = "garment_classifier"


def external(factory: Factory, source: Path | None = None) -> Path:
    """An int8 model whose weights lie in a file of their own."""
    return factory.convert(source or factory.float(), APART, FLAG, factory.params())


def weights_of(model: Path) -> Path:
    return model.with_name(model.name + ".weight")


def judged(factory: Factory, model: Path, data: bool, params: bool = True) -> Planted:
    source, evaluation = (factory.onnx(), factory.evaluation()) if data else (factory.float(), None)
    return Planted(source, model, factory.params() if params else None, evaluation)


# External weights ----------------------------------------------------------------------------------------------------


def weights_lost(
    slug: str, change: Callable[[Factory, Path], Path], code: str = "MNQ803", layer: str = "", data: bool = True
) -> None:
    """A copy of the model, changed; returned is where it lies then."""

    @fault("G", slug, code, layer)
    def build(factory: Factory) -> Pair:
        if (model := known(factory, "lost", slug)) is None:
            model = keep(factory, change(factory, factory.copy(external(factory))), "lost", slug)
        return Pair(judged(factory, model, data), judged(factory, external(factory), data))


def without(_: Factory, model: Path) -> Path:
    weights_of(model).unlink()
    return model


def renamed(_: Factory, model: Path) -> Path:
    """The model has another name on the device; that of its weights follows from it."""
    return model.rename(model.with_name("digits-int8.mnn"))


def holding(content: Callable[[Factory, bytes], bytes]) -> Callable[[Factory, Path], Path]:
    def change(factory: Factory, model: Path) -> Path:
        path = weights_of(model)
        path.write_bytes(content(factory, path.read_bytes()))
        return model

    return change


def pointer(_: Factory, whole: bytes) -> bytes:
    """What a checkout without git-lfs leaves."""
    return b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d7a2146" * 8 + b"\nsize %d\n" % len(whole)


def of_retrained(factory: Factory, _: bytes) -> bytes:
    """The weights of another training, quantized with the same params: a file of the same length."""
    return weights_of(external(factory, factory.convert(retrained(factory)))).read_bytes()


def of_float(factory: Factory, _: bytes) -> bytes:
    return weights_of(factory.convert(factory.float(), APART)).read_bytes()


weights_lost("weight-file-missing", without)
weights_lost("weight-file-missing-without-data", without, data=False)
weights_lost("weight-file-missing-renamed", renamed)
weights_lost("weight-file-missing-lfs-pointer", holding(pointer))
weights_lost("weight-file-missing-empty", holding(lambda *_: b""), data=False)
weights_lost("weight-file-missing-cut", holding(lambda _, whole: whole[: len(whole) // 2]))
weights_lost("weight-file-missing-cut-at-the-end", holding(lambda _, whole: whole[:-4]))
weights_lost("weight-file-of-another-training", holding(of_retrained), "MNQ410", HIDDEN)
weights_lost("weight-file-of-another-training-without-data", holding(of_retrained), "MNQ410", HIDDEN, data=False)
weights_lost("weight-file-of-the-float-model", holding(of_float), "MNQ403", HIDDEN)
weights_lost("weight-file-of-zeros", holding(lambda _, whole: bytes(len(whole))), "MNQ403", HIDDEN)


@fault("G", "weight-file-missing-weight-only", "MNQ803")
def eight_bits_without_their_file(factory: Factory) -> Pair:
    whole = factory.convert(factory.onnx(), "--weightQuantBits", "8", APART)
    if (model := known(factory, "lost", "w8")) is None:
        model = keep(factory, without(factory, factory.copy(whole)), "lost", "w8")
    fault_, twin = (Planted(factory.onnx(), one, data=factory.evaluation(), options=W8) for one in (model, whole))
    return Pair(fault_, twin)


@fault("G", "weight-file-missing-of-the-source", "MNQ101")
def float_source_without_its_file(factory: Factory) -> Pair:
    """The float model that the int8 one is judged against has lost its weights."""
    whole = factory.convert(factory.float(), APART)
    if (model := known(factory, "lost", "float")) is None:
        model = keep(factory, without(factory, factory.copy(whole)), "lost", "float")
    fault_, twin = (Planted(one, factory.int8(), factory.params(), factory.evaluation()) for one in (model, whole))
    return Pair(fault_, twin)


# Another file under the name of this one -----------------------------------------------------------------------------


def shipped(
    slug: str,
    code: str,
    layer: str,
    other: Callable[[Factory], Path],
    data: bool = True,
    params: bool = False,
    options: tuple[str, ...] = (),
    twin: Callable[[Factory, bool], Planted] = healthy,
) -> None:
    """Another artifact of the same build, where the int8 model was to be."""

    @fault("G", slug, code, layer)
    def build(factory: Factory) -> Pair:
        source, evaluation = (factory.onnx(), factory.evaluation()) if data else (factory.float(), None)
        made = Planted(source, other(factory), factory.params() if params else None, evaluation, options=options)
        return Pair(made, twin(factory, data))


def int8_of_retrained(factory: Factory) -> Path:
    return factory.convert(factory.convert(retrained(factory)), FLAG, factory.params())


def eight_of_retrained(factory: Factory) -> Path:
    return factory.convert(retrained(factory), "--weightQuantBits", "8")


shipped("drift-float-model", "MNQ401", HIDDEN, lambda factory: factory.float())
shipped("drift-fp16-model", "MNQ402", HIDDEN, lambda factory: factory.convert(factory.onnx(), "--fp16"))
shipped(
    "drift-four-bits", "MNQ402", HIDDEN, lambda factory: factory.convert(factory.onnx(), "--weightQuantBits", "4"),
    data=False, options=W8, twin=weight_only,
)  # fmt: skip
shipped("drift-model-of-another-training", "MNQ410", HIDDEN, int8_of_retrained)
shipped("drift-model-of-another-training-beside-params", "MNQ410", HIDDEN, int8_of_retrained, params=True)
shipped(
    "drift-weights-of-another-training", "MNQ410", HIDDEN, eight_of_retrained,
    data=False, options=W8, twin=weight_only,
)  # fmt: skip
shipped(
    "drift-another-network", "MNQ203", "",
    lambda factory: factory.int8(GARMENT),
)  # fmt: skip
shipped("drift-source-and-result-swapped", "MNQ202", "", lambda factory: factory.onnx())


@fault("G", "drift-params-of-another-calibration", "MNQ305", HIDDEN)
def params_of_another_calibration(factory: Factory) -> Pair:
    """Calibrated again on brighter images, and the model of the first calibration kept."""
    if (params := known(factory, "brighter")) is None:
        module = factory.module(NET)
        brighter = {"x": 3 * module.calibration()["x"]}
        choices = Choices(FIXTURES, brighter, module.evaluation(), timeout=TIMEOUT)
        source = prepare(Spec("brighter", "brighter"), choices, factory.store, quietly, module.build())
        params = keep(factory, factory.params(source), "brighter")
    return Pair(Planted(factory.onnx(), factory.int8(), params, factory.evaluation()), healthy(factory))


@fault("G", "asymmetric-on-old-runtime", "MNQ402", HIDDEN)
def asymmetric_where_symmetric_was_asked(factory: Factory) -> Pair:
    """For an engine that knows symmetric weights only: the converter's default is the other, whatever its help says."""
    models = [
        factory.convert(factory.onnx(), "--weightQuantBits", "4", *flags)
        for flags in ([], ["--weightQuantAsymmetric=0"])
    ]
    made, twin = (
        Planted(factory.onnx(), one, data=factory.evaluation(), options=("--mnn-recipe=w4-sym",)) for one in models
    )
    return Pair(made, twin)


# What happens to files on their way ----------------------------------------------------------------------------------


def damaged(
    slug: str, change: Callable[[bytes], bytes], code: str = "MNQ202", layer: str = "", data: bool = False
) -> None:
    @fault("G", f"damaged-{slug}", code, layer)
    def build(factory: Factory) -> Pair:
        if (model := known(factory, "damaged", slug)) is None:
            content = change(factory.int8().read_bytes())
            path = factory.fresh("net.mnn")
            path.write_bytes(content)
            model = keep(factory, path, "damaged", slug)
        return Pair(judged(factory, model, data, params=False), judged(factory, factory.int8(), data, params=False))


def as_text_mode(whole: bytes) -> bytes:
    """What a transfer in text mode leaves of a binary file."""
    return whole.replace(b"\n", b"\r\n")


damaged("lfs-pointer", lambda whole: pointer(None, whole))  # type: ignore[arg-type]
damaged("error-page", lambda _: b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head></html>\n")
damaged("gzip", lambda whole: gzip.compress(whole, mtime=0))
damaged("text-mode", as_text_mode)
damaged("cut", lambda whole: whole[:-1000], data=True)
damaged("cut-to-blocks", lambda whole: whole[: len(whole) // 4096 * 4096])
damaged("zeros", lambda whole: bytes(len(whole)))
damaged("empty", lambda _: b"")


@fault("G", "damaged-a-block-of-zeros", "MNQ412", HIDDEN)
def a_block_of_zeros(factory: Factory) -> Pair:
    """A sector that was never written, in the middle of the largest layer's codes."""
    if (model := known(factory, "damaged", "sector")) is None:
        path = factory.copy(factory.int8())
        content = bytearray(path.read_bytes())
        middle = len(content) // 2
        content[middle : middle + 8192] = bytes(8192)
        path.write_bytes(bytes(content))
        model = keep(factory, path, "damaged", "sector")
    return Pair(judged(factory, model, True, params=False), judged(factory, factory.int8(), True, params=False))
