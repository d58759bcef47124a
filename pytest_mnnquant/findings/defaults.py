"""The default values, if the user sets nothing; each is defined here only.

Loaded by every pytest run on a machine that has the plugin, so it imports nothing large. A value that several rooms
need is a constant of the lowest room, so that options, settings, checks and the command line agree on it.
"""

from __future__ import annotations

from typing import Final

RECIPES: Final = ("int8",)
#: State of a PyTorch model while it is calibrated.
MODE: Final = "both"
EXPORTER: Final = "torchscript"
TARGETS: Final = ("host",)

#: Required share of weight bytes that are stored as requested, in [0, 1].
COVERAGE: Final = 0.99
#: Allowed absolute drop of a share (top-1, ...).
DROP: Final = 0.01
#: Required mean cosine similarity of outputs without labels; the second one for 4 bits and fewer.
COSINE: Final = 0.99
COARSE_COSINE: Final = 0.95
#: Required SQNR of an output without labels, and of each of its parts, about the mean of the samples, in dB.
#: This and the next limits follow from measured models: benchmarks/output_variation.py.
VARIATION: Final = 7.0
#: The same for one number per sample; the second one for 4 bits and fewer.
FEW_NUMBERS: Final = 17.0
COARSE_FEW_NUMBERS: Final = 14.0
#: The same for a part of a few numbers per sample, such as the coordinates of points beside a score.
PART_NUMBERS: Final = 17.5
#: The same for each channel of probabilities at many places, such as a class of a detector's candidates.
CHANNEL: Final = 3.0
#: Required mean SQNR of what a network adds to its input, in dB, if its output is mostly its input.
DETAIL: Final = 5.0
#: Required intersection over union of class numbers and other identifiers, without the most frequent one.
IOU: Final = 0.84
#: Required share of the characters of a text that CTC gives, 1 - edits / characters.
CHARACTERS: Final = 0.955
#: Required mean cosine of vectors of length 1, which are compared by their angles.
UNIT_COSINE: Final = 0.975
#: Required share of the peaks of heat maps that stay in their place.
PEAKS: Final = 0.75
#: Required PSNR of maps with values for the positions of a picture, in dB of the range of the float model's values.
MAPS: Final = 33.0
#: Required SQNR of what a forecast says beyond the last known value, in dB.
BEYOND: Final = 27.0
#: Required rank correlation of an output of one number, if the number itself is not as close as `FEW_NUMBERS`.
RANKS: Final = 0.995

#: Limits in seconds: for one native step, for the search after a failed accuracy, for timing one variant.
TIMEOUT: Final = 300.0
SUGGEST_TIME: Final = 120.0
LATENCY_TIME: Final = 15.0

#: How MNN runs to be timed.
THREADS: Final = 1
PRECISION: Final = "normal"
MEMORY_MODE: Final = "normal"
BATCH: Final = 1
