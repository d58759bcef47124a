"""The catalogue of checks and rules. Each is registered here once.

The marker, the items, the assertion, the metrics and the charts of a check follow from its entry. Loading this module
loads no check: an entry names its functions as `module:function` of this package.
"""

from __future__ import annotations

from typing import Final

from pytest_mnnquant.findings.check import Check, RunsOn
from pytest_mnnquant.findings.effects import (
    ALONE,
    APIS_DIFFER,
    BAD_BUFFER,
    BAD_FILE,
    BAD_OPTION,
    BAD_OUTPUT,
    BAD_PARAMS,
    BAD_RANGES,
    CHANCE_SCALES,
    DID_NOT_RUN,
    IS_FLOAT,
    IS_NOT_FLOAT,
    MISREAD,
    NO_ENTRY,
    NO_MODEL,
    NO_PARAMS,
    NO_SOURCE,
    NO_WEIGHTS,
    NOT_APPLIED,
    OTHER_GRAPH,
    OTHER_PRECISION,
    OTHER_SCALES,
    OTHER_TOKENIZER,
    OTHER_VALUES,
    OTHER_WEIGHTS,
    RAN_OTHERWISE,
)
from pytest_mnnquant.findings.rule import Rule, Severity

#: The checks of a variant, in order of dependence.
CHECKS: Final = (
    Check(
        "conversion",
        "checks.conversion.check:check_conversion",
        "findings.file_metrics:ConversionMetrics",
        assertion="assert_converted",
        is_static=True,
        meaning="The float .mnn computes what the source computes, and the variant is a model of the same network.",
        rules=("MNQ104", "MNQ11", "MNQ12", "MNQ203", "MNQ204"),
        options=("exporter",),
    ),
    Check(
        "params",
        "checks.params.check:check_params",
        "findings.file_metrics:ParamsMetrics",
        assertion="assert_params_applied",
        is_static=True,
        meaning="The params file exists, parses, names the model's tensors, and was applied.",
        rules=("MNQ3",),
        options=("params", "skip_layer"),
    ),
    Check(
        "coverage",
        "checks.coverage.check:check_coverage",
        "findings.file_metrics:CoverageMetrics",
        assertion="assert_quantized",
        is_static=True,
        meaning="The weights are stored in the requested precision, layer by layer.",
        rules=("MNQ40",),
        options=("min_coverage", "skip_layer"),
    ),
    Check(
        "weights",
        "evidence.weights_check:judge_weights",
        "findings.file_metrics:WeightsMetrics",
        assertion="assert_weights_preserved",
        chart="evidence.chart_samples:weight_samples",
        is_static=True,
        meaning="The stored weights, decoded, equal the source's up to rounding.",
        rules=("MNQ403", "MNQ41"),
    ),
    Check(
        "execution",
        "checks.execution:check_execution",
        "findings.run_metrics:ExecutionMetrics",
        assertion="assert_int8_executed",
        runs_on=RunsOn.TARGET,
        restated_by=("accuracy",),
        meaning="Layers that are stored in int8 ran in int8, by the runtime's trace.",
        rules=("MNQ002", "MNQ60", "MNQ61", "MNQ63", "MNQ64"),
        options=("memory_mode", "target"),
    ),
    Check(
        "size",
        "checks.size:check_size",
        "findings.file_metrics:SizeMetrics",
        assertion="assert_size_reduction",
        is_static=True,
        meaning="The file is as small as its layers and the recipe predict, or as required.",
        rules=("MNQ801", "MNQ802"),
        options=("min_size_ratio",),
    ),
    Check(
        "bundle",
        "checks.bundle:check_bundle",
        "findings.file_metrics:BundleMetrics",
        assertion="assert_bundle_complete",
        is_static=True,
        meaning="All files that must be deployed together exist and match.",
        rules=("MNQ803", "MNQ804", "MNQ81"),
    ),
    Check(
        "calibration",
        "checks.calibration.check:check_calibration",
        "findings.run_metrics:CalibrationMetrics",
        assertion="assert_calibration_sufficient",
        chart="evidence.chart_samples:activation_samples",
        meaning="The calibration data were sufficient and similar to the evaluation data, and the ranges fit them.",
        rules=("MNQ417", "MNQ5"),
        options=("calibration", "evaluation", "mode"),
    ),
    Check(
        "accuracy",
        "evidence.accuracy_check:judge_accuracy",
        "findings.accuracy_metrics:AccuracyMetrics",
        chart="evidence.sample_views:accuracy_samples",
        runs_on=RunsOn.TARGET,
        after=("execution", "calibration"),
        meaning="The outputs, as on ARM, are as good as required: by labels, else by similarity to the float model.",
        rules=("MNQ7",),
        options=(
            "evaluation",
            "metric",
            "max_accuracy_drop",
            "min_accuracy_ratio",
            "min_float_accuracy",
            "min_cosine",
            "min_agreement",
            "min_sqnr",
            "max_kl",
            "memory_mode",
            "suggest",
            "suggest_time",
        ),
    ),
    Check(
        "latency",
        "checks.latency:check_latency",
        "findings.run_metrics:LatencyMetrics",
        chart="evidence.chart_samples:timed_pairs",
        runs_on=RunsOn.DEVICE,
        is_timed=True,
        meaning="The latency of the variant / the latency of the float model, timed in pairs, is within the limit.",
        rules=("MNQ723", "MNQ901", "MNQ902"),
        options=(
            "max_latency_ratio",
            "latency_reference",
            "threads",
            "precision",
            "memory_mode",
            "batch",
            "latency_time",
        ),
    ),
    Check(
        "memory",
        "checks.memory:check_memory",
        "findings.run_metrics:MemoryMetrics",
        runs_on=RunsOn.DEVICE,
        meaning="The model can be loaded and run; the memory of the session is recorded.",
        rules=("MNQ903",),
        options=("threads", "memory_mode"),
    ),
)

