"""Faults of files, planted in copies of real exports: each is one root cause with the right file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pytest_mnnquant.llm.folder import read_folder
from pytest_mnnquant.llm.rotary import frequencies
from tests.checks.llm.judging import Root, findings, judge, roots, source_of, warnings
from tests.llm.conftest import EXPORTS, ROPES, Copy, change_json

Change = Callable[[Path], object]
EMBEDDING8 = "qwen3-w4-embedding8"
WEIGHTS = "llm.mnn.weight"


def cut(file: str, size: int) -> Change:
    return lambda path: (path / file).write_bytes((path / file).read_bytes()[:size])


def take(file: str, name: str) -> Change:
    """Take a file of another export."""
    return lambda path: shutil.copyfile(EXPORTS / name / file, path / file)


def place(**values: object) -> Change:
    def change(path: Path) -> None:
        content = json.loads((path / "llm_config.json").read_text())
        change_json(path / "llm_config.json", tie_embeddings={**content["tie_embeddings"], **values})

    return change


def special(**values: str | None) -> Change:
    """Change the first or the last token of texts in llm_config.json."""

    def change(path: Path) -> None:
        section = {**json.loads((path / "llm_config.json").read_text())["jinja"], **values}
        change_json(path / "llm_config.json", jinja={key: value for key, value in section.items() if value})

    return change


def point(file: str) -> Change:
    """Put a pointer of Git LFS in the place of a file."""
    return lambda path: (path / file).write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{0:064}\n")


@pytest.mark.parametrize(
    ("name", "change", "root"),
    [
        ("qwen2-w4", point(WEIGHTS), Root("bundle", "MNQ803", WEIGHTS)),
        ("qwen2-w4", point("tokenizer.mtok"), Root("bundle", "MNQ811", "tokenizer.mtok")),
        ("llama-w4-old", point("embeddings_bf16.bin"), Root("bundle", "MNQ811", "embedding")),
        ("qwen2-w4", lambda path: (path / WEIGHTS).unlink(), Root("bundle", "MNQ803", WEIGHTS)),
        ("qwen2-w4", cut(WEIGHTS, 60000), Root("bundle", "MNQ803", WEIGHTS)),
        ("qwen2-w4", take(WEIGHTS, "qwen2-w8-sym"), Root("bundle", "MNQ812", WEIGHTS)),
        ("qwen2-w8-sym", take(WEIGHTS, "qwen2-w4"), Root("bundle", "MNQ803", WEIGHTS)),
        ("qwen2-w4", take(WEIGHTS, "qwen2-w4-old"), Root("bundle", "MNQ812", WEIGHTS)),
        ("qwen2-w4", lambda path: (path / "tokenizer.mtok").unlink(), Root("bundle", "MNQ810", "tokenizer.mtok")),
        ("qwen2-w4", cut("tokenizer.mtok", 900), Root("bundle", "MNQ811", "tokenizer.mtok")),
        ("qwen2-w4", lambda path: (path / "llm_config.json").unlink(), Root("bundle", "MNQ811", "llm_config.json")),
        (EMBEDDING8, lambda path: (path / "embeddings_int8.bin").unlink(), Root("bundle", "MNQ810", "embedding")),
        (EMBEDDING8, cut("embeddings_int8.bin", 9000), Root("bundle", "MNQ811", "embedding")),
        ("llama-w4-old", lambda path: (path / "embeddings_bf16.bin").unlink(), Root("bundle", "MNQ810", "embedding")),
        ("llama-w4-old", cut("embeddings_bf16.bin", 30000), Root("bundle", "MNQ811", "embedding")),
        (
            EMBEDDING8,
            lambda path: change_json(path / "config.json", embedding_file=None),
            Root("bundle", "MNQ810", "embedding"),
        ),
        ("qwen2-w4", take("llm_config.json", "qwen2-w4-old"), Root("bundle", "MNQ813", "embedding")),
        ("qwen2-w4-old", take("llm_config.json", "qwen2-w4"), Root("bundle", "MNQ813", "embedding")),
        ("qwen2-w4", place(weight_offset=100), Root("bundle", "MNQ813", "embedding")),
        ("qwen2-w4", place(alpha_offset=60000), Root("bundle", "MNQ813", "embedding")),
        ("qwen2-w4", place(quant_bit=8), Root("bundle", "MNQ813", "embedding")),
        ("qwen2-w4", place(quant_block=64), Root("bundle", "MNQ813", "embedding")),
        ("qwen2-w4", place(alpha_dtype="fp32"), Root("bundle", "MNQ813", "embedding")),
        (
            "qwen2-w4",
            lambda path: change_json(path / "llm_config.json", layer_nums=3),
            Root("bundle", "MNQ813", "layer_nums"),
        ),
    ],
)
def test_a_file_that_is_not_of_this_export(name: str, change: Change, root: Root, copied: Copy) -> None:
    path = copied(name)
    change(path)
    results = judge(path)
    assert roots(results) == [root]
    assert all(finding.fix for finding in findings(results))


def test_an_embedding_that_is_not_named_is_pointed_at(copied: Copy) -> None:
    path = copied(EMBEDDING8)
    change_json(path / "config.json", embedding_file=None)
    (finding,) = findings(judge(path))
    assert finding.cause_id == "embedding-not-named"
    assert "embeddings_int8.bin" in finding.fix


def test_a_part_needs_weights_of_its_own(copied: Copy) -> None:
    path = copied("qwen2-w4")
    shutil.copyfile(path / "llm.mnn", path / "visual.mnn")
    assert roots(judge(path)) == [Root("bundle", "MNQ803", "visual.mnn.weight")]
    shutil.copyfile(path / WEIGHTS, path / "visual.mnn.weight")
    assert roots(judge(path)) == []
    (path / "visual.mnn").write_bytes(b"cut")
    assert Root("bundle", "MNQ811", "visual.mnn") in roots(judge(path))


def test_a_graph_that_nothing_names_is_left_over(copied: Copy) -> None:
    path = copied("qwen2-w4")
    shutil.copyfile(path / "llm.mnn", path / "llm_old.mnn")
    results = judge(path)
    assert (roots(results), warnings(results)) == ([], ["MNQ814"])


def test_a_window_that_the_exporter_does_not_know_is_reported(copied: Copy, tmp_path: Path) -> None:
    path, source = copied("qwen2-w4"), Path(shutil.copytree(source_of("qwen2-w4"), tmp_path / "source"))
    kinds = ["full_attention", "sliding_attention"]
    change_json(source / "config.json", use_sliding_window=True, sliding_window=16, layer_types=kinds)
    assert roots(judge(path, source)) == [Root("conversion", "MNQ124", "attention_type")]
    change_json(source / "config.json", layer_types=None, max_window_layers=1)
    results = judge(path, source)
    assert (roots(results), warnings(results)) == ([], ["MNQ124"])


def test_a_scaling_that_the_exporter_does_not_know_is_reported(copied: Copy, tmp_path: Path) -> None:
    path, source = copied("qwen2-w4"), Path(shutil.copytree(source_of("qwen2-w4"), tmp_path / "source"))
    rope = {**ROPES["llama3"]["rope_parameters"], "rope_theta": 10000.0}
    change_json(source / "config.json", rope_parameters=rope)
    (finding,) = findings(judge(path, source))
    assert (finding.code, finding.cause_id) == ("MNQ124", "scaling-unread")


def test_a_vision_part_has_the_bits_that_were_requested_for_it(copied: Copy) -> None:
    path = copied("qwen2-w4")
    for file in ("llm.mnn", WEIGHTS):
        shutil.copyfile(EXPORTS / "qwen2-w8-sym" / file, path / file.replace("llm", "visual"))
    change_json(path / "llm_config.json", is_visual=True)
    assert roots(judge(path)) == []
    change_json(path / "export_args.json", visual_quant_bit=8)
    assert roots(judge(path)) == []
    change_json(path / "export_args.json", visual_quant_bit=4)
    (root,) = roots(judge(path))
    assert (root.check, root.code, root.layer.partition(":")[0]) == ("coverage", "MNQ402", "visual.mnn")


def test_an_adapter_shares_the_weights_that_it_extends(copied: Copy) -> None:
    path = copied("qwen2-w4")
    shutil.copyfile(path / "llm.mnn", path / "lora.mnn")
    assert roots(judge(path)) == []


def test_leftovers_and_expanded_weights_are_warnings(copied: Copy) -> None:
    path = copied("qwen2-w4")
    (path / "embeddings_bf16.bin").write_bytes(b"old")
    (path / "llm.mnn.json").write_text("{}")
    change_json(path / "config.json", memory="normal")
    results = judge(path)
    assert roots(results) == []
    assert warnings(results) == ["MNQ816", "MNQ814"]


@pytest.mark.parametrize(
    ("change", "root"),
    [
        (take("tokenizer.mtok", "qwen2-w4"), None),
        (
            lambda path: change_json(path / "llm_config.json", jinja={"chat_template": "{{ messages }}"}),
            Root("conversion", "MNQ122", "jinja"),
        ),
        (
            lambda path: change_json(path / "llm_config.json", jinja=None),
            Root("conversion", "MNQ122", "jinja"),
        ),
        (
            lambda path: change_json(path / "llm_config.json", attn_scale=1.0),
            Root("conversion", "MNQ124", "attn_scale"),
        ),
        *(
            (lambda path, key=key, value=value: change_json(path / "llm_config.json", **{key: value}), root)
            for key, value, root in (
                ("attention_mask", "int", Root("conversion", "MNQ124", "attention_mask")),
                ("attention_type", "sliding", Root("conversion", "MNQ124", "attention_type")),
                ("is_mrope", True, Root("conversion", "MNQ124", "is_mrope")),
            )
        ),
        (special(eos=None), Root("conversion", "MNQ123", "jinja.eos")),
        (special(eos="<|im_start|>"), Root("conversion", "MNQ123", "jinja.eos")),
        (special(bos="<|endoftext|>"), None),
        (special(bos="<s>"), Root("conversion", "MNQ123", "jinja.bos")),
    ],
)
def test_configuration_that_is_not_the_sources(change: Change, root: Root | None, copied: Copy) -> None:
    path = copied("qwen2-w4")
    change(path)
    assert roots(judge(path)) == ([] if root is None else [root])


@pytest.mark.parametrize(
    ("change", "root"),
    [
        ({"vocab_size": 321}, Root("conversion", "MNQ120", "")),
        ({"num_hidden_layers": 3}, Root("conversion", "MNQ120", "")),
        ({"num_key_value_heads": 4}, Root("conversion", "MNQ120", "")),
        ({"model_type": "gemma"}, Root("conversion", "MNQ120", "")),
        ({"rope_theta": 1e6}, Root("conversion", "MNQ124", "/rotary/Constant_1_output_0")),
        ({"rms_norm_eps": 1e-5}, Root("conversion", "MNQ124", "/blocks.0/input_layernorm/Mul_1_output_0")),
    ],
)
def test_a_source_of_another_architecture(change: dict[str, object], root: Root, tmp_path: Path) -> None:
    source = Path(shutil.copytree(source_of("qwen2"), tmp_path / "source"))
    change_json(source / "config.json", **change)
    assert roots(judge(EXPORTS / "qwen2-w4", source)) == [root]


@pytest.mark.parametrize(("base", "root"), [(5e5, None), (4.8e5, "MNQ124"), (1e6, "MNQ124")])
def test_low_frequencies_have_lost_digits_in_json(base: float, root: str | None, copied: Copy, tmp_path: Path) -> None:
    path = copied("qwen2-w4")
    constant = next(item for item in read_folder(path).graph.constants if "rotary" in item.name)
    stored = np.round(frequencies(16, base), 6).astype("<f4").tobytes()
    data = (path / "llm.mnn").read_bytes()
    assert data.count(constant.values.tobytes()) == 1
    (path / "llm.mnn").write_bytes(data.replace(constant.values.tobytes(), stored))
    source = Path(shutil.copytree(source_of("qwen2"), tmp_path / "source"))
    change_json(source / "config.json", rope_theta=5e5)
    assert [found.code for found in roots(judge(path, source))] == ([root] if root else [])


def test_rotations_in_tables_are_compared_too(tmp_path: Path) -> None:
    source = Path(shutil.copytree(source_of("qwen2"), tmp_path / "source"))
    change_json(source / "config.json", rope_theta=5e5)
    (root,) = roots(judge(EXPORTS / "qwen2-w4-head", source))
    assert (root.check, root.code) == ("conversion", "MNQ124")


@pytest.mark.parametrize("part", ["vocabulary", "merges", "pre_tokenizer", "added_tokens"])
def test_another_tokenizer_of_the_source(part: str, tmp_path: Path) -> None:
    source = Path(shutil.copytree(source_of("qwen2"), tmp_path / "source"))
    content = json.loads((source / "tokenizer.json").read_text())
    model = content["model"]
    if part == "vocabulary":
        first, second = list(model["vocab"])[40:42]
        model["vocab"][first], model["vocab"][second] = model["vocab"][second], model["vocab"][first]
    elif part == "merges":
        model["merges"] = model["merges"][::-1]
    elif part == "pre_tokenizer":
        content["pre_tokenizer"] = {"type": "Digits", "individual_digits": True}
    else:
        content["added_tokens"][1]["content"] = "<|user|>"
    (source / "tokenizer.json").write_text(json.dumps(content))
    assert roots(judge(EXPORTS / "qwen2-w4", source)) == [Root("conversion", "MNQ121", "tokenizer.mtok")]


def test_another_end_of_text(tmp_path: Path) -> None:
    source = Path(shutil.copytree(source_of("qwen2"), tmp_path / "source"))
    change_json(source / "generation_config.json", eos_token_id=[0, 2])
    results = judge(EXPORTS / "qwen2-w4", source)
    assert (roots(results), warnings(results)) == ([], ["MNQ123"])
    change_json(source / "generation_config.json", eos_token_id=1)
    change_json(source / "config.json", eos_token_id=1)
    change_json(source / "tokenizer_config.json", eos_token="<|im_start|>")
    assert roots(judge(EXPORTS / "qwen2-w4", source)) == [Root("conversion", "MNQ123", "tokenizer.mtok")]
