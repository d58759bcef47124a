"""Section C: params files that MNN's converter ignores, makes itself, or reads as something else."""

from __future__ import annotations

import dataclasses
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytest_mnnquant.mnnfile.params import ActivationParams, Params, WeightParams, read_params, write_params
from pytest_mnnquant.quantize.job import PARAMS_NAME
from pytest_mnnquant.runtime.convert import convert
from tests.conftest import TIMEOUT
from tests.faults.corpus.plan import Pair, Planted, fault
from tests.faults.factory import FIRST, HIDDEN, LAST, SECOND, Factory

FLAG = "--compressionParamsFile"
W8 = ("--mnn-recipe=w8",)
#: Why rows of the catalogue's section C are not built here.
NOT_BUILT: dict[str, str] = {}


def healthy(factory: Factory, data: bool = True) -> Planted:
    """The int8 net; without data nothing can be compared with the ONNX model, so then the source is the float one."""
    source = factory.onnx() if data else factory.float()
    return Planted(source, factory.int8(), factory.params(), factory.evaluation() if data else None)


def weight_only(factory: Factory, data: bool = True) -> Planted:
    source = factory.onnx() if data else factory.float()
    model = factory.convert(factory.onnx(), "--weightQuantBits", "8")
    return Planted(source, model, data=factory.evaluation() if data else None, options=W8)


def guide(factory: Factory, name: str = "params.json") -> Path:
    """What MNN's converter writes where it was given a path of nothing."""
    key = ("guide", name)
    if key not in factory._known:
        path = factory.fresh(name)
        factory.convert(factory.onnx(), FLAG, path)
        factory._known[key] = path
    return factory._known[key]  # type: ignore[no-any-return]


def edited_guide(factory: Factory, bits: dict[str, int]) -> Path:
    """A guide that a person filled in: bits by operator, else 8."""
    found = json.loads(guide(factory).read_text())
    for layer in found["algo"][0]["quantParams"]["layer"]:
        layer["weight"][0]["bits"] = bits.get(layer["opName"], 8)
    return factory.fresh("edited.json", json.dumps(found).encode())


def as_json(params: Params) -> dict[str, Any]:
    """The JSON form of a calibrated params file, as MNN reads it."""

    def tensor(found: ActivationParams | WeightParams | None) -> list[dict[str, Any]]:
        assert found is not None
        form = {"name": found.name, "bits": found.bits, "clampMin": found.clamp_min, "clampMax": found.clamp_max}
        if isinstance(found, WeightParams):
            return [{**form, "scales": list(found.scales)}]
        return [{**form, "scales": [found.scale], "zeroPoint": found.zero_point}]

    layers = [
        {"input": tensor(one.input), "weight": tensor(one.weight), "output": tensor(one.output)}
        for one in params.layers
    ]
    algorithm = {"type": "QUANTIZE", "quantParams": {"roundMode": "RoundingMode_ROUND", "layer": layers}}
    return {"version": params.version, "algo": [algorithm], "mnnUuid": params.uuid}


def in_json(factory: Factory, change: Callable[[str], str] = str) -> Path:
    """The calibrated params file of the net as JSON."""
    text = json.dumps(as_json(read_params(factory.params())), indent=1)
    return factory.fresh("params.json", change(text).encode())


def renamed(factory: Factory, names: dict[str, str]) -> Path:
    """The calibrated params file with other names for output tensors."""
    path = factory.fresh("renamed.bin")
    write_params(read_params(factory.params()).renamed(names), path)
    return path


# MNN's own file ------------------------------------------------------------------------------------------------------


@fault("C", "params-path-missing-created", "MNQ303")
def path_that_was_not_there(factory: Factory) -> Pair:
    made = guide(factory, "params.bin")
    model = factory.convert(factory.onnx(), FLAG, made)
    return Pair(Planted(factory.onnx(), model, made, factory.evaluation()), healthy(factory))


@fault("C", "params-path-missing-created-json", "MNQ303")
def json_that_was_not_there(factory: Factory) -> Pair:
    made = guide(factory)
    calibrated = in_json(factory)
    twin = factory.convert(factory.float(), FLAG, calibrated)
    return Pair(
        Planted(factory.float(), factory.convert(factory.float(), FLAG, made), made),
        Planted(factory.float(), twin, calibrated),
    )


@fault("C", "params-path-missing-created-beside", "MNQ303")
def file_that_was_not_there_beside_the_model(factory: Factory) -> Pair:
    """The guide lies where a params file belongs, and nobody says that it is there."""
    models = []
    for model, params in ((factory.float(), guide(factory, PARAMS_NAME)), (factory.int8(), factory.params())):
        copy = factory.copy(model)
        copy.with_name(PARAMS_NAME).write_bytes(params.read_bytes())
        models.append(copy)
    fault_, twin = models
    return Pair(Planted(factory.float(), fault_), Planted(factory.float(), twin))


