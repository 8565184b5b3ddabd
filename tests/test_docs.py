"""README and the site: their code runs, what they name exists, and the site builds by itself."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import pytest
import typer.main

from safe_diffusion_agent.cli import app
from safe_envs import TASKS

ROOT = Path(__file__).parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text() for path in PAGES}
BLOCK = re.compile(r'^```python(?: title="(.+?)")?\n(.*?)^```', re.MULTILINE | re.DOTALL)
REMOTE = re.compile(r"""<(?:script|link|img|iframe)[^>]+(?:src|href)=["']?(?:https?:)?//[^>]+>""")

# Shown on lines of their own, or in the text.
COMMANDS = sorted(
    {
        line.strip()
        for text in TEXTS.values()
        for line in re.findall(r"^(trebi [a-z-]+.*?)(?:  +#.*)?$|`(trebi [a-z][^`]*)`", text, re.M)
        for line in line
        if line
    }
)


@pytest.fixture
def a_place_of_its_own(tmp_path, monkeypatch):
    """A folder for the files and datasets of a page; what it registers is forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    tables = {id(table): (table, dict(table)) for table in (TASKS, gym.registry)}
    modules = set(sys.modules)
    yield tmp_path
    for table, before in tables.values():
        table.clear()
        table.update(before)
    for name in set(sys.modules) - modules:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.mark.parametrize("name", [name for name, text in TEXTS.items() if BLOCK.search(text)])
def test_python_blocks_run_one_after_the_other(name, a_place_of_its_own):
    """A block with a title is a file, which later ones can import."""
    namespace: dict = {}
    for title, block in BLOCK.findall(TEXTS[name]):
        if title:
            (a_place_of_its_own / title).write_text(block)
        else:
            exec(compile(block, name, "exec"), namespace)


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_and_options_that_they_show_exist(line):
    _, command, *words = line.split()
    parameters = typer.main.get_command(app).commands[command].params
    known = {"--help", *(option for parameter in parameters for option in parameter.opts)}
    assert {word for word in words if word.startswith("--")} <= known


@pytest.mark.parametrize("name", TEXTS)
def test_links_and_make_targets_exist(name):
    for link in re.findall(r"\]\(([^)\s#]+)", TEXTS[name]):
        if not link.startswith("http"):
            assert ((ROOT / name).parent / link).exists(), link
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:^|`)make ([a-z]+)", TEXTS[name], re.MULTILINE):
        assert f"\n{target}:" in makefile, target


def test_the_site_is_built_without_warnings_and_loads_nothing_from_elsewhere(tmp_path):
    pytest.importorskip("mkdocs", reason="comes with the extra docs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    pages = {path: path.read_text() for path in tmp_path.rglob("*.html")}
    assert len(pages) > len(list((ROOT / "docs").rglob("*.md")))
    for path, html in pages.items():
        assert not REMOTE.search(html), path
        for comment in ("<!-- settings", "<!-- differences", "<!-- commands", "arithmatex"):
            assert comment not in html, path
    for path in tmp_path.rglob("*.css"):
        assert not re.search(r"""(?:url\(|@import )["']?(?:https?:)?//""", path.read_text()), path


def test_modules_that_the_changelog_names_exist():
    moved = re.findall(r"^\| `[\w.]+` \| `([\w.]+)` \|$", TEXTS["CHANGELOG.md"], re.MULTILINE)
    assert len(moved) > 20
    for name in moved:
        importlib.import_module(f"safe_diffusion_agent.{name}")
