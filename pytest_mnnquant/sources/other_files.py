"""Files that hold data in forms that are not read: what to do with each."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pytest_mnnquant.sources.images import SUFFIXES as IMAGES
from pytest_mnnquant.sources.sounds import SOUND_SUFFIXES

#: Python code that reads files of these kinds. None of them is read by the gate: pickles run code.
_READERS: Final = {
    (".pt", ".pth", ".ckpt", ".bin"): "torch.load({path!r})",
    (".pkl", ".pickle", ".p"): "pickle.load(open({path!r}, 'rb'))",
    (".joblib",): "joblib.load({path!r})",
    (".safetensors",): "safetensors.numpy.load_file({path!r})",
    (".csv", ".tsv", ".txt"): "pandas.read_csv({path!r}).to_numpy()",
    (".parquet", ".feather", ".arrow"): "pandas.read_parquet({path!r}).to_numpy()",
    (".h5", ".hdf5"): "h5py.File({path!r})['NAME'][:]",
    (".mat",): "scipy.io.loadmat({path!r})['NAME']",
}


def fix_for(path: Path, input_names: tuple[str, ...]) -> str:
    """How to give the data of a file that holds no arrays: the code that writes a .npz, or the right specification."""
    suffix = path.suffix.lower()
    if suffix == ".py":
        return f"name the callable that returns the data: {path.name}:calibration"
    if suffix in (*IMAGES, *SOUND_SUFFIXES):
        return f"give the folder with the samples, one file each: {path.parent.name or '.'}"
    if suffix in (".zip", ".tar", ".gz", ".tgz", ".7z"):
        return "unpack it, and give the folder with the samples"
    reader = next((code for suffixes, code in _READERS.items() if suffix in suffixes), None)
    target = f"{path.stem}.npz"
    if reader is None:
        named = ", ".join(f"{name}=ARRAY" for name in input_names)
        return f"write it again: numpy.savez({target!r}, {named})"
    code = reader.format(path=path.name)
    if len(input_names) == 1:
        return f"write its arrays: numpy.savez({target!r}, {input_names[0]}={code})"
    named = ", ".join(f"{name}=data[{name!r}]" for name in input_names)
    return f"write its arrays: data = {code}; numpy.savez({target!r}, {named})"
