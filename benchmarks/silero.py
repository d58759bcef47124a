"""Silero's voice detector, quantized and judged over speech, with its state fed back at each step.

python benchmarks/silero.py FOLDER

Needs silero-vad (extra `zoo`), of which only the ONNX file is used, and espeak-ng. The speech is phrases in several
voices, with pauses of known length between them, and noise. A step is 32 ms, its label whether most of it is
speech. The metric is the share of steps with the right decision (above 0.5). Prints a row per recipe: the metric of
both models over all steps, the SQNR of the probability and of the state at steps 1, 10 and 100, and the verdict.
"""

from __future__ import annotations

import importlib.util
import io
import os
import shutil
import subprocess
import sys
import wave
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.config.settings import model_settings
from pytest_mnnquant.evidence.check_runner import run_check
from pytest_mnnquant.evidence.source import FixtureValues, SourceUnderTest
from pytest_mnnquant.evidence.variant import variant_under_test
from pytest_mnnquant.findings.accuracy_metrics import AccuracyMetrics
from pytest_mnnquant.findings.check_metrics import metrics_of
from pytest_mnnquant.findings.finding import Result
from pytest_mnnquant.sources.spec import parse_spec

Array = npt.NDArray[Any]
FILE: Final = "silero_vad_openvino_16k.onnx"
RATE: Final = 16000
#: Samples of a step, and those of the step before that the model takes in front of them.
STEP, CONTEXT = 512, 64
RECIPES: Final = ("w8", "w4", "int8", "int8-kl", "mnnquant-kl")
_VOICES: Final = ("en", "en+f3", "en-us+m4", "de+f2", "fr", "es+m2")
_PHRASES: Final = (
    *(
        "the weather is fine today",
        "please open the window",
        "seven nine two four",
        "good morning",
        "turn the music off",
    ),
    *("where is the station", "the quick brown fox", "call me tomorrow at ten", "stop", "thank you very much"),
)
# The loudest sample of a phrase's edge that counts as silence.
_SILENCE: Final = 0.01


def model_file() -> Path | None:
    """The ONNX file of the installed wheel, found without importing it; None if it is not installed."""
    spec = importlib.util.find_spec("silero_vad")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations))) / "data" / FILE


def speaker() -> list[str] | None:
    """The command of espeak-ng; `ESPEAK_NG` names another. None if it is not installed."""
    command = os.environ.get("ESPEAK_NG", "espeak-ng").split()
    return command if shutil.which(command[0]) else None


def phrase(command: list[str], voice: str, text: str, speed: int) -> Array:
    """A spoken phrase without silence around it, in -1..1 at 16 kHz."""
    options = ["-v", voice, "-s", str(speed), "--stdout", text]
    spoken = subprocess.run([*command, *options], capture_output=True, check=True).stdout
    with wave.open(io.BytesIO(spoken)) as file:
        rate, data = file.getframerate(), file.readframes(1 << 30)
    sound = np.frombuffer(data, np.int16) / 32768
    places = np.arange(0, len(sound) - 1, rate / RATE)
    sound = np.interp(places, np.arange(len(sound)), sound)
    loud = np.flatnonzero(np.abs(sound) > _SILENCE)
    return sound[loud[0] : loud[-1] + 1]


def sequences(command: list[str], count: int, seconds: float, seed: int) -> dict[str, Array]:
    """`input` of shape [count, steps, 576], and `labels` of shape [count, steps]: 1 for speech."""
    random = np.random.default_rng(seed)
    steps = int(seconds * RATE / STEP)
    inputs, labels = np.zeros((count, steps, CONTEXT + STEP), np.float32), np.zeros((count, steps), np.int64)
    for number in range(count):
        sound, spoken = np.zeros(steps * STEP), np.zeros(steps * STEP, bool)
        place = int(random.uniform(0.2, 1.0) * RATE)
        while place < len(sound):
            voice, text = random.choice(_VOICES), random.choice(_PHRASES)
            part = phrase(command, str(voice), str(text), int(random.integers(130, 190)))[: len(sound) - place]
            sound[place : place + len(part)] = part * random.uniform(0.3, 1.0)
            spoken[place : place + len(part)] = True
            place += len(part) + int(random.uniform(0.6, 1.6) * RATE)
        sound += random.normal(0, random.uniform(0.0005, 0.01), len(sound))
        padded = np.concatenate([np.zeros(CONTEXT), sound])
        for step in range(steps):
            inputs[number, step] = padded[step * STEP : step * STEP + CONTEXT + STEP]
        labels[number] = spoken.reshape(steps, STEP).mean(1) > 0.5
    return {"input": inputs, "labels": labels}


def decisions(outputs: dict[str, Array], labels: Array) -> Array:
    """Whether each step is decided rightly."""
    return np.asarray(np.equal(outputs["output"].reshape(-1) > 0.5, labels == 1))


def judge(file: Path, recipe: str, data: tuple[Any, Any], store: Store) -> Result:
    """The accuracy of a recipe over sequences."""
    calibration, evaluation = data
    values = {
        "state": {"state": "stateN"},
        "metric": f"{Path(__file__).resolve()}:decisions",
        "max_accuracy_drop": 0.01,
    }
    settings = model_settings(str(file), "silero", file.parent, values)
    given = FixtureValues(calibration=calibration, evaluation=evaluation)
    source = SourceUnderTest(settings, parse_spec(str(file), file.parent), store, lambda _: None, given)
    return run_check(variant_under_test(source, recipe, None), "accuracy")


def row(recipe: str, result: Result) -> str:
    """A row of the table."""
    metrics = metrics_of(AccuracyMetrics, [result]) or AccuracyMetrics()
    cells = [f"`{recipe}`"]
    cells += [f"{metrics.task.reference:.4f}", f"{metrics.task.quantized:.4f}"] if metrics.task else ["-", "-"]
    for output in ("output", "stateN"):
        cells.append(", ".join(f"{step.sqnr_db:.1f}" for step in metrics.error_over_steps.get(output, ())) or "-")
    codes = ", ".join(finding.code for finding in result.findings)
    return f"| {' | '.join(cells)} | {result.outcome}{f' ({codes})' if codes else ''} |"


def main(folder: Path) -> None:
    """Print the table."""
    file, command = model_file(), speaker()
    if file is None or command is None:
        raise SystemExit("needs silero-vad (extra `zoo`) and espeak-ng")
    heldout = sequences(command, 12, 12.0, 2)
    calibration = {"input": sequences(command, 6, 12.0, 1)["input"]}
    share = heldout["labels"].mean()
    print(f"{heldout['labels'].size} steps of {len(heldout['labels'])} sequences, {share:.0%} of them speech\n")
    print("| recipe | right (float) | right | SQNR of the probability | SQNR of the state | verdict |")
    print("|---|---|---|---|---|---|")
    for recipe in RECIPES:
        print(row(recipe, judge(file, recipe, (calibration, heldout), Store(folder))), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
