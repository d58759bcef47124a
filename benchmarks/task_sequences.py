"""Networks on text lines, sound, vectors and series; two keep a state between calls."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import task_scores as scores
import torch
from task_kinds import Line, Samples, Task
from task_pictures import WithArgMax
from torch import Tensor, nn
from torch.nn import functional

sys.path.append(str(Path(__file__).resolve().parent.parent / "fixtures"))
import digits_data

_WIDTH: Final = 64
_BANDS: Final = 24
_FRAMES: Final = 32
_STATE: Final = 48
_WORDS: Final = 6
_CHARACTERS: Final = Line("more than 0.02 of the characters", 0.02)
_SHARE: Final = Line("more than 0.02 of the answers", 0.02)
_DECIBELS: Final = Line("more than 0.5 dB", 0.5)
_RANKS: Final = Line("more than 0.01 of the correlation", 0.01)
_TWENTIETH: Final = Line("an error that rises by more than 5 %", 0.05, is_share_of_error=True)
Array = npt.NDArray[Any]


def _float32(array: Array) -> Array:
    return array.astype(np.float32)


# Text ----------------------------------------------------------------------------------------------------------------


class Reader(nn.Module):
    """Columns of a text line by convolutions, then along the line: CTC logits."""

    def __init__(self, recurrent: bool) -> None:
        super().__init__()
        self.columns = nn.Sequential(
            *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d((2, 1))),
            *(nn.Conv2d(32, 48, (4, 3), padding=(0, 1)), nn.BatchNorm2d(48), nn.ReLU()),
        )
        self.line = nn.LSTM(48, 48) if recurrent else nn.Conv1d(48, 48, 5, padding=2)
        self.head = nn.Linear(48, 11)

    def forward(self, image: Tensor) -> Tensor:
        """[steps, n, 11] of the recurrent network, [n, steps, 11] of the other."""
        features = self.columns(image).squeeze(2)
        if isinstance(self.line, nn.LSTM):
            rows = self.line(features.permute(2, 0, 1))[0]
        else:
            rows = torch.relu(self.line(features)).permute(0, 2, 1)
        logits: Tensor = self.head(rows)
        return logits


def lines(count: int, seed: int) -> Samples:
    """Three to five digits in a line of 16 x 64 pixels; characters 1 to 10."""
    images, digits = digits_data.train(16)
    random = np.random.default_rng(seed)
    half = len(images) // 2
    pool = np.arange(half) if seed == 1 else np.arange(half, len(images))
    made, text = np.zeros((count, 1, 16, _WIDTH), np.float32), np.zeros((count, 5), np.int64)
    for line, characters in zip(made, text, strict=True):
        length = random.integers(3, 6)
        for place in range(length):
            number = random.choice(pool)
            left = 1 + 12 * place + random.integers(0, 2)
            line[0, :, left : left + 12] = images[number, 0, :, 2:14]
            characters[place] = digits[number] + 1
    return Samples({"image": made + _float32(random.normal(0, 0.05, made.shape))}, {"text": text})


def text_loss(network: Reader, inputs: list[Tensor], truth: dict[str, Tensor]) -> Tensor:
    """CTC (Graves et al., 2006)."""
    logits = network(inputs[0])
    steps = logits.log_softmax(2) if isinstance(network.line, nn.LSTM) else logits.log_softmax(2).permute(1, 0, 2)
    lengths = torch.full((steps.shape[1],), steps.shape[0])
    return functional.ctc_loss(steps, truth["text"], lengths, (truth["text"] > 0).sum(1))


# Sound ---------------------------------------------------------------------------------------------------------------


def _voices(random: np.random.Generator, count: int, frames: int) -> tuple[Array, Array]:
    """Harmonics that glide, for a part of the time; and when."""
    bands = np.arange(_BANDS)
    sound, speaks = np.zeros((count, frames, _BANDS)), np.zeros((count, frames))
    for spectrum, active in zip(sound, speaks, strict=True):
        pitch, speed, on = random.uniform(3, 6), random.uniform(-0.1, 0.1), random.random() < 0.5
        for frame in range(frames):
            on = (not on) if random.random() < 0.12 else on
            pitch = float(np.clip(pitch + speed + random.normal(0, 0.05), 2.5, 7))
            if on:
                peaks = sum(np.exp(-((bands - pitch * number) ** 2) / 0.7) / number**0.5 for number in range(1, 6))
                spectrum[frame] = peaks * random.uniform(0.6, 1.2)
            active[frame] = on
    return sound, speaks


def voice(count: int, seed: int) -> Samples:
    """Spectra with noise that rises and falls, and which frames hold speech."""
    random = np.random.default_rng(seed)
    sound, speaks = _voices(random, count, _FRAMES)
    noise = random.uniform(0.1, 0.5, (count, 1, 1)) * np.abs(random.normal(0, 1, sound.shape))
    return Samples({"spectrum": _float32(np.log(0.1 + sound + noise))}, {"speech": _float32(speaks)})


class VoiceDetector(nn.Module):
    """The probability of speech of each frame, from its neighbours."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv1d(_BANDS, 32, 5, padding=2), nn.BatchNorm1d(32), nn.ReLU()),
            *(nn.Conv1d(32, 32, 5, padding=4, dilation=2), nn.ReLU(), nn.Conv1d(32, 1, 1)),
        )

    def forward(self, spectrum: Tensor) -> Tensor:
        """[n, frames]."""
        logits: Tensor = self.layers(spectrum.transpose(1, 2)).squeeze(1)
        return logits.sigmoid()


