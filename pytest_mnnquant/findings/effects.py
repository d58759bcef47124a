"""The consequences of a broken rule. Each rule names one of these."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final


class Stage(enum.IntEnum):
    """Where a rule stands between the source and the outputs. Causes come before effects."""

    SOURCE = enum.auto()  # The source and the data can be used.
    MODEL = enum.auto()  # The file is a model of this network.
    GRAPH = enum.auto()  # Its operators and files are right.
    PARAMS = enum.auto()  # The params file fits the model.
    BUFFERS = enum.auto()  # Weights can be read.
    RUN = enum.auto()  # MNN does its work.
    PRECISION = enum.auto()  # Layers have the requested number of bits.
    WEIGHTS = enum.auto()  # Weights are the source's.
    APPLIED = enum.auto()  # The scales of the params file are in the model.
    STORAGE = enum.auto()  # The other values of a layer are right.
    CALIBRATION = enum.auto()
    EXECUTION = enum.auto()
    OUTPUTS = enum.auto()
    NUMBERS = enum.auto()  # Sizes, times, the baseline.


@dataclass(frozen=True, slots=True)
class Effects:
    """The codes of the rules that a broken rule breaks too, and its stage.

    Rules in `explains` follow from it in the same layer, or if one of the two findings is about the whole model; rules
    in `explains_in_any_layer` follow in all layers. All of them have a later stage. `restates` are rules of a later
    stage that describe the same mechanism more completely: if such an error has the same cause, this one follows from
    it.
    """

    stage: Stage
    explains: tuple[str, ...] = ()
    explains_in_any_layer: tuple[str, ...] = ()
    restates: tuple[str, ...] = ()


_STORED: Final = ("MNQ401", "MNQ402", "MNQ405")
_VALUES: Final = ("MNQ411", "MNQ412", "MNQ413", "MNQ414", "MNQ415", "MNQ416", "MNQ417", "MNQ418")
_WEIGHTS: Final = ("MNQ410", *_VALUES)
_RANGES: Final = ("MNQ501", "MNQ504", "MNQ505", "MNQ512", "MNQ520", "MNQ522", "MNQ530", "MNQ540", "MNQ541")
_RUN: Final = ("MNQ601", "MNQ602", "MNQ603", "MNQ620", "MNQ630", "MNQ640", "MNQ641")
_BROKEN: Final = ("MNQ703", "MNQ704", "MNQ705", "MNQ706", "MNQ707")
_TASK: Final = ("MNQ701", "MNQ702", "MNQ712", "MNQ708", "MNQ721", "MNQ722", "MNQ723")
_OUTPUTS: Final = (*_TASK, *_BROKEN, "MNQ750", "MNQ751")
_SIZE: Final = ("MNQ801", "MNQ802")
_ACCEPTED: Final = ("MNQ913", "MNQ914")
#: All rules: without a model of this network nothing can be judged.
EVERYTHING: Final = ("*",)

NO_SOURCE: Final = Effects(Stage.SOURCE, (), EVERYTHING)
NO_MODEL: Final = Effects(Stage.MODEL, (), EVERYTHING)
OTHER_GRAPH: Final = Effects(Stage.GRAPH, ("MNQ001", "MNQ201", "MNQ801", *_RUN), (*_RANGES, *_OUTPUTS))
NO_WEIGHTS: Final = Effects(
    Stage.GRAPH,
    (),
    ("MNQ001", "MNQ201", "MNQ305", "MNQ403", *_STORED, *_WEIGHTS, *_RANGES, *_RUN, *_OUTPUTS, *_SIZE),
)
NO_PARAMS: Final = Effects(Stage.PARAMS, ("MNQ001", "MNQ305", "MNQ403", *_STORED, *_RANGES, *_RUN, *_SIZE, *_ACCEPTED))
BAD_PARAMS: Final = Effects(Stage.PARAMS, (*NO_PARAMS.explains, *_WEIGHTS, *_OUTPUTS))
NO_ENTRY: Final = Effects(Stage.PARAMS, ("MNQ401", "MNQ402", *_RUN, *_SIZE, *_ACCEPTED))
BAD_BUFFER: Final = Effects(
    Stage.BUFFERS, ("MNQ001", "MNQ201", "MNQ305", *_STORED, *_WEIGHTS, *_RANGES, *_RUN, *_OUTPUTS, *_SIZE)
)
DID_NOT_RUN: Final = Effects(Stage.RUN, (), ("MNQ001", *_RUN, *_OUTPUTS))
OTHER_PRECISION: Final = Effects(Stage.PRECISION, ("MNQ305", *_WEIGHTS, *_RUN, *_OUTPUTS, *_SIZE, *_ACCEPTED))
OTHER_WEIGHTS: Final = Effects(Stage.WEIGHTS, ("MNQ305", *_VALUES, *_RANGES, *_RUN, *_OUTPUTS, *_SIZE))
NOT_APPLIED: Final = Effects(
    Stage.APPLIED, ("MNQ401", "MNQ412", "MNQ416", *_RUN, *_SIZE, *_ACCEPTED), (*_RANGES, *_OUTPUTS)
)
IS_FLOAT: Final = Effects(Stage.STORAGE, (*_RANGES, *_RUN, *_SIZE, *_ACCEPTED))
IS_NOT_FLOAT: Final = Effects(Stage.STORAGE, _SIZE)
OTHER_VALUES: Final = Effects(Stage.STORAGE, (*_RANGES, *_RUN, *_OUTPUTS, *_SIZE))
# A wrong range in one layer spoils all layers after it, and any of them may lose most.
OTHER_SCALES: Final = Effects(Stage.STORAGE, (*_RUN, *_SIZE), (*_RANGES, *_OUTPUTS))
CHANCE_SCALES: Final = Effects(Stage.STORAGE, _SIZE, (*_RANGES, *_RUN, *_OUTPUTS))
BAD_RANGES: Final = Effects(Stage.CALIBRATION, _RUN, _OUTPUTS)
RAN_OTHERWISE: Final = Effects(Stage.EXECUTION, (), _OUTPUTS)
APIS_DIFFER: Final = Effects(Stage.EXECUTION, (), _OUTPUTS, restates=("MNQ701", "MNQ702", "MNQ712", *_BROKEN))
BAD_OUTPUT: Final = Effects(Stage.OUTPUTS)
# Of language models. An option that makes the exporter store wrong weights is seen in each file that it makes.
BAD_OPTION: Final = Effects(
    Stage.MODEL,
    ("MNQ310", "MNQ315", "MNQ403", *_STORED, *_WEIGHTS, "MNQ803", "MNQ811", "MNQ812", "MNQ815", *_SIZE),
    ("MNQ001", "MNQ201", "MNQ813", *_RUN, *_OUTPUTS),
)
BAD_FILE: Final = Effects(
    Stage.GRAPH, ("MNQ402", "MNQ410", "MNQ412"), ("MNQ001", "MNQ126", "MNQ127", "MNQ201", *_RUN, *_OUTPUTS)
)
MISREAD: Final = Effects(Stage.GRAPH, (), ("MNQ640", "MNQ641", *_OUTPUTS))
OTHER_TOKENIZER: Final = Effects(Stage.GRAPH, (), ("MNQ126", "MNQ127"))
#: Nothing follows from it. This holds for every warning and gap: only errors have consequences.
ALONE: Final = Effects(Stage.NUMBERS)