@fault("C", "stale-guide-disables-weightquant", "MNQ303")
def guide_of_an_earlier_run(factory: Factory) -> Pair:
    made = guide(factory)
    model = factory.convert(factory.onnx(), "--weightQuantBits", "8", FLAG, made)
    return Pair(
        Planted(factory.onnx(), model, made, factory.evaluation(), options=W8),
        weight_only(factory),
    )


@fault("C", "stale-guide-disables-weightquant-unseen", "MNQ401", HIDDEN)
def guide_of_an_earlier_run_that_nobody_mentions(factory: Factory) -> Pair:
    model = factory.convert(factory.onnx(), "--weightQuantBits", "8", FLAG, guide(factory))
    return Pair(Planted(factory.float(), model, options=W8), weight_only(factory, data=False))


@fault("C", "stale-guide-of-another-net", "MNQ303")
def guide_of_another_net(factory: Factory) -> Pair:
    """It overrides what has the same name: here the last layer only, but activations are in none."""
    other = factory.fresh("other.json")
    factory.convert(factory.onnx("garment_classifier"), FLAG, other)
    model = factory.convert(factory.onnx(), FLAG, other)
    return Pair(Planted(factory.onnx(), model, other, factory.evaluation()), healthy(factory))


# Files that can't be read --------------------------------------------------------------------------------------------


def unreadable(slug: str, name: str, content: Callable[[Factory], bytes], data: bool = False) -> None:
    """A params file of this content, with which the converter makes a float model and says Success."""

    @fault("C", f"params-corrupt-ignored-{slug}", "MNQ302")
    def build(factory: Factory) -> Pair:
        key = ("corrupt", slug)
        if key not in factory._known:
            path = factory.fresh(name)
            path.write_bytes(content(factory))
            factory._known[key] = path
        path = factory._known[key]
        model = factory.convert(factory.float(), FLAG, path)
        evaluation = factory.evaluation() if data else None
        source = factory.onnx() if data else factory.float()
        return Pair(Planted(source, model, path, evaluation), healthy(factory, data))


def whole(factory: Factory) -> bytes:
    return factory.params().read_bytes()


def text(factory: Factory) -> bytes:
    return in_json(factory).read_bytes()


def pointer(_: Factory) -> bytes:
    """What a checkout without git-lfs leaves."""
    return b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d7a2146" * 8 + b"\nsize 2024\n"


def error_page(_: Factory) -> bytes:
    """What a download leaves that nobody looked at."""
    return b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head><body>Not Found</body></html>\n"


def crlf(factory: Factory) -> bytes:
    """What a transfer in text mode leaves of a binary file."""
    return whole(factory).replace(b"\n", b"\r\n")


unreadable("empty", "params.bin", lambda _: b"")
unreadable("garbage", "params.bin", lambda _: bytes(range(7, 250)), data=True)
unreadable("cut", "params.bin", lambda factory: whole(factory)[:-300])
unreadable("cut-at-the-start", "params.bin", lambda factory: whole(factory)[64:])
unreadable("crlf", "params.bin", crlf)
unreadable("zeros", "params.bin", lambda factory: bytes(len(whole(factory))))
unreadable("lfs-pointer", "params.bin", pointer)
unreadable("error-page", "params.bin", error_page)
unreadable("gzip", "params.bin", lambda factory: gzip.compress(whole(factory), mtime=0))
unreadable("onnx", "params.bin", lambda factory: factory.onnx().read_bytes())
unreadable("json-empty", "params.json", lambda _: b"")
unreadable("json-invalid", "params.json", lambda _: b"{ no json", data=True)
unreadable("json-cut", "params.json", lambda factory: text(factory)[:-200])
unreadable("json-called-bin", "params.bin", text)
unreadable("bin-called-json", "params.json", whole)
unreadable(
    "json-trailing-comma", "params.json", lambda factory: text(factory).replace(b'"bits": 8,', b'"bits": 8,,', 1)
)
unreadable("json-unknown-key", "params.json", lambda factory: text(factory).replace(b'"quantParams"', b'"quantParam"'))
unreadable("json-without-version", "params.json", lambda factory: text(factory).replace(b'"version"', b'"versions"'))


# A guide that a person filled in -------------------------------------------------------------------------------------


