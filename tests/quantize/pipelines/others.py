"""Pipelines that end badly, return too little, or look around in their process."""

import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn


def crashes(*_: Any) -> None:
    print("about to crash", flush=True)
    os.abort()


def hangs(*_: Any) -> None:
    time.sleep(600)


def raises(model: nn.Module, calibration: Any, mode: str, outdir: str) -> None:
    for (x,) in calibration:
        model(x.reshape(-1))  # the place to be told


def leaves_early(*_: Any) -> None:
    raise SystemExit(3)


def returns_nothing(*_: Any) -> None:
    Path("notes.txt").write_text("nothing done")


def returns_what_is_not_there(*_: Any) -> str:
    return "net.mnn"


def returns_a_number(*_: Any) -> int:
    return 3


def looks_around(model: nn.Module, calibration: Any, mode: str, outdir: str) -> dict[str, Path]:
    """Writes down what it was given, and where."""
    batches = [tuple(tensor.shape for tensor in inputs) for inputs in calibration]
    with torch.no_grad():
        outputs = [model(*inputs) for inputs in calibration]
    seen = {
        "batches": batches,
        "length": len(calibration),
        "names": calibration.names,
        "training": [module.training for module in model.modules()],
        "wanted": [parameter.requires_grad for parameter in model.parameters()],
        "here": str(Path.cwd()) == outdir,
        "mode": mode,
        "outputs": torch.cat([output.flatten() for output in outputs]),
    }
    torch.save(seen, "net.mnn")
    return {"quantized": Path(outdir) / "net.mnn"}


def imports_what_phones_home(*_: Any) -> str:
    import MNN.tools.mnnconvert
    import mnncompress.pytorch

    logger = mnncompress.pytorch.LSQ_quantizer.mnn_logger
    assert logger.on_done("pytorch", "guid", {}), MNN.tools.mnnconvert.mnn_logger is not None
    assert not [name for name in sys.modules if name.startswith("aliyun")]
    with socket.socket() as probe:
        probe.connect_ex(("127.0.0.1", 9))
    os.system("true  # seen by the test")
    Path("net.mnn").touch()
    return "net.mnn"
