"""Files with a PyTorch model: graphs are read, and nothing is unpickled as Python code."""

from __future__ import annotations

import io
import pickle
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from pytest_mnnquant.sources.pytorch import suppress_output
from pytest_mnnquant.sources.spec import SourceError, parse_spec
from pytest_mnnquant.sources.torch_file import load_torch_file
from pytest_mnnquant.sources.torch_module import private_copy

X = torch.ones(2, 3)


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU()).eval()


class Runs:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return open, (str(self.path), "w")


def exported(path: Path) -> Path:
    with suppress_output():
        torch.export.save(torch.export.export(net(), (X,)), str(path))
    return path


def with_more(path: Path, name: str, content: bytes) -> None:
    """Add an entry, in the folder of the others."""
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"{archive.namelist()[0].partition('/')[0]}/{name}", content)


def with_entry(path: Path, part: str, content: bytes) -> None:
    """Replace the entry whose name ends with `part`."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    (name,) = (name for name in entries if name.endswith(part))
    with zipfile.ZipFile(path, "w") as archive:
        for key, value in (entries | {name: content}).items():
            archive.writestr(key, value)


def test_torchscript_and_exported_programs_compute_the_same(tmp_path: Path) -> None:
    scripted, traced = tmp_path / "scripted.pt", tmp_path / "traced.torchscript"
    with suppress_output():
        torch.jit.script(net()).save(str(scripted))  # type: ignore[no-untyped-call]
        torch.jit.trace(net(), X).save(str(traced))  # type: ignore[no-untyped-call]
    for path in (scripted, traced, exported(tmp_path / "net.pt2")):
        assert parse_spec(path.name, tmp_path).is_torch_file
        with suppress_output():
            torch.testing.assert_close(private_copy(load_torch_file(path), "m")(X), net()(X))


@pytest.mark.parametrize("name", ["net.pt", "net.pt2", "net.pth"])
@pytest.mark.parametrize("kind", ["weights", "module", "old", "noise", "empty"])
def test_other_files_are_refused_with_a_fix(name: str, kind: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if kind in ("weights", "module", "old"):
        value = net() if kind == "module" else net().state_dict()
        torch.save(value, path, _use_new_zipfile_serialization=kind != "old")
    else:
        path.write_bytes(b"noise" * 100 if kind == "noise" else b"")
    with pytest.raises(SourceError) as raised:
        load_torch_file(path)
    assert raised.value.fix


@pytest.mark.parametrize("by", ["torch.save", "pickle"])
def test_a_program_that_would_run_code_is_not_read(by: str, tmp_path: Path) -> None:
    path, harm, buffer = exported(tmp_path / "net.pt2"), tmp_path / "harm", io.BytesIO()
    if by == "pickle":
        buffer.write(pickle.dumps(Runs(harm)))
    else:
        torch.save(((Runs(harm),), {}), buffer)
    with_entry(path, "sample_inputs/model.pt", buffer.getvalue())
    with pytest.raises(SourceError):
        load_torch_file(path)
    assert not harm.exists()


def compiled(folder: Path, harm: Path) -> bytes:
    """A library that writes a file when it is loaded."""
    source, library = folder / "harm.c", folder / "harm.so"
    source.write_text(
        "#include <stdio.h>\n__attribute__((constructor)) static void run(void) "
        f'{{ FILE *file = fopen("{harm}", "w"); if (file) fclose(file); }}\n'
    )
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source], check=True)
    return library.read_bytes()


@pytest.mark.skipif(shutil.which("gcc") is None, reason="compiles a library")
@pytest.mark.parametrize("folder", ["data/aotinductor", "data/AOTInductor"])
def test_compiled_code_in_a_program_is_not_loaded(folder: str, tmp_path: Path) -> None:
    path, harm = exported(tmp_path / "net.pt2"), tmp_path / "harm"
    with_more(path, f"{folder}/model/w.so", compiled(tmp_path, harm))
    for name in ("w_metadata.json", "w.wrapper_metadata.json"):
        with_more(path, f"{folder}/model/{name}", b'{"AOTI_DEVICE_KEY": "cpu"}')
    with pytest.raises(SourceError) as raised:
        load_torch_file(path)
    assert "\n" not in str(raised.value)
    assert not harm.exists()


@pytest.mark.parametrize(
    "name",
    [
        "data/constants/CUSTOM_OBJ_0",  # PyTorch finds it as custom_obj_0.
        "data/sample_inputs/model.PT",
        "data/weights/WEIGHT_0",
        "data/executorch/model.pte",
        "data/mtia/model",
        "models/model.so",
        "unknown",
    ],
)
def test_entries_that_no_export_has_are_refused(name: str, tmp_path: Path) -> None:
    path = exported(tmp_path / "net.pt2")
    with_more(path, name, b"{}")
    with pytest.raises(SourceError):
        load_torch_file(path)


def test_a_program_with_constants_and_extra_files_is_read(tmp_path: Path) -> None:
    network = net()
    network.register_buffer("moved", torch.ones(4), persistent=False)
    path = tmp_path / "net.pt2"
    with suppress_output():
        program = torch.export.export(network, (X,))
        torch.export.save(program, str(path), extra_files={"labels/classes.txt": "cat dog"})
        torch.testing.assert_close(private_copy(load_torch_file(path), "m")(X), net()(X))


def test_an_archive_whose_readers_see_other_entries_is_refused(tmp_path: Path) -> None:
    path = exported(tmp_path / "net.pt2")
    other = io.BytesIO()
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("version", "8.1")
    # zipfile reads the archive at the end; PyTorch's reader counts offsets from the start of the file.
    path.write_bytes(path.read_bytes() + other.getvalue())
    with pytest.raises(SourceError):
        load_torch_file(path)
