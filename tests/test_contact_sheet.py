"""The README's picture of all tasks can be drawn again."""

import importlib.util
from pathlib import Path

import gymnasium as gym
import pytest
from PIL import Image

PROGRAM = Path(__file__).parent.parent / "docs" / "contact_sheet.py"


def test_contact_sheet_is_drawn(tmp_path):
    pytest.importorskip("pybullet")
    spec = importlib.util.spec_from_file_location(PROGRAM.stem, PROGRAM)
    contact_sheet = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(contact_sheet)
    size = 100
    try:
        contact_sheet.main(tmp_path / "sheet.png", size)
    except gym.error.DependencyNotInstalled as error:
        pytest.skip(str(error))
    sheet = Image.open(tmp_path / "sheet.png")
    gap, columns = contact_sheet.GAP, contact_sheet.COLUMNS
    assert sheet.width == gap + columns * (size + gap)
    for column in range(columns):
        left = gap + column * (size + gap)
        picture = sheet.crop((left, gap + contact_sheet.TITLE, left + size, gap + size))
        assert len(picture.getcolors(size * size)) > 20
