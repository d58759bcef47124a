"""The catalogue of rules. Codes are stable once released; the first digit is the chapter."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final


class Severity(str, enum.Enum):
    """An error fails its check, a warning is told, a gap leaves the check inconclusive.

    A consequence is an error that follows from another one: it fails its check too, and is mended with that.
    """

    ERROR = "error"
    CONSEQUENCE = "consequence"
    WARNING = "warning"
    GAP = "gap"


@dataclass(frozen=True, slots=True)
class Rule:
    """One way in which a variant can be wrong; `since` is the first version of ours that has the rule."""

    code: str
    name: str
    severity: Severity
    meaning: str
    since: str = "0.1.0"


_E, _W, _G = Severity.ERROR, Severity.WARNING, Severity.GAP

RULES: Final = {
    rule.code: rule
    for rule in (
        Rule("MNQ001", "nothing-checked", _E, "There was nothing to judge, and no evidence is not a pass."),
        Rule("MNQ002", "no-op-trace", _G, "The runtime gave no trace of its operators, so what ran is not known."),
        Rule("MNQ003", "not-measured", _G, "The figure could not be measured here."),
        Rule("MNQ101", "source-unusable", _E, "The model can't be loaded, copied, run or exported."),
        Rule("MNQ102", "data-unusable", _E, "The calibration or evaluation data do not fit the model."),
        Rule("MNQ104", "source-quantized", _E, "The model given as float source is quantized itself."),
        Rule("MNQ110", "conversion-differs", _E, "The float .mnn does not compute what the source computes."),
        Rule("MNQ111", "conversion-unproven", _G, "The float .mnn could not be compared with the source."),
        Rule("MNQ112", "export-differs", _E, "The ONNX export does not compute what the PyTorch model computes."),
        Rule("MNQ113", "conversion-unstable", _E, "The same conversion, made twice, gives two different models."),
        Rule("MNQ201", "native-step-failed", _E, "A step of MNN crashed, hung or did not do its work."),
        Rule("MNQ202", "model-unreadable", _E, "The quantized file is missing or is not a complete model."),
        Rule("MNQ203", "other-network", _E, "The quantized file is not this network."),
        Rule("MNQ204", "operator-differs", _E, "An operator is set or connected otherwise than the float model's."),
        Rule("MNQ301", "params-missing", _E, "The params file is not there."),
        Rule("MNQ302", "params-unreadable", _E, "The params file can't be parsed or holds impossible values."),
        Rule("MNQ303", "params-are-a-guide", _E, "MNN's converter made the params file itself; it quantizes nothing."),
        Rule("MNQ304", "params-name-mismatch", _E, "A layer of the params file names no tensor of the model."),
        Rule("MNQ305", "params-not-applied", _E, "The model does not hold what the params file says."),
        Rule("MNQ306", "params-incomplete", _E, "The params file does not list a layer of the model."),
        Rule("MNQ401", "layer-is-float", _E, "A layer's weights are not quantized."),
        Rule(
            "MNQ402", "layer-has-other-precision", _E, "A layer's weights are stored in another precision than asked."
        ),
        Rule("MNQ404", "skip-matches-nothing", _W, "A pattern of --mnn-skip-layer matches no layer."),
        Rule("MNQ405", "skipped-layer-quantized", _E, "A layer meant to stay float is not stored as float."),
        Rule("MNQ403", "weight-buffer-corrupt", _E, "A layer's weight buffer contradicts its own header."),
        Rule("MNQ410", "weights-differ", _E, "A layer's stored weights are not the source's weights."),
        Rule("MNQ411", "vectors-differ", _E, "A bias or a normalization's vectors are not the source's."),
        Rule(
            "MNQ412",
            "channels-lost",
            _E,
            "Channels of a layer hold other values than the source's.",
        ),
        Rule("MNQ413", "scales-too-coarse", _E, "A layer's steps are far coarser than its weights need."),
        Rule("MNQ414", "block-dropped", _E, "A layer has one scale a channel where one a block was asked."),
        Rule("MNQ415", "scales-of-other-form", _E, "A layer's scales are not of the form that was asked."),
        Rule("MNQ416", "scales-contradict", _E, "A layer and its tensor have different scales or zero points."),
        Rule("MNQ417", "scale-impossible", _E, "A tensor's scale is infinite, negative, no number or absurdly large."),
        Rule("MNQ501", "calibrated-on-nothing", _E, "No calibration data went through the model."),
        Rule("MNQ502", "calibrated-with-gradients", _W, "Gradients were recorded while calibrating."),
        Rule("MNQ503", "calibrated-in-other-mode", _W, "The model ran in another mode than the variant says."),
        Rule("MNQ504", "model-changed", _E, "Calibration changed the model that it was given."),
        Rule("MNQ505", "scales-moved", _E, "Scales moved after the calibration data were used up."),
        Rule("MNQ510", "few-samples", _W, "There are fewer samples than calibration needs."),
        Rule("MNQ511", "ranges-not-converged", _W, "The ranges hang on single batches of the calibration data."),
        Rule("MNQ512", "first-batch-dominates", _E, "The first batch decides what a moving average comes to."),
        Rule("MNQ520", "samples-all-alike", _E, "All calibration samples are the same, or hold a single value."),
        Rule("MNQ521", "samples-repeat", _W, "Many calibration samples are repeated or hold a single value."),
        Rule("MNQ530", "input-range-differs", _E, "An input is in another range than in the evaluation data."),
        Rule("MNQ531", "channel-order-differs", _W, "An input has its channels in reverse order of the evaluation's."),
        Rule("MNQ540", "values-saturate", _E, "Held-out values lie outside of what a tensor's codes can hold."),
        Rule("MNQ541", "codes-unused", _E, "A tensor's steps are too coarse for held-out values."),
        Rule("MNQ601", "ran-in-float", _E, "A layer that is stored in int8 did not run in int8."),
        Rule("MNQ602", "layer-did-not-run", _E, "A layer does not appear in the trace of what ran."),
        Rule(
            "MNQ603", "computes-like-float", _E, "The quantized model computes exactly what the float model computes."
        ),
        Rule("MNQ610", "add-relu-clamps", _W, "MNN's int8 Add with a fused ReLU cuts off small values."),
        Rule("MNQ611", "int8-scale", _W, "MNN's int8 Scale, a BatchNorm that is not folded, ignores its input."),
        Rule("MNQ620", "target-failed", _E, "The target did not run the model, or not in time."),
        Rule("MNQ701", "accuracy-drop", _E, "The task metric drops more than allowed."),
        Rule("MNQ702", "outputs-differ", _E, "The outputs are not similar enough to the float model's."),
        Rule("MNQ703", "output-not-finite", _E, "An output holds NaN or infinity."),
        Rule("MNQ704", "output-constant", _E, "An output does not depend on the input."),
        Rule("MNQ705", "output-shape", _E, "An output is missing or has another shape than the float model's."),
        Rule("MNQ706", "output-flat", _E, "All values of an output are equal within each sample."),
        Rule("MNQ707", "float-output-broken", _E, "An output of the float model itself holds NaN or infinity."),
        Rule("MNQ708", "float-below-floor", _E, "The float model itself is not as good as was asked."),
        Rule("MNQ709", "float-at-chance", _W, "A constant would answer the labels as well as the float model does."),
        Rule("MNQ710", "x86-max-pool", _W, "MNN on x86 pools int8 wrongly; judged on a copy that pools as ARM does."),
        Rule("MNQ720", "labels-unused", _G, "The labels fit no output, so the task metric was not judged."),
        Rule("MNQ721", "metric-unusable", _E, "The task metric that was asked can't be computed."),
        Rule("MNQ722", "limit-for-no-output", _E, "A limit names an output that the model does not have."),
        Rule("MNQ730", "too-few-samples", _G, "There are too few samples to tell whether a limit is kept."),
        Rule("MNQ740", "target-differs", _W, "An operator computes otherwise on the target than on this machine."),
        Rule("MNQ801", "size-unexpected", _E, "The size is not the one that the layers and the recipe give."),
        Rule("MNQ802", "size-ratio", _E, "The model did not shrink as much as required."),
        Rule(
            "MNQ803", "external-weights-missing", _E, "The .mnn needs a .mnn.weight file that is missing or too short."
        ),
        Rule("MNQ804", "bundle-mixed", _W, "The model and the params file carry different uuids."),
        Rule("MNQ901", "latency-ratio", _E, "The quantized model is slower than allowed."),
        Rule("MNQ902", "int8-not-faster", _W, "Int8 is no faster on a host that has instructions for it."),
        Rule("MNQ903", "low-memory-fails", _W, "The model can't run in MNN's memory mode 2 (low)."),
        Rule("MNQ910", "baseline-unusable", _E, "The baseline file, or a model kept with it, can't be used."),
        Rule("MNQ911", "not-in-baseline", _E, "The baseline has no figures of this variant."),
        Rule("MNQ912", "baseline-stale", _E, "The baseline has figures of a model or variant that is gone."),
        Rule("MNQ913", "worse-than-baseline", _E, "A figure is worse than the accepted one by more than allowed."),
        Rule("MNQ914", "storage-changed", _E, "A layer is stored otherwise than accepted."),
        Rule("MNQ915", "slower-than-baseline", _E, "The model is slower than accepted by more than allowed."),
        Rule("MNQ916", "better-than-baseline", _W, "A figure is far better than the accepted one."),
        Rule("MNQ917", "figure-not-accepted", _G, "A figure was measured that the baseline does not have yet."),
    )
}

#: Rules that say there is nothing to judge: ignoring them would make a pass of nothing.
NOT_IGNORABLE: Final = frozenset({"MNQ001", "MNQ003", "MNQ101", "MNQ102", "MNQ201", "MNQ202", "MNQ910", "MNQ911"})
