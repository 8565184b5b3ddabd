"""The examples run, at small sizes."""

import importlib.util
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
SIZES = {"turn_the_dial": {"num_episodes": 2}, "real_time": {"ticks_per_second": 1000.0}}


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_example_runs(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    result = module.main(**SIZES.get(path.stem, {}))
    assert len(path.read_text().splitlines()) <= 60
    if path.stem == "turn_the_dial":
        assert (tmp_path / "turn_the_dial.png").read_bytes().startswith(b"\x89PNG")
    if path.stem == "real_time":
        num_late, kept = result
        assert num_late > 0 and kept  # no plan takes less than a millisecond
