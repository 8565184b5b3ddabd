"""Where a file came from: versions, hardware, command. Stored with every result and checkpoint."""

import importlib.metadata
import os
import platform
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

RECORDED_PACKAGES = (
    "safe-diffusion-agent",
    "torch",
    "gymnasium",
    "minari",
    "stable-baselines3",
    "numpy",
)


def provenance() -> dict[str, Any]:
    """Versions, commit, hardware and command of this process, as JSON values."""
    return {
        "command": shown_command(),
        "commit": _commit(),
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in RECORDED_PACKAGES},
        "hardware": f"{_processor()}, {os.cpu_count()} cores, {platform.system()}",
    }


def shown_command() -> str:
    """The command line of this process, without the folder that the program lies in."""
    program = Path(sys.argv[0]).name
    return shlex.join(["trebi" if program == "__main__.py" else program, *sys.argv[1:]])


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def _commit() -> str | None:
    """Commit of the source this package runs from; None without its repository, or git.

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
