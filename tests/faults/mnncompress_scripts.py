"""Calibration scripts around mnncompress as its users write them: careful ones, and one for each way to go wrong.

Each is a pipeline (`own=FILE.py:callable`); `all_of_them` runs those that `SHELF` lists on copies of one model, so that
a single process, which takes seconds to start, leaves the files of all.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

Script = Callable[[nn.Module, Any, str, str], None]
#: The highest pixel of 8, 12 and 16 bits, where the model was trained on 0..1.
PIXELS, SENSOR, RAW = 255.0, 4095.0, 65535.0
FAINT = 0.02


def _feed(net: nn.Module, data: Any) -> None:
    with torch.no_grad():
        for (x,) in data:
            net(x)


def _export(net: nn.Module, dummy: torch.Tensor, path: Path, *, dynamo: bool = False) -> None:
    axes = {"x": {0: "batch"}, "output": {0: "batch"}}
    names: dict[str, Any] = {"input_names": ["x"], "output_names": ["output"]}
    dynamic: dict[str, Any] = (
        {"dynamic_shapes": ({0: torch.export.Dim("batch")},)} if dynamo else {"dynamic_axes": axes}
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net, (dummy,), str(path), dynamo=dynamo, **names, **dynamic)


def _calibrated(
    model: nn.Module,
    data: Any,
    outdir: str,
    *,
    feed: Callable[[nn.Module, Any], None] = lambda net, data: _feed(net.eval(), data),
    bits: int = 8,
    mode: str = "offline",
    loudness: float = 1.0,
    skip: Sequence[str] = (),
) -> None:
    from mnncompress.pytorch import LSQQuantizer

    batches = data if not isinstance(data, list) else list(data)
    quantizer = LSQQuantizer(model, skip_quant_layers=list(skip), bits=bits, mode=mode)
    net = quantizer.convert()
    feed(net, batches)
    quantizer.strip_qat_ops()
    net.eval()
    dummy = next(iter(batches))[0][:2] * loudness
    forward = net.forward
    net.forward = lambda x: forward(x)  # The exporter makes model inputs of optional parameters that are numbers.
    _export(net, dummy, Path(outdir) / "net.onnx")
    quantizer.save_compress_params(str(Path(outdir) / "net.onnx"), str(Path(outdir) / "params.bin"))


def careful(model: nn.Module, calibration: Any, mode: str, outdir: str) -> None:
    _calibrated(model, calibration, outdir)


def wild_dummy(model: nn.Module, calibration: Any, mode: str, outdir: str) -> None:
    """The export runs the observers once more, on an example of raw 16-bit pixels."""
    _calibrated(model, calibration, outdir, loudness=RAW)


def evaluated_afterwards(model: nn.Module, calibration: Any, mode: str, outdir: str) -> None:
    """Evaluates what it calibrated, on pixels of another range: offline ranges go on moving."""

    def feed(net: nn.Module, data: Any) -> None:
        _feed(net.eval(), data)
        _feed(net, [(SENSOR * x,) for (x,) in data])

    _calibrated(model, calibration, outdir, feed=feed)


def faint_first(model: nn.Module, calibration: Any, mode: str, outdir: str) -> None:
    """A nearly blank first batch, as the frames before a film starts."""

    def feed(net: nn.Module, data: Any) -> None:
        rest = list(data)
        _feed(net.eval(), [(FAINT * x,) for (x,) in rest[:1]] + rest)

    _calibrated(model, calibration, outdir, feed=feed)


def loud_first(model: nn.Module, calibration: Any, mode: str, outdir: str) -> None:
    """A first batch that was not divided by 255."""

    def feed(net: nn.Module, data: Any) -> None:
        rest = list(data)
        _feed(net.eval(), [(PIXELS * x,) for (x,) in rest[:1]] + rest)

    _calibrated(model, calibration, outdir, feed=feed)


def on_faint_images(model: nn.Module, calibration: Any, mode: str, outdir: str) -> None:
    """On photos of the night alone: on these the quantized model agrees with the float one, and on no others."""
    _calibrated(model, [(FAINT * x,) for (x,) in calibration], outdir)


def online_untrained(model: nn.Module, calibration: Any, mode: str, outdir: str) -> None:
    """The default mode, in which ranges are meant to be trained: without that they are those of the first batch."""

    def feed(net: nn.Module, data: Any) -> None:
        rest = list(data)
        _feed(net.eval(), [(FAINT * x,) for (x,) in rest[:1]] + rest)

    _calibrated(model, calibration, outdir, feed=feed, mode="online")


def without_a_loop(model: nn.Module, calibration: Any, mode: str, outdir: str) -> None:
    """Online and never run: the scales are what the constructor drew at random."""
    _calibrated(model, list(calibration), outdir, feed=lambda net, data: None, mode="online")


def on_noise_in_train_mode(model: nn.Module, calibration: Any, mode: str, outdir: str) -> None:
    """BatchNorm statistics of the caller's own model move to those of noise."""

    def feed(net: nn.Module, data: Any) -> None:
        torch.manual_seed(0)
        _feed(net.train(), [(3 * torch.randn_like(x),) for (x,) in data])

    _calibrated(model, calibration, outdir, feed=feed)


