r"""Commands of fix lines: complete, with paths from the working directory, quoted so that they run as pasted.

How to write a fix with a command: a sentence that ends in a colon, a line break, the command alone on its line. Reports
wrap it with backslashes, so it can still be pasted. Checks get a variant's `ConvertCommand` as the argument
`convert_command` (`evidence.variant_files`).

    fix = f"convert again with the params file:\n{convert_command.with_params(path)}"     # MNN's converter, verified
    fix = f"look at the layers:\n{shell_command('pytest-mnnquant', 'inspect', model.path)}"
    fix = f"to keep it float on purpose, add {skip_option(layer.name)}"                   # an option of pytest
"""

from __future__ import annotations

import dataclasses
import glob
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Final

#: Runs MNN's converter, and keeps its model only if it is what the flags request.
CONVERT: Final = ("pytest-mnnquant", "convert")
_MNN: Final = ("-f", "MNN")


def working_path(path: Path) -> str:
    """A path as the shell in the working directory needs it: relative if the file lies below it, else absolute."""
    absolute, folder = path.absolute(), Path.cwd()
    return str(absolute.relative_to(folder) if absolute.is_relative_to(folder) else absolute)


def shell_command(*words: str | Path) -> str:
    """A command line of these words, quoted for a POSIX shell; a `Path` becomes a `working_path`."""
    return shlex.join(working_path(word) if isinstance(word, Path) else word for word in words)


def skip_option(layer: str) -> str:
    """The option of pytest and of `pytest-mnnquant convert` that keeps the layer of this name float, and no other."""
    return shell_command(f"--mnn-skip-layer={glob.escape(layer)}")


@dataclass(frozen=True, slots=True)
class ConvertCommand:
    """What a command that makes a variant again has to name.

    `source` are the words that name the float model to `pytest-mnnquant convert`, such as `-f MNN --modelFile PATH`,
    with the flags that the conversion keeps. `output` is where the new model goes, `params` the params file of the
    variant (None: none is known that the converter could use), `skip` the globs of layers that stay float.
    `calibration` is the command that calibrates and makes the variant without a params file; empty: the calibration
    data are unknown. `test_options` are the options of pytest that test the new model, if they are not those of this
    run.
    """

    source: tuple[str | Path, ...]
    output: Path
    params: Path | None = None
    skip: tuple[str, ...] = ()
    calibration: str = ""
    test_options: tuple[str, ...] = ()

    def with_flags(self, *flags: str | Path) -> str:
        """The command that converts with these flags of MNN's converter, such as `--weightQuantBits 8`."""
        skips = (f"--mnn-skip-layer={pattern}" for pattern in self.skip)
        return shell_command(*CONVERT, *self.source, "--MNNModel", self.output, *flags, *skips)

    def with_params(self, params: Path, *flags: str | Path) -> str:
        """The command that applies a params file, and these flags."""
        return self.with_flags("--compressionParamsFile", params, *flags)

    def through_float(self) -> tuple[str, ConvertCommand]:
        """What has to run first so that the source is a `.mnn` (empty if it is one), and the command from there."""
        if tuple(self.source[:2]) == _MNN:
            return "", self
        middle = self.output.with_suffix(".float.mnn")
        first = shell_command(*CONVERT, *self.source, "--MNNModel", middle)
        return f"{first} && ", dataclasses.replace(self, source=mnn_source(middle))


def mnn_source(path: Path) -> tuple[str | Path, ...]:
    """The words that name a `.mnn` to the converter, for `ConvertCommand.source`."""
    return (*_MNN, "--modelFile", path)
