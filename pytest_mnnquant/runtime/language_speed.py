"""Times two exports of a language model in turn, in a child process."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pytest_mnnquant.measurements.language_model import PairedSpeeds
from pytest_mnnquant.measurements.timing import PairedTimes, TimingSettings
from pytest_mnnquant.runtime.background import wait_for_idle
from pytest_mnnquant.runtime.host import host_facts
from pytest_mnnquant.runtime.jobs import FailureKind, Job, NativeFailure
from pytest_mnnquant.runtime.language_model import CONFIG, LanguageOptions


def compare_speeds(
    exports: tuple[Path, Path],
    prompt: Sequence[int],
    steps: int,
    settings: TimingSettings,
    folder: Path,
    options: LanguageOptions,
) -> PairedSpeeds:
    """Times of a reference and a candidate, each in the memory mode of its configuration. Raises `NativeFailure`.

    In a round each reads the prompt, and then `steps` tokens one by one.
    """
    arguments = {
        "configs": [str(export.resolve() / CONFIG) for export in exports],
        "prompt": [int(token) for token in prompt],
        "steps": steps,
        **dataclasses.asdict(settings),
        "precision": "",
    }
    what = f"timing {exports[1].name} and {exports[0].name}"
    wait_for_idle()
    result = options.send(Job("language_speeds", what, options.timeout + settings.budget, arguments), folder)
    host = result.machine.host if result.machine else host_facts(folder / "log.txt")
    try:
        pairs = [[np.array(times, np.float64) for times in result.values[key]] for key in ("prompt", "token")]
        times = [PairedTimes(first, second, settings=settings, host=host) for first, second in pairs]
    except (KeyError, TypeError, ValueError):
        raise NativeFailure(FailureKind.BAD_ANSWER, f"{what}: unexpected reply") from None
    return PairedSpeeds(*times)