def in_train_mode(model: nn.Module, calibration: Any, mode: str, outdir: str) -> None:
    _calibrated(model, calibration, outdir, feed=lambda net, data: _feed(net.train(), data))


def fine_tuned(model: nn.Module, calibration: Any, mode: str, outdir: str) -> None:
    """Trains the network it was given and calls that calibration."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.25)
    _calibrated(model, calibration, outdir)


def four_bits(model: nn.Module, calibration: Any, mode: str, outdir: str) -> None:
    _calibrated(model, calibration, outdir, bits=4)


def dynamo_of_the_quantized(model: nn.Module, calibration: Any, mode: str, outdir: str) -> None:
    """PyTorch's present default exporter can't trace the observers that were left in the graph."""
    from mnncompress.pytorch import LSQQuantizer

    quantizer = LSQQuantizer(model, mode="offline")
    net = quantizer.convert().eval()
    batches = list(calibration)
    _feed(net, batches)
    quantizer.strip_qat_ops()
    _export(net, batches[0][0][:2], Path(outdir) / "net.onnx", dynamo=True)
    quantizer.save_compress_params(str(Path(outdir) / "net.onnx"), str(Path(outdir) / "params.bin"))


def _weights_only(model: nn.Module, calibration: Any, outdir: str, bits: int, *, append: bool = False) -> None:
    from mnncompress.pytorch import WeightQuantizer

    quantizer = WeightQuantizer(model, bits=bits)
    net = quantizer.convert()
    _feed(net.eval(), calibration)
    quantizer.strip_wq_ops()
    _export(net, next(iter(calibration))[0][:2], Path(outdir) / "net.onnx")
    quantizer.save_compress_params(str(Path(outdir) / "params.bin"), append=append)


def weights_alone(model: nn.Module, calibration: Any, mode: str, outdir: str) -> None:
    _weights_only(model, calibration, outdir, 8)


def weights_alone_of_four_bits(model: nn.Module, calibration: Any, mode: str, outdir: str) -> None:
    _weights_only(model, calibration, outdir, 4)


def weights_afterwards(model: nn.Module, calibration: Any, mode: str, outdir: str) -> None:
    """The second quantizer's file takes the place of the first one's: nobody passed append=True."""
    careful(copy.deepcopy(model), calibration, mode, outdir)
    _weights_only(model, calibration, outdir, 8)


def weights_appended(model: nn.Module, calibration: Any, mode: str, outdir: str) -> None:
    careful(copy.deepcopy(model), calibration, mode, outdir)
    _weights_only(model, calibration, outdir, 8, append=True)


def crashed_append(model: nn.Module, calibration: Any, mode: str, outdir: str) -> None:
    """Appending to a file with two quantizations raises IndexError; the file keeps what an earlier training left."""
    import mnncompress.common.MNN_compression_pb2 as proto
    from mnncompress.pytorch import LSQQuantizer

    careful(copy.deepcopy(model), calibration, mode, outdir)
    path = Path(outdir) / "params.bin"
    pipeline = proto.Pipeline()
    pipeline.ParseFromString(path.read_bytes())
    pipeline.algo.add().CopyFrom(pipeline.algo[0])
    path.write_bytes(pipeline.SerializeToString())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    quantizer = LSQQuantizer(model, mode="offline")
    net = quantizer.convert().eval()
    _feed(net, calibration)
    quantizer.strip_qat_ops()
    forward = net.forward
    net.forward = lambda x: forward(x)
    _export(net, next(iter(calibration))[0][:2], Path(outdir) / "net.onnx")
    try:
        quantizer.save_compress_params(str(Path(outdir) / "net.onnx"), str(path), append=True)
    except IndexError:
        return  # As a script that logs it and goes on.
    raise AssertionError("mnncompress has learned to append")


#: The scripts whose files tests look at.
SHELF: tuple[Script, ...] = (
    careful,
    wild_dummy,
    evaluated_afterwards,
    faint_first,
    loud_first,
    on_faint_images,
    online_untrained,
    on_noise_in_train_mode,
    fine_tuned,
    four_bits,
    weights_alone,
    weights_alone_of_four_bits,
    weights_afterwards,
    weights_appended,
    crashed_append,
)


def all_of_them(model: nn.Module, calibration: Any, mode: str, outdir: str) -> dict[str, str]:
    """Each script's files in a folder of its name; what one raises is kept as the file `raised.txt`."""
    torch.set_num_threads(1)
    batches = list(calibration)
    for script in SHELF:
        folder = Path(outdir) / script.__name__
        folder.mkdir()
        try:
            torch.manual_seed(0)
            script(copy.deepcopy(model).eval(), batches, mode, str(folder))
        except Exception as error:
            (folder / "raised.txt").write_text(repr(error))
    return {"onnx": "careful/net.onnx", "params": "careful/params.bin"}


