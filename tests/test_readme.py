"""What README.md promises beside what every page does (test_docs.py)."""

from pathlib import Path

TEXT = (Path(__file__).parent.parent / "README.md").read_text()


def test_it_is_short():
    assert len(TEXT.splitlines()) <= 200


def test_tables_come_from_the_code_and_the_results():
    for name in ("tasks", "quickstart"):
        _, _, part = TEXT.partition(f"<!-- begin {name} -->\n| ")
        assert f"<!-- end {name} -->" in part, name
    for line in TEXT.partition("<!-- begin")[0].splitlines():
        assert not line.startswith("|")