@fault("C", "guide-bits16", "MNQ302")
def sixteen_bits(factory: Factory) -> Pair:
    """The documentation promises high precision; MNN clamps to 8 bits."""
    asked = edited_guide(factory, {HIDDEN: 16})
    model = factory.convert(factory.onnx(), FLAG, asked)
    right = edited_guide(factory, {})
    twin = factory.convert(factory.onnx(), FLAG, right)
    return Pair(
        Planted(factory.onnx(), model, asked, factory.evaluation(), options=W8),
        Planted(factory.onnx(), twin, right, factory.evaluation(), options=W8),
    )


@fault("C", "guide-bits16-meant-to-stay-float", "MNQ405", HIDDEN)
def sixteen_bits_for_a_layer_that_shall_stay_float(factory: Factory) -> Pair:
    options = (*W8, f"--mnn-skip-layer={HIDDEN}")
    model = factory.convert(factory.onnx(), FLAG, edited_guide(factory, {HIDDEN: 16}))
    twin = factory.convert(factory.onnx(), FLAG, edited_guide(factory, {HIDDEN: 0}))
    return Pair(
        Planted(factory.onnx(), model, data=factory.evaluation(), options=options),
        Planted(factory.onnx(), twin, data=factory.evaluation(), options=options),
    )


@fault("C", "guide-bits-left-at-0", "MNQ401", SECOND)
def one_layer_that_was_forgotten(factory: Factory) -> Pair:
    forgotten, right = edited_guide(factory, {SECOND: 0}), edited_guide(factory, {})
    return Pair(
        Planted(
            factory.onnx(), factory.convert(factory.onnx(), FLAG, forgotten), data=factory.evaluation(), options=W8
        ),
        Planted(factory.onnx(), factory.convert(factory.onnx(), FLAG, right), data=factory.evaluation(), options=W8),
    )


@fault("C", "guide-bits-left-at-0-with-the-file", "MNQ401", SECOND)
def one_layer_that_was_forgotten_in_the_file(factory: Factory) -> Pair:
    """The guide was filled in by a person: it is not the one that quantizes nothing."""
    forgotten, right = edited_guide(factory, {SECOND: 0}), edited_guide(factory, {})
    model, twin = (factory.convert(factory.onnx(), FLAG, one) for one in (forgotten, right))
    return Pair(
        Planted(factory.float(), model, forgotten, options=W8), Planted(factory.float(), twin, right, options=W8)
    )


# The uuid proves nothing ---------------------------------------------------------------------------------------------


@fault("C", "uuid-is-not-proof", "MNQ304", HIDDEN)
def uuid_of_params_that_matched_nothing(factory: Factory) -> Pair:
    """MNN copies the uuid of a params file of which it used nothing."""
    names = {one.name: f"{one.name}.old" for one in read_params(factory.params()).layers}
    params = renamed(factory, names)
    model = factory.convert(factory.onnx(), FLAG, params)
    return Pair(Planted(factory.onnx(), model, params, factory.evaluation()), healthy(factory))


@fault("C", "uuid-is-not-proof-one-layer", "MNQ304", LAST)
def uuid_of_params_that_missed_one(factory: Factory) -> Pair:
    last = read_params(factory.params()).layers[-1]
    params = renamed(factory, {last.name: "output_of_the_export"})
    model = factory.convert(factory.onnx(), FLAG, params)
    return Pair(Planted(factory.float(), model, params), healthy(factory, data=False))


@fault("C", "uuid-is-not-proof-copied", "MNQ305", HIDDEN)
def uuid_of_another_calibration(factory: Factory) -> Pair:
    """A params file that was calibrated anew and kept the uuid: only its scales tell that the model is older."""
    params = read_params(factory.params())
    layers = tuple(
        dataclasses.replace(one, output=dataclasses.replace(one.output, scale=1.5 * one.output.scale))
        if one.output is not None and one.weight.name == HIDDEN
        else one
        for one in params.layers
    )
    anew = factory.fresh("again.bin")
    write_params(dataclasses.replace(params, layers=layers), anew)
    return Pair(
        Planted(factory.onnx(), factory.int8(), anew, factory.evaluation()),
        healthy(factory),
    )


@fault("C", "uuid-is-not-proof-lost", "MNQ401", HIDDEN, warnings=("MNQ804",))
def uuid_that_a_second_conversion_lost(factory: Factory) -> Pair:
    """Made in two steps, a healthy model carries another uuid than its params; a float one may carry any."""
    key = ("two steps",)
    if key not in factory._known:
        stepped = factory.fresh("net.mnn")
        convert(factory.float(), stepped, [FLAG, str(factory.params())], timeout=TIMEOUT)
        factory._known[key] = stepped
    return Pair(
        Planted(factory.float(), factory.convert(factory.float())),
        Planted(factory.float(), factory._known[key], factory.params()),
    )


__all__ = ["FIRST", "FLAG", "NOT_BUILT", "as_json", "edited_guide", "guide", "healthy", "weight_only"]