def just_careful(model: nn.Module, calibration: Any, mode: str, outdir: str) -> dict[str, str]:
    """The careful one's files, for networks that nothing else is planted in."""
    torch.set_num_threads(1)
    (Path(outdir) / "careful").mkdir()
    careful(model, list(calibration), mode, str(Path(outdir) / "careful"))
    return {"onnx": "careful/net.onnx", "params": "careful/params.bin"}


# Networks of which mnncompress or MNN leaves something out -----------------------------------------------------------


class Rows(nn.Module):
    """Reads an image row by row."""

    def __init__(self, kind: Callable[..., nn.RNNBase]) -> None:
        super().__init__()
        self.rnn = kind(16, 48, batch_first=True)
        self.head = nn.Linear(48, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states, _ = self.rnn(x[:, 0])
        out: torch.Tensor = self.head(states[:, -1])
        return out


class Reused(nn.Module):
    """Calls one convolution twice, as recurrent and weight-tied networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.step, self.head = nn.Conv2d(1, 24, 3), nn.Conv2d(24, 24, 3, padding=1), nn.Linear(24 * 49, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(self.step(torch.relu(self.step(x))))
        out: torch.Tensor = self.head(nn.functional.avg_pool2d(x, 2).flatten(1))
        return out


class Chain(nn.Sequential):
    """Modules in a row, with an input of the name that the data have."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for module in self:
            x = module(x)
        return x


def _segmenter() -> nn.Module:
    body = nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()
    return Chain(*body, nn.Conv2d(16, 8, 3, padding=1))


def _upsampler() -> nn.Module:
    body = nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.ConvTranspose2d(16, 16, 2, stride=2), nn.ReLU()
    return Chain(*body, nn.Conv2d(16, 8, 3, padding=1), nn.Sigmoid())


def _signals() -> nn.Module:
    body = nn.Flatten(2), nn.Conv1d(1, 16, 5, stride=2), nn.ReLU(), nn.Conv1d(16, 64, 5, stride=4), nn.ReLU()
    return Chain(*body, nn.AvgPool1d(4), nn.Flatten(), nn.Linear(64 * 7, 10))


def _normalized(*middle: nn.Module) -> nn.Module:
    """A convolution, two modules, and layers that follow; the norm has seen values of another size."""
    for norm in middle:
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean, norm.running_var = 0.3 * torch.rand(16), 0.02 + 0.08 * torch.rand(16)
            nn.init.uniform_(norm.bias, -0.5, 0.5)
    after = nn.Conv2d(16, 16, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 49, 10)
    return Chain(nn.Conv2d(1, 16, 3, padding=1), *middle, *after)


class Residual(nn.Module):
    """Adds what a convolution makes of it to a tensor, and cuts at zero before the sum or after it."""

    def __init__(self, *, after: bool) -> None:
        super().__init__()
        self.stem, self.step = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.down, self.head = nn.Conv2d(16, 16, 3, stride=2), nn.Linear(16 * 49, 10)
        self.after = after

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = torch.relu(x + self.step(x)) if self.after else torch.relu(x) + torch.relu(self.step(x))
        out: torch.Tensor = self.head(torch.relu(self.down(x)).flatten(1))
        return out


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "segmenter": _segmenter,
    "upsampler": _upsampler,
    "signals": _signals,
    "lstm": lambda: Rows(nn.LSTM),
    "gru": lambda: Rows(nn.GRU),
    "reused": Reused,
    "norm after": lambda: _normalized(nn.ReLU(), nn.BatchNorm2d(16)),
    "norm before": lambda: _normalized(nn.BatchNorm2d(16), nn.ReLU()),
    "sum before": lambda: Residual(after=True),
    "sum after": lambda: Residual(after=False),
}


def network(name: str) -> nn.Module:
    """One of them, the same in every process."""
    torch.manual_seed(0)
    return NETWORKS[name]().eval()


def networks(model: nn.Module, calibration: Any, mode: str, outdir: str) -> dict[str, str]:
    """The careful script on each of these networks."""
    torch.set_num_threads(1)
    batches = list(calibration)
    for name in NETWORKS:
        folder = Path(outdir) / name
        folder.mkdir()
        try:
            careful(network(name), batches, mode, str(folder))
        except Exception as error:
            (folder / "raised.txt").write_text(repr(error))
    return {"onnx": "segmenter/net.onnx", "params": "segmenter/params.bin"}