#: Their names, in the same order.
CHECK_NAMES: Final = tuple(check.name for check in CHECKS)
#: With a baseline file: the last check of each variant, and the check of the file itself.
BASELINE: Final = "baseline"
ENTRIES: Final = "entries"
#: All checks that a report may hold.
ALL_CHECKS: Final = (
    *CHECKS,
    Check(
        BASELINE,
        metrics="findings.baseline_metrics:BaselineMetrics",
        meaning="No metric is worse than the accepted one in the baseline file by more than its tolerance.",
        rules=("MNQ910", "MNQ911", "MNQ913", "MNQ914", "MNQ915", "MNQ916", "MNQ917"),
        options=("baseline", "update_baseline"),
    ),
    Check(
        ENTRIES,
        meaning="The baseline file can be read, and all models and variants in it still exist.",
        rules=("MNQ910", "MNQ912"),
        options=("baseline", "update_baseline"),
    ),
)
_ALL: Final = {check.name: check for check in ALL_CHECKS}
#: The names of all checks that a report may hold.
ALL_NAMES: Final = tuple(_ALL)


def check_named(name: str) -> Check:
    """The check of this name, `baseline` and `entries` among them. Raises `KeyError`."""
    return _ALL[name]


_E, _W, _G = Severity.ERROR, Severity.WARNING, Severity.GAP

