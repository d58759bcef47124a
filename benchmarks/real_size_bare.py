"""What a person writes by hand with the same tools, without a gate: the times that `real_size.py` compares with.

    python benchmarks/real_size_bare.py FOLDER VARIANT.mnn

Export, convert, forwards of all calibration samples, convert again with 8-bit weights, run the float model and VARIANT
on all evaluation samples with one thread, time 50 single runs of each. Prints the seconds in all.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

START = time.perf_counter()

import numpy as np  # noqa: E402
import real_size_nets as nets  # noqa: E402
import torch  # noqa: E402

_CONVERT = "import sys, _tools; _tools.mnnconvert(['x'] + sys.argv[1:])"
_RUN = """
import sys, MNN, numpy as np
model, data, result, batch = *sys.argv[1:4], int(sys.argv[4])
net = MNN.Interpreter(model)
session = net.createSession({"backend": "CPU", "numThread": 1})
source, outputs = np.load(data, mmap_mode="r"), []
tensor = net.getSessionInput(session)
for start in range(0, len(source), batch):
    part = np.ascontiguousarray(source[start : start + batch])
    net.resizeTensor(tensor, part.shape)
    net.resizeSession(session)
    tensor.copyFrom(MNN.Tensor(part.shape, MNN.Halide_Type_Float, part, MNN.Tensor_DimensionType_Caffe))
    net.runSession(session)
    out = net.getSessionOutput(session)
    shape = out.getShape()
    host = MNN.Tensor(shape, MNN.Halide_Type_Float, np.zeros(shape, "f"), MNN.Tensor_DimensionType_Caffe)
    out.copyToHostTensor(host)
    outputs.append(np.array(host.getNumpyData()).copy())
np.save(result, np.concatenate(outputs))
"""


def _python(code: str, *words: str) -> None:
    subprocess.run([sys.executable, "-c", code, *words], check=True, capture_output=True)


def main(folder: Path, variant: Path) -> None:
    """Do all of it once."""
    os.chdir(folder)
    warnings.simplefilter("ignore")
    network, known, held_out = nets.build(), nets.calibration(), nets.evaluation()
    (name,) = known
    some = torch.from_numpy(known[name][:1])
    axes = {name: {0: "batch"}, "output": {0: "batch"}}
    torch.onnx.export(
        network, (some,), "f.onnx", dynamo=False, input_names=[name], output_names=["output"], dynamic_axes=axes
    )
    convert = ("-f", "ONNX", "--modelFile", "f.onnx", "--bizCode", "x", "--MNNModel")
    _python(_CONVERT, *convert, "f.mnn")
    with torch.no_grad():
        for part in torch.split(torch.from_numpy(known[name]), 32):
            network(part)
    _python(_CONVERT, *convert, "q.mnn", "--weightQuantBits", "8")
    np.save("all.npy", held_out[name])
    np.save("one.npy", held_out[name][:1].repeat(50, 0))
    for model in ("f.mnn", str(variant)):
        _python(_RUN, model, "all.npy", "out.npy", "32")
    for model in ("f.mnn", str(variant)):
        _python(_RUN, model, "one.npy", "out.npy", "1")
    print(f"{time.perf_counter() - START:.2f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]).resolve())
