"""A machine that ran a model, and the report of a target about itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pytest_mnnquant.findings.run_metrics import HostFacts

# The first MNN whose op trace shows int8 operators.
_FIRST_WITH_INT8_TRACE: Final = (3, 2, 4)


@dataclass(frozen=True, slots=True)
class Host:
    """A machine. `features` are instruction sets: avx2, vnni, dotprod, i8mm, sve2; `used` those of int8 that MNN uses.

    MNN's wheels for x86 are built without AVX512 and VNNI: `used` is empty on x86, whatever the processor supports.
    """

    name: str
    machine: str
    processor: str
    features: tuple[str, ...]
    used: tuple[str, ...]

    @property
    def is_arm(self) -> bool:
        """Whether this is a 64-bit ARM processor."""
        return self.machine in ("aarch64", "arm64")

    @property
    def is_fast_in_int8(self) -> bool:
        """Whether MNN's int8 kernels use int8 instructions on this machine."""
        return bool(self.used)

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys that a limit may be given for, the most specific first."""
        return (self.name, *self.used, *self.features, self.machine)

    @property
    def facts(self) -> HostFacts:
        """The machine in records: without its name, which is private."""
        return HostFacts(self.machine, self.processor, self.features, self.used)


@dataclass(frozen=True)
class TargetMachine:
    """The report of a target about itself, sent with each result."""

    host: Host
    mnn: str
    numpy: str
    python: str

    @property
    def traces_int8(self) -> bool:
        """Whether this MNN's op trace shows which operators ran in int8."""
        numbers = self.mnn.split(".")
        return all(part.isdigit() for part in numbers) and tuple(map(int, numbers)) >= _FIRST_WITH_INT8_TRACE
