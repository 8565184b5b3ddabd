"""The README is executed, and its tables are those of the code and the results."""

import re
import subprocess
import sys
from pathlib import Path

from typer.testing import CliRunner

from safe_diffusion_agent.cli import app

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()


def test_python_blocks_run_one_after_the_other(monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert len(blocks) >= 3
    namespace: dict = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), namespace)
    assert namespace["plan"].actions.shape[0] == 1
    namespace["env"].reset(seed=0)
    *_, info = namespace["env"].step(namespace["env"].action_space.sample())
    assert 0 <= info["cost"] <= 2


def test_tables_are_up_to_date():
    command = [sys.executable, ROOT / "benchmarks" / "readme.py", "--check"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_make_targets_and_files_that_it_names_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:^|`)make (\w+)", TEXT, re.MULTILINE):
        assert f"\n{target}:" in makefile, target
    for link in re.findall(r"\]\(([^)#]+)\)", TEXT):
        if not link.startswith("http"):
            assert (ROOT / link).exists(), link


def test_commands_and_options_that_it_shows_exist():
    shown: dict[str, set[str]] = {}
    for line in re.findall(r"^trebi (.+?)(?:\s+#.*)?$", TEXT, re.MULTILINE):
        command, *words = line.split()
        shown.setdefault(command, set()).update(word for word in words if word.startswith("--"))
    for command, options in shown.items():
        result = CliRunner().invoke(app, [command, "--help"], terminal_width=100)
        assert result.exit_code == 0, command
        assert not [option for option in options if option not in result.output], command
