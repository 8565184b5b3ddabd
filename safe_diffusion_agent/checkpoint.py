"""Files that are whole or absent, and can be opened without running code.

A checkpoint is one safetensors file. Its tensors are named `group/name`; its metadata holds one
JSON document that says what made it, and a digest of the tensors. No pickle.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from safe_diffusion_agent.errors import CheckpointError, UnknownNameError

FORMAT = "safe-diffusion-agent"
FORMAT_VERSION = 1
FILE_NAME = "agent.safetensors"
PRETRAINED = Path(__file__).parent / "pretrained"


def write_atomically(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Writes a file beside `path` and renames it: a reader sees the old file or the whole new one.

    Args:
        path: The file to write.
        write: Called with the open binary file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically."""
    write_atomically(path, lambda file: file.write(text.encode()))


def save_checkpoint(
    path: Path, kind: str, tensors: Mapping[str, torch.Tensor], document: Mapping[str, Any]
) -> None:
    """Writes a checkpoint atomically.

    Args:
        path: The file to write.
        kind: What the checkpoint is of; `load_checkpoint` asks for it again.
        tensors: Named tensors on any device.
        document: JSON values: config, versions, dataset, seed.
    """
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    header = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "kind": kind,
        "digest": _digest(on_cpu),
        "document": document,
    }
    content = save(on_cpu, metadata={FORMAT: json.dumps(header)})
    write_atomically(path, lambda file: file.write(content))


def load_checkpoint(path: Path, kind: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Reads a checkpoint.

    Returns:
        Its tensors, on the CPU, and its document.

    Raises:
        CheckpointError: There is no such file, or it is damaged, foreign, of another kind or of a
            later version.
    """
    tensors, header = _read(path)
    if header["format_version"] > FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format version {header['format_version']}; this version of the package "
            f"reads up to {FORMAT_VERSION}. Install a newer one."
        )
    if header["kind"] != kind:
        raise CheckpointError(
            f"{path} should be a checkpoint of {kind!r}, but is {header['kind']!r}."
        )
    if header["digest"] != _digest(tensors):
        raise CheckpointError(
            f"{path} is damaged: its tensors do not match their digest. Restore it or train again."
        )
    return tensors, header["document"]


def checkpoint_kind(path: Path) -> str:
    """What a checkpoint is of; see `save_checkpoint`.

    Raises:
        CheckpointError: There is no such file, or it is damaged or foreign.
    """
    kind: str = _read(path)[1]["kind"]
    return kind


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors and header of one file, opened once: a newer one may take its place meanwhile."""
    try:
        content = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        raise CheckpointError(f"There is no checkpoint at {path}.") from None
    try:
        tensors = load(content)
        end = 8 + int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8:end]).get("__metadata__", {})
        if FORMAT not in metadata:
            raise CheckpointError(f"{path} is not a checkpoint of {FORMAT}.")
        return tensors, json.loads(metadata[FORMAT])
    except (SafetensorError, json.JSONDecodeError) as error:
        raise CheckpointError(
            f"{path} is damaged or not a safetensors file ({error}). Restore it or train again."
        ) from error


def _digest(tensors: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def agent_file(path: str | os.PathLike[str]) -> Path:
    """The file of an agent, from its folder or its name; it need not exist.

    Raises:
        UnknownNameError: There is neither such a folder nor such an agent.
    """
    folder = Path(path) if Path(path).is_dir() else PRETRAINED / str(path)
    if not folder.is_dir():
        raise UnknownNameError("folder or pretrained agent", str(path), pretrained_names())
    return folder / FILE_NAME


def pretrained_names() -> list[str]:
    """Names of the agents that come with the package."""
    return sorted(file.parent.name for file in PRETRAINED.glob(f"*/{FILE_NAME}"))
