"""Targets that are there to test with."""

from __future__ import annotations

import pytest

from pytest_mnnquant.targets.emulator import Emulator
from pytest_mnnquant.targets.target import Target


@pytest.fixture(scope="session")
def emulator() -> Emulator:
    """The emulator of this machine's user, with MNN of this machine's version."""
    found = Emulator()
    if found.missing:
        pytest.skip(f"the emulator is not set up, there is no {found.missing}: {found.add_command}")
    return found


@pytest.fixture(scope="session")
def arm(emulator: Emulator) -> Target:
    """MNN's own ARM kernels, with dot products."""
    return emulator.target("cortex-a76")