def speech_loss(network: nn.Module, inputs: list[Tensor], truth: dict[str, Tensor]) -> Tensor:
    """Cross entropy of the frames."""
    return functional.binary_cross_entropy(network(inputs[0]), truth["speech"])


class Keywords(nn.Module):
    """Depthwise separable convolutions over a spectrum (Zhang et al., Hello Edge, 2017)."""

    def __init__(self) -> None:
        super().__init__()
        block = [nn.Conv2d(1, 24, (5, 4), 2, (2, 1)), nn.BatchNorm2d(24), nn.ReLU()]
        for _ in range(3):
            block += [nn.Conv2d(24, 24, 3, padding=1, groups=24), nn.BatchNorm2d(24), nn.ReLU()]
            block += [nn.Conv2d(24, 24, 1), nn.BatchNorm2d(24), nn.ReLU()]
        self.layers = nn.Sequential(*block, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, _WORDS))

    def forward(self, spectrum: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.layers(spectrum)
        return logits


def words(count: int, seed: int) -> Samples:
    """Six movements of two formants, at any time and speed, in noise."""
    random = np.random.default_rng(seed)
    bands = np.arange(_BANDS)
    moves = ((5, 15, 18, 10), (15, 5, 18, 10), (5, 15, 10, 18), (15, 5, 10, 18), (10, 10, 18, 12), (5, 5, 12, 20))
    label = random.integers(0, _WORDS, count)
    sound = np.abs(random.normal(0, 0.35, (count, 1, _FRAMES, _BANDS)))
    for (spectrum,), word in zip(sound, label, strict=True):
        start, length = random.integers(0, 10), random.integers(14, 22)
        low, high, upper, last = np.array(moves[word]) + random.normal(0, 0.8, 4)
        for step in range(length):
            part = step / length
            for place in (low + (high - low) * part, upper + (last - upper) * part):
                spectrum[start + step] += random.uniform(0.4, 1) * np.exp(-((bands - place) ** 2) / 2)
    return Samples({"spectrum": _float32(np.log(0.1 + sound))}, {"label": label})


def class_loss(network: nn.Module, inputs: list[Tensor], truth: dict[str, Tensor]) -> Tensor:
    """Cross entropy."""
    return functional.cross_entropy(network(inputs[0]), truth["label"])


def noisy_voice(count: int, seed: int) -> Samples:
    """Spectra with noise, and the clean ones."""
    random = np.random.default_rng(seed)
    clean, _ = _voices(random, count, _FRAMES)
    noise = random.uniform(0.1, 0.4, (count, 1, 1)) * np.abs(random.normal(0, 1, clean.shape))
    return Samples({"spectrum": _float32(clean + noise)}, {"clean": _float32(clean), "noisy": _float32(clean + noise)})


class Masker(nn.Module):
    """A mask in 0..1 for each band of each frame."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv1d(_BANDS, 64, 5, padding=2), nn.PReLU(64), nn.Conv1d(64, 64, 3, padding=1), nn.PReLU(64)),
            nn.Conv1d(64, _BANDS, 1),
        )

    def forward(self, spectrum: Tensor) -> Tensor:
        """[n, frames, bands]."""
        logits: Tensor = self.layers(torch.log(0.05 + spectrum).transpose(1, 2)).transpose(1, 2)
        return logits.sigmoid()


def enhancement_loss(network: nn.Module, inputs: list[Tensor], truth: dict[str, Tensor]) -> Tensor:
    """Square error of the masked spectrum."""
    return 100 * functional.mse_loss(network(inputs[0]) * inputs[0], truth["clean"])


class StreamingMasker(nn.Module):
    """A frame and a state in, a mask and the next state out."""

    def __init__(self) -> None:
        super().__init__()
        self.given, self.cell, self.last = (
            nn.Linear(_BANDS, _STATE),
            nn.GRUCell(_STATE, _STATE),
            nn.Linear(2 * _STATE, _BANDS),
        )

    def forward(self, frame: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Mask [n, bands], state [n, 48]."""
        features = torch.relu(self.given(torch.log(0.05 + frame)))
        state = self.cell(features, state)
        return self.last(torch.cat([features, state], 1)).sigmoid(), state


def framewise_voice(count: int, seed: int) -> Samples:
    """`noisy_voice`, with the frames as the steps of a sequence."""
    samples = noisy_voice(count, seed)
    return Samples({"frame": samples.inputs["spectrum"]}, samples.truth)


def streaming_enhancement_loss(network: nn.Module, inputs: list[Tensor], truth: dict[str, Tensor]) -> Tensor:
    """`enhancement_loss` over all steps."""
    return 100 * functional.mse_loss(_over_steps(network, inputs[0]) * inputs[0], truth["clean"])


def _over_steps(network: nn.Module, frames: Tensor) -> Tensor:
    state, made = torch.zeros(len(frames), _STATE), []
    for step in range(frames.shape[1]):
        output, state = network(frames[:, step], state)
        made.append(output)
    return torch.stack(made, 1)


class StreamingDetector(nn.Module):
    """Whether a tone rises or falls: known from the past only, by a state."""

    def __init__(self) -> None:
        super().__init__()
        self.given, self.cell, self.last = nn.Linear(_BANDS, _STATE), nn.GRUCell(_STATE, _STATE), nn.Linear(_STATE, 2)

    def forward(self, frame: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [n, 2], state [n, 48]."""
        state = self.cell(torch.relu(self.given(frame)), state)
        return self.last(state), state


def tones(count: int, seed: int) -> Samples:
    """A tone that rises and falls."""
    random = np.random.default_rng(seed)
    bands = np.arange(_BANDS)
    frames, rising = np.zeros((count, _FRAMES, _BANDS)), np.zeros((count, _FRAMES), np.int64)
    for spectrum, classes in zip(frames, rising, strict=True):
        place, direction = random.uniform(6, 18), 1
        for step in range(_FRAMES):
            direction = -direction if random.random() < 0.15 else direction
            direction = 1 if place < 3 else -1 if place > _BANDS - 4 else direction
            place += direction
            spectrum[step] = np.exp(-((bands - place) ** 2) / 6) * random.uniform(0.5, 1.5)
            classes[step] = direction > 0
    return Samples({"frame": _float32(frames + random.normal(0, 0.05, frames.shape))}, {"rising": rising})


def direction_loss(network: nn.Module, inputs: list[Tensor], truth: dict[str, Tensor]) -> Tensor:
    """Cross entropy over all steps."""
    return functional.cross_entropy(_over_steps(network, inputs[0]).flatten(0, 1), truth["rising"].flatten())


# Vectors, scores and series ------------------------------------------------------------------------------------------


class Embedder(nn.Module):
    """Unit vectors of digits; the classes are for training only."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(1, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(512, 32)),
        )
        self.classes = nn.Linear(32, 10, bias=False)

    def forward(self, image: Tensor) -> Tensor:
        """[n, 32], of length 1."""
        made = self.layers(image)
        unit: Tensor = made / (made * made).sum(1, keepdim=True).sqrt()
        return unit


def noisy_digits(count: int, seed: int) -> Samples:
    """Digits with much noise."""
    part = digits_data.train(16) if seed == 1 else tuple(digits_data.evaluation(16).values())
    random = np.random.default_rng(seed)
    chosen = random.choice(len(part[0]), count, replace=count > len(part[0]))
    images = part[0][chosen]
    return Samples({"image": images + _float32(random.normal(0, 0.25, images.shape))}, {"label": part[1][chosen]})


def embedding_loss(network: Embedder, inputs: list[Tensor], truth: dict[str, Tensor]) -> Tensor:
    """Cross entropy of scaled cosines."""
    return functional.cross_entropy(network.classes(network(inputs[0])) * 8, truth["label"])


class Ranker(nn.Module):
    """One score per row of features."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, features: Tensor) -> Tensor:
        """[n, 1]."""
        scores: Tensor = self.layers(features)
        return scores


def candidates(count: int, seed: int) -> Samples:
    """Features of which few matter, some of them large; relevance is a product and a sum of them."""
    random = np.random.default_rng(seed)
    features = random.normal(0, 1, (count, 20)) * np.where(np.arange(20) % 5 == 0, 4, 1)
    relevance = features[:, 0] * 0.5 + np.tanh(features[:, 1] * features[:, 2]) + np.abs(features[:, 3])
    relevance = 8 + relevance + random.normal(0, 0.2, count)
    return Samples({"features": _float32(features)}, {"relevance": _float32(relevance)})


def ranking_loss(network: nn.Module, inputs: list[Tensor], truth: dict[str, Tensor]) -> Tensor:
    """Square error."""
    return functional.mse_loss(network(inputs[0])[:, 0], truth["relevance"])


class Forecaster(nn.Module):
    """The next 12 values from 48, on top of the last value."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv1d(1, 24, 7, 2, 3), nn.ReLU(), nn.Conv1d(24, 24, 5, 2, 2), nn.ReLU(), nn.Flatten()),
            *(nn.Linear(288, 64), nn.ReLU(), nn.Linear(64, 12)),
        )

    def forward(self, past: Tensor) -> Tensor:
        """[n, 12]."""
        level = past[:, :, -1]
        future: Tensor = level + self.layers((past - level[:, :, None]) / 5)
        return future


