"""What MkDocs does beyond mkdocs.yml.

Pages that live outside of docs/ (ARCHITECTURE.md, results/, ...) become pages of the site under the
paths that they have in the repository, and links are written as they are in the repository, so that
they work there, too. Comments such as `<!-- settings caps -->` become tables of what the code says.
Formulas become MathML, which browsers show without a script.
"""

import inspect
import posixpath
import re
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import griffe
import typer.main
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from safe_diffusion_agent.cli import app
from safe_diffusion_agent.data.manifest import BY_EXPERTS, MANIFEST
from safe_diffusion_agent.experiments.catalog import STUDIES
from safe_diffusion_agent.experiments.markdown import Column, cells, table
from safe_diffusion_agent.methods.table import METHODS

ROOT = Path(__file__).parent.parent
INCLUDED = ("ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "results/**/*.md",
            "results/**/*.png")  # fmt: skip
LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<path>[^)\s#:]+)(?P<anchor>#[^)\s]*)?\)")
FENCE = re.compile(r"(^```.*?^```\s*?$)", re.MULTILINE | re.DOTALL)
COMMENT = re.compile(
    r"^<!-- (settings|differences|task-settings|commands|manifest|studies)((?: [\w-]+)*) -->$",
    re.MULTILINE,
)


class ExampleSections(griffe.Extension):
    """Shows what stands under "Example:" in a docstring as code."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Renames the section to what Griffe calls it."""
        del kwargs
        if obj.docstring:
            obj.docstring.value = obj.docstring.value.replace("\nExample:\n", "\nExamples:\n")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds what lies outside of docs/."""
    for pattern in INCLUDED:
        for path in sorted(ROOT.glob(pattern)):
            name = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrites links, and fills in tables."""
    parts = FENCE.split(markdown)
    parts[::2] = (LINK.sub(lambda m: _link(m, page, config, files), part) for part in parts[::2])
    return COMMENT.sub(lambda m: TABLES[m[1]](*m[2].split()), "".join(parts))


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turns formulas into MathML."""
    del page, config, files
    pattern = r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>'
    return re.sub(pattern, _formula, html, flags=re.DOTALL)


def _link(match: re.Match[str], page: Page, config: MkDocsConfig, files: Files) -> str:
    """A link as the site needs it; to a file that is no page, the text alone or one to `repo_url`.

    The path in the text is relative to where the page is in the repository.
    """
    here = page.file.src_uri
    in_repository = here if files.get_file_from_path(here).generated_by else f"docs/{here}"
    folder = posixpath.dirname(in_repository)
    target = posixpath.normpath(posixpath.join(folder, match["path"]))
    uri = target.removeprefix("docs/")
    if files.get_file_from_path(uri):
        path = posixpath.relpath(uri, posixpath.dirname(here) or ".")
        return f"{match['image']}[{match['text']}]({path}{match['anchor'] or ''})"
    if not (ROOT / target).exists():
        return match[0]  # MkDocs complains
    return (
        f"[{match['text']}]({config.repo_url}/blob/main/{target})"
        if config.repo_url
        else match["text"]
    )


def _formula(match: re.Match[str]) -> str:
    display = "block" if match[2] == "[" else "inline"
    latex = match[3].strip().replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    return convert(latex, display=display)


def _settings(method: str) -> str:
    """Every setting of a method, its value in each preset, and what it is."""
    presets = METHODS[method].presets
    first, *others = presets
    parts: list[str] = []
    for title, intro, rows in _groups(method):
        lines = []
        for name, text, of in rows:
            values = {preset: of(config) for preset, config in presets.items()}
            groups: dict[str, list[str]] = {}
            for preset in others:
                if values[preset] != values[first]:
                    groups.setdefault(_shown(values[preset]), []).append(f"`{preset}`")
            differing = [f"{', '.join(names)}: {value}" for value, names in groups.items()]
            lines.append((f"`{name}`", _shown(values[first]), "; ".join(differing), text))
        columns = cells("setting", f"`{first}`", "other presets", "meaning")
        parts += [f"#### {title}", intro, table(columns, lines)]
    return "\n\n".join(part for part in parts if part)


def _differences(method: str, preset: str, other: str) -> str:
    """Settings in which a preset differs from another one."""
    presets = METHODS[method].presets
    rows = (row for _, _, rows in _groups(method) for row in rows)
    values = ((name, of(presets[other]), of(presets[preset])) for name, _, of in rows)
    lines = [(f"`{name}`", _shown(old), _shown(new)) for name, old, new in values if old != new]
    return table(cells("setting", f"`{other}`", f"`{preset}`"), lines)


def _task_settings(method: str) -> str:
    """Settings that a preset has on some tasks."""
    lines = [
        (f"`{preset}`", f"`{task}`", ", ".join(f"`{n}` {_shown(v)}" for n, v in settings.items()))
        for preset, tasks in METHODS[method].task_overrides.items()
        for task, settings in tasks.items()
    ]
    return table(cells("preset", "task", "settings"), lines)


def _commands() -> str:
    """Every command of `trebi`, with its arguments and options."""
    parts = []
    for name, command in sorted(typer.main.get_command(app).commands.items()):
        lines = []
        for parameter in command.params:
            names = ", ".join(f"`{n}`" for n in parameter.opts if n != "--help")
            if parameter.param_type_name == "argument":
                names = f"`{(parameter.metavar or parameter.name).upper()}`"
            default = "" if parameter.default in (None, ()) else f"`{parameter.default}`"
            lines.append((names, default, getattr(parameter, "help", "") or ""))
        example = (command.epilog or "").removeprefix("Example: ")
        options = table(cells("argument or option", "default", "meaning"), lines)
        parts += [f"## trebi {name}", command.help or "", options]
        parts += [f"```\n{example}\n```"] if example else []
    return "\n\n".join(parts)


def _manifest(which: str = "paper") -> str:
    """Every dataset of the paper, or of experts from elsewhere."""
    columns = [
        Column("dataset", lambda c: f"`{c.dataset_id}`"),
        Column("quality", lambda c: f"`{c.quality}`"),
        Column("steps", lambda c: f"{c.num_steps:,}"),
        Column("steps of SAC", lambda c: f"{c.sac_steps:,}"),
    ]
    return table(columns, MANIFEST if which == "paper" else BY_EXPERTS)


def _studies() -> str:
    """Every study, and what it shows."""
    lines = [(f"`{name}`", one.title, f"{len(one.rows)}") for name, one in STUDIES.items()]
    return table(cells("name", "what it shows", "rows"), lines)


TABLES: dict[str, Callable[..., str]] = {
    "settings": _settings,
    "differences": _differences,
    "task-settings": _task_settings,
    "commands": _commands,
    "manifest": _manifest,
    "studies": _studies,
}

Row = tuple[str, str, Callable[[Any], Any]]


def _groups(method: str) -> Iterator[tuple[str, str, list[Row]]]:
    """Title, first line and settings of each group; a setting is a name, a text and a reader.

    Settings that the method does not read are left out.
    """
    unread = METHODS[method].agent_class.unread
    config = next(iter(METHODS[method].presets.values()))
    own, groups = [], []
    texts = _attributes(type(config))
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            of_group = _attributes(type(value))
            rows = [
                (f.name, of_group.get(f.name, ""),
                 lambda c, g=field.name, n=f.name: getattr(getattr(c, g), n))
                for f in fields(value) if f.name not in unread
            ]  # fmt: skip
            groups.append((field.name, inspect.getdoc(type(value)).split("\n")[0], rows))
        elif field.name != "preset":
            own.append((field.name, texts.get(field.name, ""),
                        lambda c, n=field.name: getattr(c, n)))  # fmt: skip
    if own:
        yield f"{method}", "", own
    yield from groups


def _attributes(config_class: type) -> dict[str, str]:
    """Name of each attribute in the docstring of a class -> what it says."""
    _, _, section = (inspect.getdoc(config_class) or "").partition("Attributes:\n")
    texts: dict[str, str] = {}
    name = ""
    for line in section.splitlines():
        if entry := re.match(r"    (\w+): (.*)", line):
            name, texts[entry[1]] = entry[1], entry[2]
        elif line.startswith("        ") and name:
            texts[name] += " " + line.strip()
    return texts


def _shown(value: Any) -> str:
    return f"{value:,}" if type(value) is int else f"{value}"