#: The rules by code. Codes are stable once released; the first digit is the chapter.
RULES: Final = {
    rule.code: rule
    for rule in (
        Rule("MNQ001", "nothing-checked", _E, "There was nothing to judge. Missing evidence is not a pass.", ALONE),
        Rule("MNQ002", "no-op-trace", _G, "The runtime gave no trace of its operators, so what ran is unknown.", ALONE),
        Rule("MNQ003", "not-measured", _G, "A metric could not be measured on this machine.", ALONE),
        Rule("MNQ004", "internal-error", _E, "A step of the gate itself raised an exception.", ALONE),
        Rule("MNQ101", "source-unusable", _E, "The model can't be loaded, copied, run or exported.", NO_SOURCE),
        Rule("MNQ102", "data-unusable", _E, "The calibration or evaluation data do not fit the model.", NO_SOURCE),
        Rule("MNQ104", "source-quantized", _E, "The model given as the float source is already quantized.", NO_SOURCE),
        Rule("MNQ110", "conversion-differs", _E, "The float .mnn does not compute what the source computes.", ALONE),
        Rule("MNQ111", "conversion-unproven", _G, "The float .mnn could not be compared with its source.", ALONE),
        Rule(
            "MNQ112", "export-differs", _E, "The ONNX export does not compute what the PyTorch model computes.", ALONE
        ),
        Rule("MNQ113", "conversion-unstable", _E, "The same conversion, run twice, gives two different models.", ALONE),
        Rule("MNQ114", "batches-differ", _E, "Several samples at once give other outputs than one by one.", ALONE),
        Rule("MNQ115", "signatures-left-out", _W, "MNN converts only the first subgraph of a TFLite file.", ALONE),
        Rule(
            "MNQ120", "architecture-differs", _E, "The export does not have the architecture of its source.", NO_MODEL
        ),
        Rule("MNQ121", "tokenizer-differs", _E, "The export's tokenizer is not the source's.", OTHER_TOKENIZER),
        Rule("MNQ122", "template-differs", _E, "The export's chat template is not the source's.", OTHER_TOKENIZER),
        Rule(
            "MNQ123",
            "special-tokens-differ",
            _E,
            "The tokens that begin or end a text are not the source's.",
            ALONE,
        ),
        Rule(
            "MNQ124",
            "constant-differs",
            _E,
            "A constant (rotation of positions, epsilon, attention scale) is not the source's.",
            OTHER_GRAPH,
        ),
        Rule("MNQ125", "tensor-missing", _E, "A tensor of the source is nowhere in the export.", OTHER_GRAPH),
        Rule("MNQ126", "encoding-differs", _E, "The export's tokenizer gives other ids than the source's.", ALONE),
        Rule("MNQ127", "message-differs", _E, "The export renders a message otherwise than the source.", ALONE),
        Rule("MNQ128", "tokenizer-ambiguous", _W, "transformers encodes texts otherwise than tokenizer.json.", ALONE),
        Rule(
            "MNQ201",
            "native-step-failed",
            _E,
            "A tool of MNN crashed, hung or did not produce its result.",
            DID_NOT_RUN,
        ),
        Rule("MNQ202", "model-unreadable", _E, "The quantized file is missing or is not a complete model.", NO_MODEL),
        Rule("MNQ203", "network-mismatch", _E, "The quantized file holds another network than the source.", NO_MODEL),
        Rule(
            "MNQ204",
            "operator-differs",
            _E,
            "An operator's attributes or connections differ from the float model's.",
            OTHER_GRAPH,
        ),
        Rule("MNQ301", "params-missing", _E, "The params file does not exist.", NO_PARAMS),
        Rule(
            "MNQ302",
            "params-unreadable",
            _E,
            "The params file can't be parsed or holds impossible values.",
            BAD_PARAMS,
        ),
        Rule(
            "MNQ303",
            "params-not-calibrated",
            _E,
            "The params file does not come from a calibration: it holds no scales of activations.",
            NO_PARAMS,
        ),
        Rule(
            "MNQ304",
            "params-name-mismatch",
            _E,
            "An entry of the params file names a tensor that the model does not have.",
            NO_ENTRY,
        ),
        Rule("MNQ305", "params-not-applied", _E, "The model does not hold the values of the params file.", NOT_APPLIED),
        Rule("MNQ306", "params-incomplete", _E, "The params file has no entry for a layer of the model.", NO_ENTRY),
        Rule(
            "MNQ310", "option-not-applied", _E, "A layer is not stored as the exporter's options request.", BAD_PARAMS
        ),
        Rule("MNQ311", "option-ignored", _W, "The exporter does not read an option that was given.", ALONE),
        Rule(
            "MNQ312",
            "option-harmful",
            _E,
            "With this option or value the exporter stores weights that are read wrongly.",
            BAD_OPTION,
        ),
        Rule(
            "MNQ313",
            "option-for-no-layer",
            _E,
            "The layer-wise configuration names a layer that does not exist.",
            NO_ENTRY,
        ),
        Rule("MNQ314", "export-unproven", _G, "A part of the export has nothing to be compared with.", ALONE),
        Rule("MNQ315", "gptq-not-applied", _E, "A layer does not hold what the GPTQ checkpoint holds.", BAD_PARAMS),
        Rule("MNQ401", "layer-is-float", _E, "A layer's weights are not quantized.", IS_FLOAT),
        Rule(
            "MNQ402",
            "precision-mismatch",
            _E,
            "A layer's weights are stored at a different precision than requested.",
            OTHER_PRECISION,
        ),
        Rule("MNQ404", "skip-matches-nothing", _W, "A pattern of --mnn-skip-layer matches no layer.", ALONE),
        Rule(
            "MNQ405",
            "skipped-layer-quantized",
            _E,
            "A layer that --mnn-skip-layer keeps float is not stored as float.",
            IS_NOT_FLOAT,
        ),
        Rule(
            "MNQ406",
            "large-constants",
            _W,
            "Constants that are not weights hold a large share of the model, and stay float.",
            ALONE,
        ),
        Rule("MNQ403", "weight-buffer-corrupt", _E, "A layer's weight buffer contradicts its header.", BAD_BUFFER),
        Rule("MNQ410", "weights-differ", _E, "A layer's stored weights are not the source's weights.", OTHER_WEIGHTS),
        Rule(
            "MNQ411",
            "bias-or-norm-differs",
            _E,
            "A bias or a normalization's parameters differ from the source's.",
            OTHER_VALUES,
        ),
        Rule("MNQ412", "channels-lost", _E, "Channels of a layer hold other values than the source's.", OTHER_VALUES),
        Rule(
            "MNQ413",
            "scales-too-coarse",
            _E,
            "A layer's quantization steps are far coarser than its weights need.",
            OTHER_VALUES,
        ),
        Rule(
            "MNQ414",
            "block-dropped",
            _E,
            "A layer has per-channel scales where per-block scales were requested.",
            OTHER_VALUES,
        ),
        Rule("MNQ415", "scale-format-mismatch", _E, "A layer's scales are not in the requested format.", OTHER_VALUES),
        Rule(
            "MNQ416",
            "scales-inconsistent",
            _E,
            "A layer and its tensor have different scales or zero points.",
            OTHER_SCALES,
        ),
        Rule(
            "MNQ417",
            "scale-invalid",
            _E,
            "A tensor's scale is infinite, negative, NaN or absurdly large.",
            OTHER_SCALES,
        ),
        Rule(
            "MNQ418",
            "address-dependent-scale",
            _E,
            "A tensor's scale depends on memory addresses in the runtime.",
            CHANCE_SCALES,
        ),
        Rule("MNQ501", "calibration-without-data", _E, "No calibration data went through the model.", BAD_RANGES),
        Rule("MNQ502", "calibrated-with-gradients", _W, "Gradients were recorded during calibration.", ALONE),
        Rule(
            "MNQ503",
            "calibration-mode-mismatch",
            _W,
            "The model was calibrated in another mode than the variant names.",
            ALONE,
        ),
        Rule("MNQ504", "calibration-changed-model", _E, "Calibration changed the model that it was given.", BAD_RANGES),
        Rule("MNQ505", "scales-not-frozen", _E, "Scales changed after the calibration data were used up.", BAD_RANGES),
        Rule("MNQ510", "few-samples", _W, "There are fewer samples than calibration needs.", ALONE),
        Rule(
            "MNQ511", "ranges-not-converged", _W, "The ranges depend on single batches of the calibration data.", ALONE
        ),
        Rule(
            "MNQ512",
            "first-batch-dominates",
            _E,
            "The first batch decides the result of a moving average.",
            BAD_RANGES,
        ),
        Rule(
            "MNQ520",
            "samples-identical",
            _E,
            "All calibration samples are identical, or hold a single value.",
            BAD_RANGES,
        ),
        Rule("MNQ521", "samples-repeated", _W, "Many calibration samples are repeated or hold a single value.", ALONE),
        Rule(
            "MNQ522",
            "input-constant",
            _E,
            "An input never changes, but has an int8 scale: a state that was never fed.",
            BAD_RANGES,
        ),
        Rule("MNQ523", "evaluation-seen", _W, "The evaluation samples are those of the calibration.", ALONE),
        Rule(
            "MNQ530",
            "input-range-differs",
            _E,
            "An input has another range in the calibration data than in the evaluation data.",
            BAD_RANGES,
        ),
        Rule(
            "MNQ531",
            "channel-order-differs",
            _W,
            "The channels of an input are in reverse order of the evaluation data's.",
            ALONE,
        ),
        Rule(
            "MNQ540",
            "values-saturate",
            _E,
            "Held-out values lie outside the range that a tensor's codes can hold.",
            BAD_RANGES,
        ),
        Rule(
            "MNQ541",
            "range-too-wide",
            _E,
            "A tensor's quantization steps are too coarse for held-out values.",
            BAD_RANGES,
        ),
        Rule("MNQ601", "ran-in-float", _E, "A layer that is stored in int8 did not run in int8.", RAN_OTHERWISE),
        Rule("MNQ602", "layer-did-not-run", _E, "A layer does not appear in the trace of what ran.", RAN_OTHERWISE),
        Rule(
            "MNQ603",
            "identical-to-float",
            _E,
            "The quantized model computes exactly what the float model computes.",
            RAN_OTHERWISE,
        ),
        Rule("MNQ610", "add-relu-clamps", _W, "MNN's int8 Add with a fused ReLU cuts off small values.", ALONE),
        Rule(
            "MNQ611",
            "int8-scale-ignores-input",
            _W,
            "MNN's int8 Scale (a BatchNorm that is not folded) ignores its input.",
            ALONE,
        ),
        Rule(
            "MNQ612",
            "int8-interp-wrong-scale",
            _W,
            "MNN's int8 Interp passes codes to a tensor with another scale.",
            ALONE,
        ),
        Rule(
            "MNQ613",
            "int8-resize-wrong-on-arm",
            _E,
            "MNN's int8 bilinear resize computes columns wrongly on ARM, but not on x86.",
            ALONE,
        ),
        Rule(
            "MNQ620", "target-failed", _E, "The target did not run the model, or did not finish in time.", RAN_OTHERWISE
        ),
        Rule(
            "MNQ630",
            "apis-differ",
            _E,
            "MNN's Module API and its Session API compute different outputs.",
            APIS_DIFFER,
        ),
        Rule(
            "MNQ640",
            "runtime-differs",
            _E,
            "MNN.llm does not compute what the decoded weights compute.",
            RAN_OTHERWISE,
        ),
        Rule(
            "MNQ641",
            "cache-differs",
            _E,
            "Token by token, with its cache, MNN.llm computes something else than for the whole text.",
            RAN_OTHERWISE,
        ),
        Rule(
            "MNQ642",
            "architecture-not-computed",
            _G,
            "The forward pass does not compute this architecture, so there is nothing to compare MNN.llm with.",
            ALONE,
        ),
        Rule("MNQ701", "accuracy-drop", _E, "The task metric drops more than allowed.", BAD_OUTPUT),
        Rule("MNQ702", "outputs-differ", _E, "The outputs are not similar enough to the float model's.", BAD_OUTPUT),
        Rule("MNQ703", "output-not-finite", _E, "An output holds NaN or infinity.", BAD_OUTPUT),
        Rule("MNQ704", "output-constant", _E, "An output does not depend on the input.", BAD_OUTPUT),
        Rule(
            "MNQ705",
            "output-shape",
            _E,
            "An output is missing or has another shape than the float model's.",
            BAD_OUTPUT,
        ),
        Rule("MNQ706", "output-flat", _E, "All values of an output are equal within each sample.", BAD_OUTPUT),
        Rule(
            "MNQ707",
            "float-output-broken",
            _E,
            "An output of the float model itself holds NaN or infinity.",
            BAD_OUTPUT,
        ),
        Rule(
            "MNQ708", "float-accuracy-too-low", _E, "The float model itself is less accurate than required.", BAD_OUTPUT
        ),
        Rule(
            "MNQ709",
            "float-at-chance",
            _W,
            "A constant answer fits the labels as well as the float model does.",
            ALONE,
        ),
        Rule(
            "MNQ710",
            "x86-max-pool",
            _W,
            "MNN on x86 pools int8 wrongly; a copy that pools as on ARM was judged.",
            ALONE,
        ),
        Rule(
            "MNQ711",
            "x86-max-pool-unjudged",
            _G,
            "This host pools int8 wrongly, and no copy could pool as on ARM.",
            ALONE,
        ),
        Rule(
            "MNQ712",
            "output-part-lost",
            _E,
            "A part of an output lost the differences between samples, although the whole output looks alike.",
            BAD_OUTPUT,
        ),
        Rule(
            "MNQ713",
            "data-sized-output",
            _W,
            "The rows of an output depend on the input's values; what they are selected from was judged.",
            ALONE,
        ),
        Rule("MNQ720", "labels-unused", _G, "The labels match no output, so the task metric was not judged.", ALONE),
        Rule("MNQ721", "metric-unusable", _E, "The requested task metric can't be computed.", BAD_OUTPUT),
        Rule(
            "MNQ722",
            "limit-names-unknown-output",
            _E,
            "A limit names an output that the model does not have.",
            BAD_OUTPUT,
        ),
        Rule("MNQ723", "limit-not-judged", _E, "A limit was given, but the data can't decide it.", BAD_OUTPUT),
        Rule("MNQ730", "too-few-samples", _G, "There are too few samples to decide whether the limit is met.", ALONE),
        Rule(
            "MNQ740", "target-mismatch", _W, "An operator computes other values on the target than on this host.", ALONE
        ),
        Rule("MNQ750", "divergence-too-large", _E, "The predictions are too far from the source's.", BAD_OUTPUT),
        Rule("MNQ751", "generation-broken", _E, "Generated text repeats a single token, or is not UTF-8.", BAD_OUTPUT),
        Rule("MNQ752", "source-at-chance", _G, "The source predicts the text no better than chance.", ALONE),
        Rule("MNQ801", "size-unexpected", _E, "The size is not the one that the layers and the recipe give.", ALONE),
        Rule("MNQ802", "size-ratio", _E, "The model did not shrink as much as required.", ALONE),
        Rule(
            "MNQ803",
            "external-weights-missing",
            _E,
            "The .mnn needs a .mnn.weight file that is missing or too short.",
            NO_WEIGHTS,
        ),
        Rule("MNQ804", "bundle-mismatch", _W, "The model and the params file carry different uuids.", ALONE),
        Rule("MNQ810", "file-missing", _E, "A file that the runtime opens is missing.", BAD_FILE),
        Rule("MNQ811", "file-unusable", _E, "A file is malformed, cut or of the wrong length.", BAD_FILE),
        Rule("MNQ812", "bytes-unaccounted", _E, "Bytes of a weight file belong to no layer, or to two.", NO_WEIGHTS),
        Rule("MNQ813", "files-contradict", _E, "The configuration contradicts the graph.", BAD_FILE),
        Rule("MNQ814", "file-unused", _W, "The runtime does not read a file of the folder.", ALONE),
        Rule(
            "MNQ815",
            "runtime-misreads",
            _E,
            "The runtime reads the stored weights in another form.",
            MISREAD,
        ),
        Rule("MNQ816", "weights-expanded", _W, "MNN expands the weights to floats when it loads them.", ALONE),
        Rule("MNQ901", "latency-ratio", _E, "The quantized model is slower than allowed.", ALONE),
        Rule("MNQ902", "int8-not-faster", _W, "Int8 is no faster on a host that has instructions for it.", ALONE),
        Rule("MNQ903", "low-memory-fails", _W, "The model can't run in MNN's memory mode 2 (low).", ALONE),
        Rule("MNQ910", "baseline-unusable", _E, "The baseline file, or a model kept with it, can't be used.", ALONE),
        Rule("MNQ911", "not-in-baseline", _E, "The baseline has no metrics of this variant.", ALONE),
        Rule(
            "MNQ912",
            "baseline-stale",
            _E,
            "The baseline has metrics of a model or variant that no longer exists.",
            ALONE,
        ),
        Rule(
            "MNQ913",
            "worse-than-baseline",
            _E,
            "A metric is worse than the accepted value by more than the tolerance.",
            ALONE,
        ),
        Rule("MNQ914", "storage-changed", _E, "A layer's storage differs from the accepted one.", ALONE),
        Rule(
            "MNQ915", "slower-than-baseline", _E, "The model is slower than accepted by more than the tolerance.", ALONE
        ),
        Rule("MNQ916", "better-than-baseline", _W, "A metric is far better than the accepted value.", ALONE),
        Rule("MNQ917", "metric-not-accepted", _G, "A metric was measured that the baseline does not have yet.", ALONE),
    )
}

#: Rules for a missing model or missing evidence: if they were ignored, nothing would be judged and the run would pass.
NOT_IGNORABLE: Final = frozenset(
    {"MNQ001", "MNQ003", "MNQ004", "MNQ101", "MNQ102", "MNQ201", "MNQ202", "MNQ910", "MNQ911"}
)
