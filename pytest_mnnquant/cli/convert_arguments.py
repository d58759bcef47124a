"""A parsed command line of MNN's converter; refused if MNN would do something else."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pytest_mnnquant.cli.mnnconvert_flags import FLAGS, Kind, Refused, Role, as_arguments, nearest
from pytest_mnnquant.cli.source_formats import FRAMEWORKS, wrong_content
from pytest_mnnquant.mnnfile.model import read_model
from pytest_mnnquant.mnnfile.params import BadParams, Params, read_params
from pytest_mnnquant.mnnfile.storage import Storage
from pytest_mnnquant.recipes.names import recipe_named
from pytest_mnnquant.recipes.recipe import Recipe

_FLOATS: Final = (Storage.FLOAT32, Storage.SPARSE_FLOAT)
# MNN ignores these flags unless weights are quantized too.
_OF_BITS: Final = ("hqq", "weightQuantBlock", "weightQuantAsymmetric", "weightQuantScaleBit")


@dataclass(frozen=True)
class Command:
    """The request to the converter. `params` is the content of the params file, if one is given."""

    given: dict[str, str]
    source: Path
    output: Path
    recipe: Recipe | None
    params: Params | None = None

    @property
    def params_path(self) -> Path | None:
        """The params file."""
        path = self.given.get("compressionParamsFile")
        return None if path is None else Path(path)

    @property
    def source_words(self) -> tuple[str | Path, ...]:
        """The words that name the source, and the flags that shape the graph: the command without compression."""
        names = ("framework", "modelFile", "MNNModel", "JsonFile")
        rest = {name: value for name, value in self.given.items() if FLAGS[name].role is not Role.COMPRESSION}
        flags = as_arguments({name: value for name, value in rest.items() if name not in names})
        return ("-f", self.given["framework"], "--modelFile", self.source, *flags)

    @property
    def is_dump(self) -> bool:
        """Whether the output is JSON text, not a model."""
        return "JsonFile" in self.given

    @property
    def bits(self) -> dict[str, int]:
        """{operator: bits of its weights} for entries of the params file that give only bits."""
        layers = self.params.layers if self.params is not None else ()
        return {layer.name: layer.weight.bits for layer in layers if layer.output is None}

    def arguments(self, compressed: bool = True) -> list[str]:
        """The converter's arguments without the output, paths absolute; not `compressed`: the same graph in float."""
        values = {
            name: str(Path(value).resolve()) if FLAGS[name].kind is Kind.PATH else value
            for name, value in self.given.items()
            if name not in ("MNNModel", "JsonFile") and (compressed or FLAGS[name].role is not Role.COMPRESSION)
        }
        return as_arguments(values)


def read_command(given: dict[str, str], known: frozenset[str]) -> Command:
    """Parse the arguments; `known` are the flags of the installed MNN. Raises `Refused`."""
    unknown = [name for name in given if name not in known]
    reasons = [f"--{name}: the installed MNN does not know this flag and ignores it" for name in unknown]
    params, wrong = _params(given)
    reasons += _place(given) + _useless(given) + _contradictions(given, params) + wrong
    compression = [name for name in given if FLAGS[name].role is Role.COMPRESSION]
    if compression and (given.get("framework") == "JSON" or "JsonFile" in given):
        reasons.append(f"--{compression[0]}: MNN quantizes nothing when it converts from or to JSON")
    if reasons:
        raise Refused(*reasons)
    source, output = Path(given["modelFile"]), Path(given.get("MNNModel") or given["JsonFile"])
    recipe = _recipe(given, params)
    if recipe is not None and given["framework"] == "MNN":
        layers = read_model(source).layers
        low = [op for op in layers if any(weights.storage not in _FLOATS for weights in op.weights)]
        if low:
            raise Refused(
                f"{source}: {len(low)} of {len(layers)} layers are already quantized ({low[0].name}: "
                f"{low[0].weights[0].label}), and MNN does not change them; convert from the float model"
            )
    return Command(given, source, output, recipe, params)


def _place(given: dict[str, str]) -> list[str]:
    """Errors of the source and the output: missing files and wrong formats."""
    return _wrong_framework(given.get("framework")) + _wrong_source(given) + _wrong_output(given)


def _wrong_framework(framework: str | None) -> list[str]:
    if framework is None:
        return [f"-f is missing; required: one of {', '.join(FRAMEWORKS)}"]
    if framework == "TORCH":
        return ["-f TORCH: MNN's wheel is built without TORCH; export the model to ONNX"]
    if framework not in FRAMEWORKS:
        return [f"-f {framework}: unknown; MNN supports {', '.join(FRAMEWORKS)}{nearest(framework, FRAMEWORKS, '-f ')}"]
    return []


def _wrong_source(given: dict[str, str]) -> list[str]:
    framework, source = given.get("framework"), given.get("modelFile")
    if source is None:
        return ["--modelFile is missing; required: the model to convert"]
    if not Path(source).is_file():
        return [f"--modelFile {source}: no such file"]
    if framework in FRAMEWORKS and (wrong := wrong_content(Path(source), framework)):
        return [f"--modelFile {source}: {wrong}"]
    return []


def _wrong_output(given: dict[str, str]) -> list[str]:
    outputs = [name for name in ("MNNModel", "JsonFile") if name in given]
    if not outputs:
        return ["--MNNModel is missing; required: the file to write"]
    reasons = []
    if len(outputs) == 2:
        reasons.append("--JsonFile: MNN ignores it if --MNNModel is given; remove one of them")
    if outputs == ["JsonFile"] and given.get("framework") not in ("MNN", "TFLITE"):
        reasons.append("--JsonFile: MNN writes JSON of MNN and TFLITE models only; use --MNNModel")
    name, path = outputs[0], Path(given[outputs[0]])
    if wrong := unwritable(path, f"--{name} "):
        reasons.append(wrong)
    inputs = [given[key] for key in ("modelFile", "compressionParamsFile") if given.get(key)]
    if path.resolve() in [Path(text).resolve() for text in inputs]:
        reasons.append(f"--{name} {given[name]}: is also an input; give the output another name")
    return reasons


