"""The files that are sent with a job and returned, with their SHA-256. Both ends of a transfer use this."""

from __future__ import annotations

from pathlib import Path

from .failures import Refused


def sha256(path: Path) -> str:
    """The hash of a file."""
    import hashlib  # Loads OpenSSL, which local jobs do not need.

    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def check_arrived(files: dict[str, str]) -> None:
    """Raise `Refused` if a file in the working directory is missing or differs from the sent one."""
    for name, expected in files.items():
        if not Path(name).is_file():
            raise Refused(f"{name} did not arrive")
        if sha256(Path(name)) != expected:
            raise Refused(f"{name} arrived damaged: its SHA-256 differs from that of the sent file")


def written_files(sent: dict[str, str]) -> dict[str, str]:
    """The arrays that a job has written, with their SHA-256."""
    paths = [path for pattern in ("*.npy", "*.npz") for path in Path().glob(pattern) if path.name not in sent]
    return {path.name: sha256(path) for path in paths}
