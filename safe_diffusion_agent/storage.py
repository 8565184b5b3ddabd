"""Files that are whole or absent, can be opened without running code, and say what made them.

A checkpoint is one safetensors file. Its tensors are named `group/name`; its metadata holds one
JSON document that says what made it, and a digest of both. No pickle.
"""

import csv
import hashlib
import importlib.metadata
import io
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save

from safe_diffusion_agent.errors import CheckpointError, UnknownNameError

FORMAT = "safe-diffusion-agent"
FORMAT_VERSION = 2
FILE_NAME = "agent.safetensors"
PRETRAINED = Path(__file__).parent / "pretrained"
RECORDED_PACKAGES = (
    "safe-diffusion-agent",
    "torch",
    "gymnasium",
    "minari",
    "stable-baselines3",
    "numpy",
)


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


def csv_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns rows as CSV; columns are in the order in which the rows first name them."""
    text = io.StringIO()
    names = dict.fromkeys(name for row in rows for name in row)
    writer = csv.DictWriter(text, list(names), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def read_json(path: Path) -> Any:
    """Reads a JSON file that a command of ours wrote.

    Raises:
        ValueError: It is damaged.
    """
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged ({error}). Delete it, and run the command that makes it again."
        ) from error


def new_folder(path: str | os.PathLike[str]) -> Path:
    """Returns a folder, which is made if it is not there: before work whose results it gets.

    Raises:
        ValueError: There is a file of that name, or of one of the folders above it.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ValueError(
            f"{folder} should be a folder, and there is a file. Choose another."
        ) from error
    return folder


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
        "format_version": FORMAT_VERSION,
        "kind": kind,
        "digest": _digest(on_cpu, document),
        "document": document,
    }
    content = save(on_cpu, metadata={FORMAT: json.dumps(header)})
    write_atomically(path, lambda file: file.write(content))


def load_checkpoint(path: Path, kind: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Reads a checkpoint.

    Returns:
        Its tensors, on the CPU, and its document.

    Raises:
        CheckpointError: There is no such file, or it is damaged, foreign, of another kind or of
            another version of the format.
    """
    with _reading(path):
        content = path.read_bytes()  # at once: a newer file may take its place meanwhile
        tensors = load(content)
        header_end = 8 + int.from_bytes(content[:8], "little")
        header = _header(path, json.loads(content[8:header_end]).get("__metadata__", {}))
    if header["kind"] != kind:
        raise CheckpointError(
            f"{path} should be a checkpoint of {kind!r}, but is {header['kind']!r}."
        )
    if header["digest"] != _digest(tensors, header["document"]):
        raise _damaged(path, "its content does not match its digest")
    return tensors, header["document"]


def checkpoint_kind(path: Path) -> str:
    """Returns what a checkpoint is of; see `save_checkpoint`.

    Raises:
        CheckpointError: There is no such file, or it is damaged or foreign.
    """
    with _reading(path), safe_open(path, framework="pt") as file:  # reads no tensor
        kind: str = _header(path, file.metadata() or {})["kind"]
    return kind


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Says what is wrong with a file that is not there or cannot be read."""
    if not path.is_file():
        raise CheckpointError(f"There is no checkpoint at {path}.")
    try:
        yield
    except (SafetensorError, json.JSONDecodeError) as error:
        raise _damaged(path, f"{error}") from error


def _header(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """Returns the header in a file's metadata, if it is one of ours."""
    if FORMAT not in metadata:
        raise CheckpointError(f"{path} is not a checkpoint of {FORMAT}.")
    header: dict[str, Any] = json.loads(metadata[FORMAT])
    version = header.get("format_version")
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format version {version}; this version of the package reads "
            f"{FORMAT_VERSION}. Install the version that wrote it, or train again."
        )
    if not header.keys() >= {"kind", "digest", "document"}:
        raise _damaged(path, "its header is incomplete")
    return header


def _damaged(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(
        f"{path} is damaged or not a safetensors file ({reason}). Restore it or train again."
    )


def _digest(tensors: Mapping[str, torch.Tensor], document: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(document).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def agent_file(path: str | os.PathLike[str]) -> Path:
    """Returns the file of an agent, from its folder or its name; it need not exist.

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


def origin(seed: int, losses: Mapping[str, float], behavior_policy: Any) -> dict[str, Any]:
    """Returns what an agent keeps about its training, as JSON values.

    Args:
        seed: Of the training.
        losses: The last ones logged.
        behavior_policy: What the dataset says of who acted in it, if anything.
    """
    return {
        "seed": seed,
        "losses": dict(losses),
        "behavior_policy": behavior_policy,
        "provenance": provenance(),
    }


def provenance() -> dict[str, Any]:
    """Versions, commit, hardware and command of this process, as JSON values."""
    return {
        "command": shown_command(),
        "commit": _commit(),
        "versions": {"python": platform.python_version()}
        | {name: _version(name) for name in RECORDED_PACKAGES},
        "hardware": f"{_processor()}, {os.cpu_count()} cores, {platform.system()}",
    }


def shown_command() -> str:
    """Returns the command line of this process, without the folder that the program lies in."""
    program = Path(sys.argv[0]).name
    return shlex.join(["trebi" if program == "__main__.py" else program, *sys.argv[1:]])


def _version(package: str) -> str | None:
    """The installed version; None for a checkout that is only on the path."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def _commit() -> str | None:
    """Returns commit of the source this package runs from; None without its repository, or git.

    It is marked as dirty if Python files differ from it; results and pages may.
    """
    folder = Path(__file__).parent.parent
    if not (folder / ".git").exists() or shutil.which("git") is None:
        return None

    def git(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True)

    commit = git("describe", "--always").stdout.strip()
    if not commit:
        return None
    return commit + "-dirty" * (git("diff", "--quiet", "HEAD", "--", "*.py").returncode != 0)