def series(count: int, seed: int) -> Samples:
    """A level, a slope, two periods and noise."""
    random = np.random.default_rng(seed)
    time = np.arange(60)
    level, slope = random.uniform(40, 60, (count, 1)), random.uniform(-0.15, 0.15, (count, 1))
    waves = sum(
        random.uniform(0.5, 3, (count, 1)) * np.sin(time * 2 * np.pi / period + random.uniform(0, 6, (count, 1)))
        for period in (12, 30)
    )
    values = level + slope * time + waves + random.normal(0, 0.3, (count, 60))
    return Samples({"past": _float32(values[:, None, :48])}, {"future": _float32(values[:, 48:])})


def series_loss(network: nn.Module, inputs: list[Tensor], truth: dict[str, Tensor]) -> Tensor:
    """Square error."""
    return functional.mse_loss(network(inputs[0]), truth["future"])


def _time_major(outputs: Any, truth: dict[str, Array]) -> float:
    """CTC logits that the truth runner stacked as [n, steps, 1, 11]."""
    return scores.characters_batch_first(outputs, truth)


_KEPT: Final[dict[str, Any]] = {
    "states": {"state": 1},
    "state_sizes": {"state": _STATE},
    "evaluation": 24,
    "calibration": 24,
}
TASKS: Final = (
    Task(
        *("OCR, time-major", lambda: Reader(True), lines, text_loss),
        *(_time_major, "characters", _CHARACTERS),
        steps=1500,
    ),
    Task(
        *("OCR, batch-first", lambda: Reader(False), lines, text_loss),
        *(scores.characters_batch_first, "characters", _CHARACTERS),
    ),
    Task(
        *("OCR, ArgMax inside", lambda: Reader(False), lines, text_loss, scores.characters_of_ids, "characters"),
        *(_CHARACTERS, lambda network: WithArgMax(network, 2)),
    ),
    Task("keyword spotting", Keywords, words, class_loss, scores.top1, "top-1", _SHARE),
    Task("voice activity", VoiceDetector, voice, speech_loss, scores.balanced_frames, "balanced", _SHARE),
    Task(
        *("voice activity, states", StreamingDetector, tones, direction_loss, scores.right_steps, "right", _SHARE),
        **_KEPT,
    ),
    Task("speech enhancement, masks", Masker, noisy_voice, enhancement_loss, scores.clean_snr, "SNR", _DECIBELS),
    Task(
        *("speech enhancement, states", StreamingMasker, framewise_voice, streaming_enhancement_loss),
        *(scores.clean_snr, "SNR", _DECIBELS),
        **_KEPT,
    ),
    Task(
        *("embeddings", Embedder, noisy_digits, embedding_loss, scores.right_neighbours, "right", _SHARE),
        evaluation=480,
    ),
    Task(
        *("ranking", Ranker, candidates, ranking_loss, scores.rank_correlation, "Spearman", _RANKS),
        steps=800,
        evaluation=300,
    ),
    Task("forecasting", Forecaster, series, series_loss, scores.forecast_error, "-RMSE", _TWENTIETH, steps=600),
)
