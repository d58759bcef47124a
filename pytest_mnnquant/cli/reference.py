"""`pytest-mnnquant reference MODEL --text FILE -o reference.npz`: stores what a language model predicts on a text.

The logits are computed by numpy for the architectures that it knows, else by transformers. CI then needs neither the
weights of the source nor torch: `pytest --mnn-quantized=out/ --mnn-model=reference.npz`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.config.evaluation_text import require_text
from pytest_mnnquant.llm.architecture import UnknownArchitecture, architecture_of
from pytest_mnnquant.llm.blas import one_blas_thread
from pytest_mnnquant.llm.checkpoint import Checkpoint, read_checkpoint
from pytest_mnnquant.llm.forward import Ids, Network
from pytest_mnnquant.llm.generation import generate
from pytest_mnnquant.llm.json_object import BadExport
from pytest_mnnquant.llm.probes import MESSAGES, probes
from pytest_mnnquant.llm.reference import Predictions, require_output, write_reference
from pytest_mnnquant.llm.sampling import sample_of
from pytest_mnnquant.llm.source_tokenizer import read_source_tokenizer
from pytest_mnnquant.llm.tensors import SourceTensors
from pytest_mnnquant.mnnfile.model import BadModel
from pytest_mnnquant.sources.encodings import encode, render, special_tokens
from pytest_mnnquant.sources.spec import SourceError

_PROMPT: Final = 32
_GENERATED: Final = 24
_SECONDS: Final = 60.0
_READ: Final = 1 << 20


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("model", type=Path, help="folder of the checkpoint")
    parser.add_argument("--text", type=Path, required=True, help="evaluation text, in UTF-8")
    parser.add_argument("-o", "--output", type=Path, required=True, help="reference file to write, .npz")
    parser.add_argument("--tokens", type=int, default=0, help="number of tokens (default: by the size of the model)")


def make_reference(model: Path, text: Path, output: Path, tokens: int = 0) -> Predictions:
    """Compute and write a reference. Raises `BadModel`, `OSError`."""
    require_output(output)
    source = read_checkpoint(model)
    try:
        require_text("--text", str(text), Path())
    except (ValueError, SourceError) as error:
        raise BadModel(str(error)) from None
    with text.open(encoding="utf-8", errors="replace") as file:
        content = file.read(_READ)
    ids = _ids(source, content, tokens)
    with one_blas_thread():
        logits, generated = _predict(source, ids)
    texts = probes(content)
    predictions = Predictions(
        ids=ids,
        logits=logits,
        probes=texts,
        encoded=encode(model, texts),
        by_transformers=encode(model, texts, by_transformers=True),
        rendered=_rendered(model),
        prompt=min(_PROMPT, ids.shape[1]),
        generated=generated,
    )
    write_reference(output, source, predictions, text)
    return predictions


def _ids(source: Checkpoint, content: str, tokens: int) -> Ids:
    encoded = encode(source.path, [content])
    if encoded is None:
        problem = "ids need the package tokenizers: pip install 'pytest-mnnquant[llm]'"
        raise BadExport(str(source.path), "tokenizer.json", problem)
    parameters = sum(int(np.prod(entry.shape)) for entry in source.tensors.values())
    sample = sample_of(parameters, source.config.vocabulary)
    count = min(tokens or sample.texts * sample.length, len(encoded[0]))
    length = min(sample.length, count)
    texts = count // length if length > 1 else 0
    if not texts:
        raise BadExport(str(source.path), "text", f"the text has {len(encoded[0])} tokens, 2 are the fewest")
    return np.array(encoded[0][: texts * length], np.int64).reshape(texts, length)


def _predict(source: Checkpoint, ids: Ids) -> tuple[npt.NDArray[np.float16], tuple[int, ...]]:
    """Logits, and the ids that are generated greedily after the first ones."""
    try:
        network = Network(architecture_of(source.config), SourceTensors(source))
    except UnknownArchitecture as error:
        return _by_transformers(source.path, ids, error)
    out = np.empty((*ids.shape, network.tensors.rows("lm_head")), np.float32)
    network.logits(ids, out)
    tokens = generate(network, ids[0, :_PROMPT], _GENERATED, source.config.eos_ids, _SECONDS)
    return _half(out), tokens


def _by_transformers(
    folder: Path, ids: Ids, error: UnknownArchitecture
) -> tuple[npt.NDArray[np.float16], tuple[int, ...]]:
    try:
        import torch
        from transformers import AutoModelForCausalLM
    except ImportError:
        raise BadExport(str(folder), "model_type", f"{error}; transformers can: pip install transformers") from None
    model: Any = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32, local_files_only=True).eval()
    with torch.no_grad():
        logits = [model(input_ids=torch.tensor(row[None])).logits.numpy() for row in ids]
        prompt = torch.tensor(ids[:1, :_PROMPT])
        generated = model.generate(prompt, max_new_tokens=_GENERATED, do_sample=False)[0, prompt.shape[1] :]
    return _half(np.concatenate(logits)), tuple(int(token) for token in generated)


def _half(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float16]:
    """Logits in 16 bits, with 0 for the largest of each token, where floats are finest."""
    halves: npt.NDArray[np.float16] = (logits - logits.max(-1, keepdims=True)).astype(np.float16)
    return halves


def _rendered(model: Path) -> tuple[str, ...] | None:
    try:
        templates = read_source_tokenizer(model).templates
    except (BadExport, OSError):
        return None
    return render(templates[0], special_tokens(model), MESSAGES) if templates else None


def run(given: argparse.Namespace) -> int:
    """Write the reference; returns the exit status."""
    predictions = make_reference(given.model, given.text, given.output, given.tokens)
    texts, tokens, vocabulary = predictions.logits.shape
    size = given.output.stat().st_size
    print(f"{given.output}: {texts * tokens:,} tokens x {vocabulary:,}, {size:,} bytes")
    return 0
