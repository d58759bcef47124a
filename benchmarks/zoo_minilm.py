"""The BERT of sentence-transformers' all-MiniLM-L6-v2, from its .safetensors file to ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

WIDTH, LAYERS, HEADS, VOCABULARY = 384, 6, 12, 30522


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        heads = [part(x).unflatten(2, (HEADS, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)]
        scores = heads[0] @ heads[1].transpose(2, 3) / (WIDTH // HEADS) ** 0.5
        mixed: torch.Tensor = (scores.softmax(3) @ heads[2]).transpose(1, 2).flatten(2)
        return mixed


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, WIDTH)
        self.LayerNorm = nn.LayerNorm(WIDTH, eps=1e-12)

    def forward(self, x: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.LayerNorm(self.dense(x) + before)
        return result


class _Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.ModuleDict({"self": _Attention(), "output": _Residual(WIDTH)})
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(WIDTH, 4 * WIDTH)})
        self.output = _Residual(4 * WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.attention["output"](self.attention["self"](x), x)
        result: torch.Tensor = self.output(functional.gelu(self.intermediate["dense"](x)), x)
        return result


class MiniLM(nn.Module):
    """The network, with the names of its file."""

    def __init__(self) -> None:
        super().__init__()
        sizes = {"word": VOCABULARY, "position": 512, "token_type": 2}
        self.embeddings = nn.ModuleDict({f"{name}_embeddings": nn.Embedding(n, WIDTH) for name, n in sizes.items()})
        self.embeddings["LayerNorm"] = nn.LayerNorm(WIDTH, eps=1e-12)
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(_Layer() for _ in range(LAYERS))})

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """The mean over the tokens, shape [samples, 384], of ids, shape [samples, tokens], without padding."""
        parts: Any = self.embeddings
        layers: Any = self.encoder["layer"]
        places = torch.arange(input_ids.shape[1])
        x = parts["word_embeddings"](input_ids) + parts["position_embeddings"](places)
        x = parts["LayerNorm"](x + parts["token_type_embeddings"].weight[0])
        for layer in layers:
            x = layer(x)
        mean: torch.Tensor = x.mean(1)
        return mean


def export(weights: Path) -> Path:
    """Write the ONNX file next to the weights; returns its path."""
    from safetensors.torch import load_file

    target = weights.with_suffix(".onnx")
    if not target.exists():
        network = MiniLM().eval()
        missing, _ = network.load_state_dict(load_file(weights), strict=False)  # The file also has a pooler.
        if missing:
            raise LookupError(f"{weights}: {missing[0]} is missing")
        ids = torch.randint(1000, 20_000, (1, 16))
        torch.onnx.export(
            network,
            (ids,),
            str(target),
            dynamo=False,
            input_names=["input_ids"],
            output_names=["embedding"],
            dynamic_axes={"input_ids": [0]},
        )
    return target
