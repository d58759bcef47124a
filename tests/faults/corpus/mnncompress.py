"""Section B: what the original PyTorch quantizer writes when its calibration goes wrong, or when it is called wrongly.

The files come from mnncompress itself, run in a process of its own by the scripts of `mnncompress_scripts.py`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pytest_mnnquant.cache.manifest import file_digest
from pytest_mnnquant.mnnfile.model import read_model
from pytest_mnnquant.mnnfile.params import read_params, write_params
from pytest_mnnquant.quantize.pipeline import PipelineInput, run_pipeline
from pytest_mnnquant.runtime.options import RunOptions
from pytest_mnnquant.sources.data import as_dataset
from pytest_mnnquant.sources.spec import parse_spec
from tests.conftest import FIXTURES, TIMEOUT
from tests.faults.corpus.converter import plain
from tests.faults.corpus.params_files import FLAG
from tests.faults.corpus.plan import ANY, Pair, Planted, fault
from tests.faults.factory import NET, Factory

SCRIPTS = Path(__file__).parent.parent / "mnncompress_scripts.py"
TRANSFORMER = "tiny_transformer"
#: Their names of the layers; the Linear layer with a ReLU is the heaviest.
FIRST, HIDDEN = "/Conv_output_0", "/Gemm_output_0__matmul_converted"
#: Why rows of the catalogue's section B are not built here.
NOT_BUILT = {
    "protobuf/yaml env": "the import fails, aloud, before there is any model",
    "resume-after-strip": "training raises, aloud; no model comes of it",
}


def theirs(factory: Factory, script: str, net: str = NET, pipeline: str = "all_of_them") -> tuple[Path, Path]:
    """The ONNX model and the params file that a script of mnncompress leaves, made once for all tests of a run.

    `pipeline` is the callable that runs scripts, each in a folder of its name.
    """

    def build(folder: Path) -> None:
        module, spec = factory.module(net), parse_spec(f"{net}.py:build", FIXTURES)
        data = as_dataset(module.calibration(), ("x",), "calibration")
        run_pipeline(
            f"{SCRIPTS}:{pipeline}",
            FIXTURES,
            PipelineInput(spec, module.build(), data, "eval"),
            folder,
            RunOptions(TIMEOUT),
        )

    inputs = {"net": net, "pipeline": pipeline, "scripts": file_digest(SCRIPTS)}
    folder = factory.store.folder("planted-mnncompress", inputs, build) / script
    return folder / "net.onnx", folder / "params.bin"


def bound(factory: Factory, script: str) -> tuple[Path, Path]:
    """The same with the name of the Linear layer with a ReLU, which MNN gives to another tensor, put right."""
    onnx, params = theirs(factory, script)
    key = ("bound", script)
    if key not in factory._known:
        layers = read_model(factory.convert(onnx)).layers
        names = [entry.name for entry in read_params(params).layers]
        right = factory.fresh("bound.bin")
        write_params(read_params(params).renamed({names[2]: layers[2].output_names[0]}), right)
        factory._known[key] = right
    return onnx, factory._known[key]


def finished(factory: Factory, script: str, *flags: str, data: bool = True, source: str = "") -> Planted:
    """The model that a script's files give, judged by the script's own ONNX model, or that of the script `source`."""
    onnx, params = bound(factory, script)
    given = theirs(factory, source or script)[0]
    evaluation = factory.evaluation() if data else None
    return Planted(given, factory.convert(onnx, FLAG, params, *flags), params, evaluation)


def spoilt(slug: str, script: str, code: str, layer: str, *, source: str = "") -> None:
    """A finished model of a script that went wrong, beside that of the careful one."""

    @fault("B", slug, code, layer)
    def build(factory: Factory) -> Pair:
        return Pair(finished(factory, script, source=source), finished(factory, "careful"))


def pipeline(script: str, net: str = TRANSFORMER) -> Planted:
    """A script as a pipeline that the gate runs itself."""
    options = (f"--mnn-recipe=theirs={SCRIPTS}:{script}@int8", "--mnn-mode=eval")
    return Planted(f"{FIXTURES / net}.py:build", options=options)


def watched(slug: str, script: str, code: str, layer: str = "") -> None:
    @fault("B", slug, code, layer)
    def build(factory: Factory) -> Pair:
        return Pair(pipeline(script), pipeline("careful"))


# Ranges that are not those of the data -------------------------------------------------------------------------------


spoilt("export-dummy-calibrates", "wild_dummy", "MNQ541", ANY)
watched("export-dummy-calibrates-watched", "wild_dummy", "MNQ505")
spoilt("first-batch-dominates", "faint_first", "MNQ540", ANY)
spoilt("first-batch-dominates-loud", "loud_first", "MNQ541", ANY)
spoilt("eval-drifts-scales", "evaluated_afterwards", "MNQ541", ANY)
watched("eval-drifts-scales-watched", "evaluated_afterwards", "MNQ505")
spoilt("online-without-training", "online_untrained", "MNQ540", ANY)
watched("first-batch-dominates-watched", "faint_first", "MNQ540", ANY)
watched("online-without-training-watched", "online_untrained", "MNQ540", ANY)
watched("online-never-run-watched", "without_a_loop", "MNQ501")


@fault("B", "first-batch-dominates-data", "MNQ512")
def a_faint_first_batch_of_the_data(factory: Factory) -> Pair:
    """The recipe that runs mnncompress knows how it averages."""
    key = ("faint", TRANSFORMER)
    if key not in factory._known:
        images = factory.module(TRANSFORMER).calibration()["x"]
        faint, late = factory.fresh("faint.npz"), factory.fresh("late.npz")
        np.savez(faint, x=np.concatenate([0.01 * images[:32], images]))
        np.savez(late, x=np.concatenate([images, 0.01 * images[:32]]))
        factory._known[key] = faint, late
    source, options = f"{FIXTURES / TRANSFORMER}.py:build", ("--mnn-recipe=mnncompress", "--mnn-mode=eval")
    wrong, twin = (Planted(source, calibration=data, options=options) for data in factory._known[key])
    return Pair(wrong, twin)


# Networks that are not those the params were made for ----------------------------------------------------------------


@fault("B", "stale-params-retrained-weights", "MNQ410", HIDDEN)
def params_of_an_earlier_training(factory: Factory) -> Pair:
    """The network was trained on, and converted with the params that were there."""
    trained, params = theirs(factory, "fine_tuned")[0], bound(factory, "careful")[1]
    model = factory.convert(trained, FLAG, params)
    return Pair(Planted(trained, model, params, factory.evaluation()), finished(factory, "fine_tuned"))


@fault("B", "stale-params-retrained-weights-params-not-given", "MNQ410", HIDDEN)
def params_of_an_earlier_training_that_nobody_kept(factory: Factory) -> Pair:
    trained, params = theirs(factory, "fine_tuned")[0], bound(factory, "careful")[1]
    model = factory.convert(trained, FLAG, params)
    healthy = finished(factory, "fine_tuned")
    return Pair(
        Planted(trained, model, data=factory.evaluation()), Planted(trained, healthy.quantized, data=healthy.data)
    )


def append_crash(slug: str, code: str, layer: str, *, told: bool) -> None:
    @fault("B", slug, code, layer)
    def build(factory: Factory) -> Pair:
        """save_compress_params(append=True) raised, and the file of an earlier training stayed where it was."""
        key = ("appended twice",)
        if key not in factory._known:
            old = bound(factory, "careful")[1].read_bytes()
            factory._known[key] = factory.fresh("twice.bin", old + old)  # Of protobuf messages that is a sum.
        onnx, twice = theirs(factory, "crashed_append")[0], factory._known[key]
        model = factory.convert(onnx, FLAG, twice)
        twin = finished(factory, "fine_tuned")
        data = factory.evaluation()
        return Pair(
            Planted(onnx, model, twice if told else None, data),
            Planted(twin.source, twin.quantized, twin.params if told else None, data),
        )


append_crash("append-crash", "MNQ302", "", told=True)
append_crash("append-crash-params-not-given", "MNQ410", HIDDEN, told=False)
spoilt("calibration-that-trains", "fine_tuned", "MNQ410", HIDDEN, source="careful")


# Bits ----------------------------------------------------------------------------------------------------------------


spoilt("lsq-bits-no-smaller", "four_bits", "MNQ413", HIDDEN)


@fault("B", "lsq-bits-no-smaller-requested", "MNQ402", HIDDEN)
def four_bits_asked_of_lsq(factory: Factory) -> Pair:
    """Whoever wants four bits gets the eight of any other model, and a clamp to sevens."""
    onnx, params = bound(factory, "four_bits")
    model, four = factory.convert(onnx, FLAG, params), ("--mnn-recipe=w4",)
    twin = factory.convert(onnx, "--weightQuantBits", "4")
    data = factory.evaluation()
    return Pair(Planted(onnx, model, data=data, options=four), Planted(onnx, twin, data=data, options=four))


def weight_only(slug: str, script: str, recipe: str, code: str, layer: str, made: list[str], meant: list[str]) -> None:
    """Files of WeightQuantizer, which knows bits that it does not write down."""

    @fault("B", slug, code, layer)
    def build(factory: Factory) -> Pair:
        onnx, params = theirs(factory, script)
        models = [factory.convert(onnx, FLAG, params, *flags) for flags in (made, meant)]
        data, options = factory.evaluation(), (f"--mnn-recipe={recipe}",)
        wrong, right = (Planted(onnx, model, data=data, options=options) for model in models)
        return Pair(wrong, right)


BITS, SYMMETRIC = "--weightQuantBits", "--weightQuantAsymmetric=0"
weight_only("weightquantizer-empty-params", "weights_alone", "w8-sym", "MNQ401", HIDDEN, [], [BITS, "8", SYMMETRIC])
weight_only(
    "weightquantizer-grid-mismatch",
    "weights_alone_of_four_bits",
    "w4-sym",
    "MNQ402",
    HIDDEN,
    [BITS, "8"],
    [BITS, "4", SYMMETRIC],
)
weight_only(
    "weightquantizer-grid-mismatch-asymmetric",
    "weights_alone_of_four_bits",
    "w4-sym",
    "MNQ402",
    HIDDEN,
    [BITS, "4"],
    [BITS, "4", SYMMETRIC],
)


def without_layers(slug: str, script: str, twin: str) -> None:
    @fault("B", slug, "MNQ303")
    def build(factory: Factory) -> Pair:
        onnx, params = theirs(factory, script)
        model = factory.convert(onnx, FLAG, params)
        return Pair(Planted(onnx, model, params, factory.evaluation()), finished(factory, twin))


without_layers("weightquantizer-empty-params-given", "weights_alone", "careful")
without_layers("append-overwrites", "weights_afterwards", "weights_appended")


# Simulated, and deployed otherwise -----------------------------------------------------------------------------------


@fault("B", "simulated-accuracy-not-deployed", "MNQ304", HIDDEN)
def a_layer_that_only_the_simulation_quantizes(factory: Factory) -> Pair:
    onnx, params = theirs(factory, "careful")
    model = factory.convert(onnx, FLAG, params)
    return Pair(Planted(onnx, model, params, factory.evaluation()), finished(factory, "careful"))


@fault("B", "simulated-accuracy-not-deployed-params-not-given", "MNQ401", HIDDEN)
def a_layer_that_only_the_simulation_quantizes_untold(factory: Factory) -> Pair:
    onnx, params = theirs(factory, "careful")
    model, twin = factory.convert(onnx, FLAG, params), finished(factory, "careful", data=False)
    source = factory.convert(onnx)
    return Pair(Planted(source, model), Planted(source, twin.quantized))


def beside(slug: str, code: str, layer: str, name: str, other: str) -> None:
    """A network of which MNN computes something else than the simulation, and one that differs by a line."""

    @fault("B", slug, code, layer)
    def build(factory: Factory) -> Pair:
        def planted(network: str) -> Planted:
            onnx, params = theirs(factory, network, pipeline="networks")
            return Planted(onnx, factory.convert(onnx, FLAG, params), params, plain(factory))

        return Pair(planted(name), planted(other))


beside("simulated-accuracy-not-deployed-norm", "MNQ702", "/2/BatchNormalization_output_0", "norm after", "norm before")
beside("simulated-accuracy-not-deployed-sum", "MNQ702", "/Add_output_0", "sum before", "sum after")
