"""Makes the networks and data of the examples from the digits in fixtures: `python examples/make.py`.

The net is trained once and lies in each folder in the form that the example starts from, so that each can be copied
away and works by itself. Takes half a minute.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "zero-code"), str(HERE.parent / "fixtures")]
import digits_data  # noqa: E402
from net import Net  # noqa: E402

SIZE, CALIBRATION, EVALUATION, EPOCHS = 8, 320, 300, 40


def train() -> Net:
    """The net, trained on the training part of the digits."""
    torch.manual_seed(0)
    images, labels = map(torch.from_numpy, digits_data.train(SIZE))
    net = Net()
    optimizer = torch.optim.AdamW(net.parameters(), 3e-3, weight_decay=0.05)
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(images)).split(64):
            shifted = torch.roll(images[chosen], int(torch.randint(-1, 2, ())), 3)
            loss = functional.cross_entropy(net(shifted), labels[chosen], label_smoothing=0.05)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
    return net.eval()


def main() -> None:
    """Write weights, ONNX model and data into the three folders."""
    net = train()
    calibration = digits_data.calibration(SIZE, CALIBRATION)
    evaluation = {name: array[:EVALUATION] for name, array in digits_data.evaluation(SIZE).items()}
    for name in ("zero-code", "own-tests", "shell-pipeline"):
        np.savez_compressed(HERE / name / "calibration.npz", **calibration)
        np.savez_compressed(HERE / name / "evaluation.npz", **evaluation)
    for name in ("zero-code", "own-tests"):
        torch.save(net.state_dict(), HERE / name / "net.pt")
    torch.onnx.export(
        net,
        (torch.from_numpy(calibration["x"][:1]),),
        str(HERE / "shell-pipeline" / "net.onnx"),
        dynamo=False,
        input_names=["x"],
        output_names=["output"],
        dynamic_axes={"x": {0: "batch"}, "output": {0: "batch"}},
    )


if __name__ == "__main__":
    main()
