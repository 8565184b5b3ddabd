import importlib.metadata
import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from safetensors.torch import save_file

from safe_diffusion_agent.errors import CheckpointError
from safe_diffusion_agent.storage import (
    checkpoint_kind,
    csv_of,
    load_checkpoint,
    provenance,
    read_json,
    save_checkpoint,
    write_atomically,
    write_text,
)

TENSORS = {"a/x": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(3, dtype=torch.int64)}


def test_a_damaged_json_file_is_named(tmp_path):
    path = tmp_path / "results.json"
    for content in (b"", b'{"a": 1', b"\xff\xfe"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"results.json is damaged .*\. Delete it, and run"):
            read_json(path)
    write_text(path, '{"a": [1]}')
    assert read_json(path) == {"a": [1]}


def test_round_trip(tmp_path):
    save_checkpoint(tmp_path / "c.safetensors", "thing", TENSORS, {"note": [1, "ä"]})
    tensors, document = load_checkpoint(tmp_path / "c.safetensors", "thing")
    assert document == {"note": [1, "ä"]}
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert torch.equal(tensors[name], tensor) and tensors[name].dtype == tensor.dtype


def test_every_flipped_byte_is_noticed(tmp_path):
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, "thing", TENSORS, {"note": 1})
    content = path.read_bytes()
    data_start = 8 + int.from_bytes(content[:8], "little")
    for position in range(data_start, len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 0xFF
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="damaged"):
            load_checkpoint(path, "thing")


def test_a_flipped_byte_of_the_header_is_noticed_or_does_not_matter(tmp_path):
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, "thing", TENSORS, {"note": 1})
    content = path.read_bytes()
    data_start, num_noticed = 8 + int.from_bytes(content[:8], "little"), 0
    for position in range(data_start):
        for flip in (0xFF, 1):  # no character of any text; another character
            damaged = bytearray(content)
            damaged[position] ^= flip
            path.write_bytes(damaged)
            try:
                tensors, document = load_checkpoint(path, "thing")
            except CheckpointError:
                num_noticed += 1
            else:
                assert document == {"note": 1} and tensors.keys() == TENSORS.keys()
                assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)
    assert num_noticed > 1.8 * data_start  # of two flips each; its spaces do not matter


@pytest.mark.parametrize("length", [0, 5, 60, -1])
def test_a_truncated_file_is_noticed(tmp_path, length):
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, "thing", TENSORS, {})
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(path, "thing")


def test_foreign_files_are_refused(tmp_path):
    path = tmp_path / "c.safetensors"
    save_file(TENSORS, path)
    with pytest.raises(CheckpointError, match="is not a checkpoint of safe-diffusion-agent"):
        load_checkpoint(path, "thing")
    save_file(TENSORS, path, metadata={"safe-diffusion-agent": json.dumps({"format_version": 99})})
    with pytest.raises(CheckpointError, match="format version 99"):
        load_checkpoint(path, "thing")
    save_checkpoint(path, "thing", TENSORS, {})
    with pytest.raises(CheckpointError, match="should be a checkpoint of 'other'"):
        load_checkpoint(path, "other")
    for nothing in (tmp_path / "none", tmp_path):
        for read in (checkpoint_kind, lambda file: load_checkpoint(file, "thing")):
            with pytest.raises(CheckpointError, match="There is no checkpoint"):
                read(nothing)


def test_the_kind_is_told_without_the_tensors(tmp_path):
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, "thing", TENSORS, {})
    assert checkpoint_kind(path) == "thing"
    path.write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint_kind(path)


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def interrupted(file):
        file.write(b"ne")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, interrupted)
    assert path.read_text() == "old"
    write_atomically(path, lambda file: file.write(b"new"))
    assert path.read_text() == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_file_that_is_replaced_while_it_is_read_is_one_of_the_two(tmp_path):
    path = tmp_path / "c.safetensors"

    def write(number):
        tensors = {"a": torch.full((20_000,), number), "b": torch.full((3,), number)}
        save_checkpoint(path, "thing", tensors, {"number": number})

    write(0)
    with ThreadPoolExecutor() as pool:
        writing = pool.submit(lambda: [write(number) for number in range(1, 500)])
        while not writing.done():
            tensors, document = load_checkpoint(path, "thing")
            assert all((tensor == document["number"]).all() for tensor in tensors.values())
    writing.result()


def test_a_checkout_that_is_not_installed_has_a_provenance(monkeypatch):
    def version(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert provenance()["versions"]["safe-diffusion-agent"] is None


def test_rows_name_the_columns_and_may_lack_some():
    assert csv_of([{"a": 1, "b": "x, y"}, {"a": 2.5, "c": True}]) == 'a,b,c\n1,"x, y",\n2.5,,True\n'
