"""Computes a language model's checkpoint with transformers."""

from __future__ import annotations

from typing import Any

from .failures import Refused


def logits(job: dict[str, Any]) -> dict[str, Any]:
    """Logits of the texts `ids` (a file, [texts, tokens]) by the checkpoint in the folder `model`.

    Writes computed.npy [texts, tokens, vocabulary]. Code that a checkpoint brings with it is not run.
    """
    import numpy as np
    import torch
    import transformers

    torch.set_num_threads(job["threads"])
    settings = {"local_files_only": True, "trust_remote_code": False, "attn_implementation": "eager"}
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(job["model"], **settings).float().eval()
    except Exception as error:
        first = str(error).partition("\n")[0]
        raise Refused(f"transformers can't load it: {first[:200]}") from None
    ids, out = np.load(job["ids"]), None
    with torch.no_grad():
        for number, row in enumerate(ids):
            values = model(input_ids=torch.from_numpy(row[None])).logits[0].numpy()
            if out is None:
                shape = (*ids.shape, values.shape[-1])
                out = np.lib.format.open_memmap("computed.npy", "w+", np.float32, shape)
            out[number] = values
    return {"transformers": transformers.__version__}
