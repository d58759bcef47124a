"""Runs the export of a language model with MNN.llm: logits of texts, greedy generation, tokens per second, memory.

`Llm.load()` of the wrapper returns nothing, so the native object is used. Everything is set before loading: settings
that come later are ignored. `read()` does not own its memory, so arrays are copied while the variable lives.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from .failures import Refused
from .machine import mnn_version


def logits(job: dict[str, Any]) -> dict[str, Any]:
    """Logits of `windows` texts of `length` tokens, which are the first of the file `text` (or the array `ids`).

    Writes ids.npy [windows, length] and logits.npy [windows, length, vocabulary], and steps.npy [steps, vocabulary]:
    the logits of the last `steps` tokens of the first window, fed one by one with the cache of keys and values.
    """
    import numpy as np

    model = load(job, all_logits=True)
    encoded = [[int(token) for token in model.tokenizer_encode(text)] for text in job["probes"]]
    rendered = [model.apply_chat_template(text) for text in job["messages"]]
    ids = _ids(model, job)
    if not ids.size:
        raise Refused("the text has too few tokens")
    np.save("ids.npy", ids)
    out = None
    for number, window in enumerate(ids):
        model.reset()
        values = _forward(model, window)
        if out is None:
            shape = (*ids.shape, values.shape[-1])
            out = np.lib.format.open_memmap("logits.npy", "w+", np.float32, shape)
        out[number] = values
    del out
    steps = min(job["steps"], ids.shape[1] - 1)
    model.reset()
    first = ids.shape[1] - steps
    _forward(model, ids[0, :first])
    places = range(first, ids.shape[1])
    np.save("steps.npy", np.stack([_forward(model, ids[0, place : place + 1])[-1] for place in places]))
    return {"encoded": encoded, "rendered": rendered, "mnn": mnn_version()}


def generate(job: dict[str, Any]) -> dict[str, Any]:
    """Greedy generation of `tokens` tokens after the ids `prompt`, with times and memory, and the text of `decode`.

    `start_kb` is the resident memory after loading MNN, `loaded_kb` after loading the model, `peak_kb` the highest;
    None if the system does not report it.
    """
    import MNN.llm
    import numpy

    _ = (MNN, numpy)  # Their memory is not the model's.
    start = _memory("VmRSS")
    model = load(job, all_logits=False)
    loaded = _memory("VmRSS")
    prompt = job["prompt"]
    speeds = []
    tokens: list[int] = []
    for _run in range(job["runs"]):
        first_seconds, _ = _generated(model, prompt, 1)
        seconds, tokens = _generated(model, prompt, job["tokens"])
        decoding = max(seconds - first_seconds, 1e-9)
        speeds.append([len(prompt) / first_seconds, max(0, len(tokens) - 1) / decoding])
    decoded = [b"".join(_bytes(model, token) for token in item) for item in [tokens, *job["decode"]]]
    return {
        "tokens": tokens,
        "texts": [text.decode("utf-8", "replace") for text in decoded],
        "are_text": [_is_text(text) for text in decoded],
        "speeds": speeds,
        "start_kb": start,
        "loaded_kb": loaded,
        "peak_kb": _memory("VmHWM"),
    }


def load(job: dict[str, Any], all_logits: bool) -> Any:
    """The model of `config`, loaded, with greedy generation. Raises `Refused` if MNN does not load it."""
    import MNN.llm

    if not Path(job["config"]).is_file():
        raise Refused(job["config"] + " is missing")
    model = MNN.llm.create(job["config"])
    settings = {
        "all_logits": all_logits,
        "use_template": False,
        "reuse_kv": False,
        "sampler_type": "greedy",
        "backend_type": "cpu",
        "thread_num": job["threads"],
    }
    settings.update({key: job[key] for key in ("memory", "precision") if job.get(key)})
    model.set_config(settings)
    if not model._c_obj.load():
        raise Refused("MNN.llm does not load the model")
    return model


def _forward(model: Any, ids: Any) -> Any:
    """Logits [tokens, vocabulary] of ids that follow what was fed before."""
    import numpy as np

    result = model.forward([int(token) for token in ids])
    if result is None:
        raise Refused("MNN.llm returned no logits")
    values = np.array(result.read()).copy()
    del result
    if values.size % len(ids):
        raise Refused("MNN.llm returned logits of the shape " + str(values.shape))
    return values.reshape(len(ids), -1)


def _ids(model: Any, job: dict[str, Any]) -> Any:
    import numpy as np

    if job.get("ids"):
        return np.load(job["ids"])
    with Path(job["text"]).open(encoding="utf-8", errors="replace") as file:
        text = file.read(job["windows"] * job["length"] * 16)
    tokens = [int(token) for token in model.tokenizer_encode(text)]
    length = min(job["length"], len(tokens))
    windows = min(job["windows"], len(tokens) // length) if length > 1 else 0
    return np.array(tokens[: windows * length], np.int64).reshape(windows, length)


def _generated(model: Any, prompt: list[int], tokens: int) -> tuple[float, list[int]]:
    """Seconds, and the generated tokens.

    The clock is this process's: the runtime's own times come with the text, whose reading ends the process by a signal
    if the text is not UTF-8.
    """
    model.reset()
    start = time.perf_counter()
    result = model._c_obj.generate(prompt, tokens)
    return max(time.perf_counter() - start, 1e-9), [int(token) for token in result]


def _bytes(model: Any, token: int) -> bytes:
    """The bytes of a token, which need not be whole characters."""
    try:
        return str(model.tokenizer_decode(token)).encode("utf-8")
    except UnicodeDecodeError as error:
        return bytes(error.object)


def _is_text(data: bytes) -> bool:
    """Whether bytes are UTF-8; the last character may be cut."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return len(data) - error.start < 4 and error.end == len(data)
    return True


def _memory(key: str) -> int | None:
    """Memory of this process in kB, as Linux reports it."""
    try:
        with Path("/proc/self/status").open() as file:
            return next((int(line.split()[1]) for line in file if line.startswith(key + ":")), None)
    except OSError:
        return None
