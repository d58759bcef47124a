"""The vision part of a real export: each of its faults is found by the right rule, in the right layer."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pytest_mnnquant.llm.checkpoint import read_checkpoint
from pytest_mnnquant.llm.extents import Extent
from pytest_mnnquant.llm.folder import read_folder
from pytest_mnnquant.llm.graph import Graph
from tests.checks.llm.judging import Root, findings, judge, roots, source_of
from tests.llm.checkpoints import random_tensors, vision_tensors, write_safetensors
from tests.llm.conftest import EXPORTS, Copy, change_json
from tests.llm.make_exports import make_config

NAME = "qwen2_vl-w4"
GRAPH, WEIGHTS = "visual.mnn", "visual.mnn.weight"
FC2 = "visual.mnn:/mlp/fc2/Add_output_0__matmul_converted"
FC2_OF_1 = "visual.mnn:/mlp/fc2_1/Add_output_0__matmul_converted"


def part_of(path: Path) -> Graph:
    (part,) = read_folder(path).parts
    return part


def change_run(path: Path, run: Extent, change: Callable[[bytes], bytes]) -> None:
    """Replace the bytes of a run in the weights of the part."""
    content = bytearray((path / WEIGHTS).read_bytes())
    content[run.offset : run.end] = change(bytes(content[run.offset : run.end]))
    (path / WEIGHTS).write_bytes(content)


def cut(path: Path) -> None:
    (path / WEIGHTS).write_bytes((path / WEIGHTS).read_bytes()[:-100])


def zero(path: Path) -> None:
    (path / WEIGHTS).write_bytes(bytes((path / WEIGHTS).stat().st_size))


def take_other_graph(path: Path) -> None:
    for file in ("llm.mnn", "llm.mnn.weight"):
        shutil.copyfile(EXPORTS / "qwen2-w8-sym" / file, path / file.replace("llm", "visual"))


def change_code(path: Path) -> None:
    matrix = part_of(path).matrix(FC2.partition(":")[2])
    assert matrix is not None
    run = Extent(matrix.codes.offset + matrix.header + 9, 1)
    change_run(path, run, lambda byte: bytes([byte[0] ^ 0x70]))


def zero_bias(path: Path) -> None:
    matrix = part_of(path).matrix(FC2.partition(":")[2])
    assert matrix is not None
    change_run(path, matrix.bias, lambda content: bytes(len(content)))


def double_norm(path: Path) -> None:
    norm = next(vector for vector in part_of(path).vectors if vector.name.startswith("/norm2_1/"))
    change_run(path, norm.extents[0], lambda content: (2 * np.frombuffer(content, "<f4")).astype("<f4").tobytes())


def swap_layers(path: Path) -> None:
    first, second = (part_of(path).matrix(name.partition(":")[2]) for name in (FC2, FC2_OF_1))
    assert first is not None
    assert second is not None
    old = (path / WEIGHTS).read_bytes()
    for kind in ("codes", "scales", "bias"):
        one, other = getattr(first, kind), getattr(second, kind)
        for run, source in ((one, other), (other, one)):
            change_run(path, run, lambda _, source=source: old[source.offset : source.end])  # type: ignore[misc]


@pytest.mark.parametrize(
    ("fault", "root"),
    [
        (cut, Root("bundle", "MNQ803", WEIGHTS)),
        (lambda path: (path / WEIGHTS).unlink(), Root("bundle", "MNQ803", WEIGHTS)),
        (lambda path: (path / GRAPH).unlink(), Root("bundle", "MNQ810", GRAPH)),
        (lambda path: (path / GRAPH).rename(path / "vision.mnn"), Root("bundle", "MNQ810", GRAPH)),
        (take_other_graph, Root("weights", "MNQ410", GRAPH)),
        (lambda path: shutil.copyfile(path / "llm.mnn", path / GRAPH), Root("bundle", "MNQ812", WEIGHTS)),
        (change_code, Root("weights", "MNQ412", FC2)),
        (zero_bias, Root("weights", "MNQ411", FC2)),
        (double_norm, Root("weights", "MNQ411", "visual.mnn:/norm2_1/Add_1_output_0")),
        (swap_layers, Root("weights", "MNQ410", FC2_OF_1)),
    ],
)
def test_a_fault_of_the_vision_part_is_found(copied: Copy, fault: Callable[[Path], object], root: Root) -> None:
    path = copied(NAME)
    fault(path)
    assert roots(judge(path))[0] == root


def test_weights_of_zeros_are_found(copied: Copy) -> None:
    path = copied(NAME)
    zero(path)
    assert {(root.check, root.code) for root in roots(judge(path))} == {("weights", "MNQ403")}


def test_other_bits_than_requested_are_found(copied: Copy) -> None:
    path = copied(NAME)
    change_json(path / "export_args.json", visual_quant_bit=4)
    (root,) = roots(judge(path))
    assert (root.check, root.code, root.layer.partition(":")[0]) == ("coverage", "MNQ402", GRAPH)


def test_the_vision_part_of_another_checkpoint_is_found(tmp_path: Path) -> None:
    source = Path(shutil.copytree(source_of(NAME), tmp_path / "source"))
    config = make_config("qwen2_vl")
    tensors = random_tensors(config, seed=3) | vision_tensors(config, seed=77)
    write_safetensors(source / "model.safetensors", tensors, config["dtype"])
    assert read_checkpoint(source).tensors.keys() == read_checkpoint(source_of(NAME)).tensors.keys()
    (finding,) = findings(judge(EXPORTS / NAME, source))
    assert (finding.code, finding.layer, finding.cause_id) == ("MNQ410", GRAPH, "part-of-other-model")