def unwritable(path: Path, what: str = "") -> str:
    """Why a file can't be written at `path`: MNN reports "Success" anyway."""
    folder = path.resolve().parent
    if not folder.is_dir():
        return f"{what}{path}: the folder {folder} does not exist"
    if path.is_dir():
        return f"{what}{path}: is a folder"
    return "" if os.access(folder, os.W_OK | os.X_OK) else f"{what}{path}: the folder {folder} is not writable"


def _useless(given: dict[str, str]) -> list[str]:
    """Flags without effect, or with a result that proves nothing."""
    reasons = []
    if "benchmarkModel" in given:
        reasons.append("--benchmarkModel: has no effect in MNN; the weights stay in the file")
    reasons += [
        f"--{name}: MNN's own test passes if the reference file is missing, and exits 0 if it fails; "
        "remove it, and compare with pytest --mnn-model ... --mnn-quantized ..."
        for name in ("testdir", "testconfig", "thredhold")
        if name in given
    ]
    if "customOpLibs" in given:
        reasons.append("--customOpLibs: has no effect; only -f TORCH reads it, and MNN's wheel is built without TORCH")
    if "inputConfigFile" in given and "saveStaticModel" not in given:
        reasons.append("--inputConfigFile: has no effect without --saveStaticModel")
    if "prototxt" in given and given.get("framework") != "CAFFE":
        reasons.append("--prototxt: has no effect without -f CAFFE")
    if given.get("optimizeLevel") == "0" and given.get("framework") != "MNN":
        reasons.append("--optimizeLevel 0: has no effect without -f MNN; other sources are always optimized")
    if "splitBlockQuant" in given and given.get("framework") != "MNN":
        reasons.append("--splitBlockQuant: requires -f MNN; with other sources MNN skips all other passes and fails")
    return reasons


def _contradictions(given: dict[str, str], params: Params | None) -> list[str]:
    """Flags that exclude each other, and files that flags require."""
    reasons = []
    if "fp16" in given and "weightQuantBits" in given:
        reasons.append("--fp16 with --weightQuantBits: MNN casts to 16-bit floats first, and then quantizes nothing")
    if "hqq" in given and given.get("weightQuantAsymmetric") in ("0", "false"):
        reasons.append("--hqq with --weightQuantAsymmetric=0: MNN switches HQQ off for symmetric weights")
    if "weightQuantBits" not in given and not (params is not None and params.is_guide):
        reasons += [f"--{name}: has no effect without --weightQuantBits" for name in _OF_BITS if name in given]
    block = int(given.get("weightQuantBlock", "-1"))
    if block != -1 and (block < 16 or block % 16):
        reasons.append(
            f"--weightQuantBlock {block}: must be a multiple of 16; MNN uses one scale per channel otherwise"
        )
    if given.get("weightQuantScaleBit") not in (None, "16", "32"):
        reasons.append(f"--weightQuantScaleBit {given['weightQuantScaleBit']}: must be 16 or 32")
    if given.get("framework") == "CAFFE" and "prototxt" not in given:
        reasons.append("-f CAFFE requires --prototxt")
    for name in ("prototxt", "inputConfigFile"):
        if name in given and not Path(given[name]).is_file():
            reasons.append(f"--{name} {given[name]}: no such file")
    return reasons


def _params(given: dict[str, str]) -> tuple[Params | None, list[str]]:
    """The params file's content, and why MNN would ignore it."""
    if "compressionParamsFile" not in given:
        return None, []
    text = given["compressionParamsFile"]
    what = f"--compressionParamsFile {text}: "
    if not Path(text).is_file():
        return None, [f"{what}no such file; MNN would create one, and quantize nothing"]
    try:
        params = read_params(Path(text))
    except BadParams as error:
        return None, [f"--compressionParamsFile {error}; MNN silently ignores a params file that it can't parse"]
    if not params.layers:
        return None, [
            f"{what}lists no layers (WeightQuantizer writes none), so MNN quantizes nothing; use "
            "--weightQuantBits 8 instead, or calibrate with LSQQuantizer"
        ]
    if params.is_guide and not any(layer.weight.bits for layer in params.layers):
        return None, [
            f"{what}is a template that MNN's converter wrote in an earlier run: it has 0 bits for each layer, which "
            "overrides --weightQuantBits; delete it, and use the params file of a calibration"
        ]
    if params.is_guide and Path(text).suffix != ".json":
        return None, [f"{what}contains JSON text, which MNN reads only from a file with the suffix .json"]
    return params, []


def _recipe(given: dict[str, str], params: Params | None) -> Recipe | None:
    """The recipe that the flags request; None for a plain conversion."""
    bits = given.get("weightQuantBits")
    if params is not None and not params.is_guide:
        return recipe_named("int8" + (f"+w{int(bits)}" if bits else ""))
    if params is not None:
        bits = bits or str(max(layer.weight.bits for layer in params.layers))
    if bits:
        block = int(given.get("weightQuantBlock", "-1"))
        name = f"w{int(bits)}" + (f"b{block}" if block > 0 else "")
        name += "-sym" if given.get("weightQuantAsymmetric") in ("0", "false") else ""
        name += "-hqq" if "hqq" in given else ""
        return recipe_named(name + ("-scale16" if given.get("weightQuantScaleBit") == "16" else ""))
    return recipe_named("fp16") if "fp16" in given else None
