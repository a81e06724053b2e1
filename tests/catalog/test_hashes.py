"""sha256 of models: what it covers, and that it is computed once."""

import os
import shutil
import sqlite3
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import IO

import pytest

from picowatch.catalog import Catalog, hashes
from picowatch.catalog.hashes import HashCache
from picowatch.errors import ModelRefused
from picowatch.files import safe_paths

DEMO = Catalog(Path("nowhere")).demo.path


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names: list[str] = []
    real = safe_paths.open_regular

    def opened(path: Path) -> IO[bytes]:
        names.append(path.name)
        return real(path)

    monkeypatch.setattr(hashes, "open_regular", opened)
    return names


def file_with(folder: Path, content: str, name: str = "a") -> Path:
    (folder / name).write_text(content)
    return folder / name


def stored(cache: Path) -> list[str]:
    with closing(sqlite3.connect(cache)) as database:
        return sorted(
            Path(name.decode()).name for (name,) in database.execute("SELECT name FROM known")
        )


def test_a_folders_hash_is_that_of_its_sha256sum_listing(tmp_path: Path) -> None:
    """Over the files that are read, sorted by path: anyone can compute it with sha256sum."""
    folder = shutil.copytree(DEMO, tmp_path / "checkpoints/mine")
    for vocabulary in ("spiece.model", "chat_template.jinja", "merges.txt"):
        (folder / "tokenizer" / vocabulary).write_text("words")
    (folder / "known_words.json").unlink()
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))
    files.remove("README.md")
    # Weights for training do not count either.
    (folder / "unet/diffusion_pytorch_model.non_ema.safetensors").write_bytes(b"x")
    (folder / "safety_checker").mkdir()
    (folder / "safety_checker/config.json").write_text("{}")
    listing = "".join(
        f"{sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in files
    )
    catalog = Catalog(tmp_path)
    before = catalog.sha256(catalog.find("checkpoint", "mine"))
    assert before == sha256(listing.encode()).hexdigest()


def test_hashes_outlive_the_process_in_their_file(tmp_path: Path, hashed: list[str]) -> None:
    """A restart, an engine and `picowatch models` do not read again what another has read."""
    file = tmp_path / "state/hashes.sqlite"
    file.parent.mkdir()
    engine = HashCache(file, keep=False)
    engine.sha256(file_with(tmp_path, "alone", "own"))
    assert not file.exists(), "it only reads"
    daemon, command = HashCache(file), HashCache(file)
    for name, cache in (("a", command), ("b", daemon), ("c", command)):
        cache.sha256(file_with(tmp_path, name, name))
    for cache in (HashCache(file), daemon, engine):
        for name in "abc":
            assert cache.sha256(tmp_path / name) == sha256(name.encode()).hexdigest()
    assert hashed == ["own", "a", "b", "c"]
    assert [path.name for path in file.parent.iterdir()] == ["hashes.sqlite"]


def test_a_hash_file_that_is_damaged_or_cannot_be_written_costs_time_only(
    tmp_path: Path, hashed: list[str]
) -> None:
    """A new one is written, as soon as a full disk has room, and after it was deleted.

    Its folder is not made: that is a task of who has the outbox, which may be away.
    """
    path, folder = file_with(tmp_path, "one"), file_with(tmp_path, "not a folder", "state")
    file, cache = folder / "hashes.sqlite", HashCache(folder / "hashes.sqlite")
    for _ in range(2):
        assert cache.sha256(path) == sha256(b"one").hexdigest()
    folder.unlink()
    cache.sha256(path)
    assert not folder.exists()
    folder.mkdir()
    for _ in range(2):
        cache.sha256(path)
        assert stored(file) == ["a"]
        file.unlink()
    assert hashed == ["a"]
    for content in (b"", b"SQLite format 3\0" + bytes(4096)):
        file.write_bytes(content)
        assert HashCache(file).sha256(path) == sha256(b"one").hexdigest()
        assert stored(file) == ["a"]


def test_the_file_of_hashes_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest are forgotten; a disk may be away for months."""
    file = tmp_path / "hashes.sqlite"
    monkeypatch.setattr(hashes, "_MOST_ENTRIES", 2)
    for name in ("c", "b", "a"):
        HashCache(file).sha256(file_with(tmp_path, name, name))
    assert stored(file) == ["a", "b"]


def test_a_file_is_hashed_once_until_it_changes(tmp_path: Path, hashed: list[str]) -> None:
    """By path, size and mtime; a hash of two versions would belong to neither."""
    path, cache = file_with(tmp_path, "one"), HashCache()
    for content in (b"one", b"two"):
        path.write_bytes(content)
        os.utime(path, ns=(1, 1 + content[0]))
        assert cache.sha256(path) == cache.sha256(path) == sha256(content).hexdigest()
    assert hashed == ["a", "a"]
    path.write_bytes(b"three")
    with pytest.raises(ModelRefused, match="a changed while it was read"):
        cache.sha256(path, on_block=lambda size: (path.write_bytes(b"longer"), None)[1])
    path.unlink()
    with pytest.raises(ModelRefused, match="a cannot be read"):
        cache.sha256(path)
