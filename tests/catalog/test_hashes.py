"""sha256 of models: what it covers, and that it is computed once."""

import json
import os
import shutil
from hashlib import sha256
from pathlib import Path

import pytest

from picowatch.catalog import Catalog, hashes
from picowatch.catalog.hashes import HashCache
from picowatch.errors import ModelRefused
from picowatch.files import inside
from picowatch.files.atomic import write_atomically
from tests.catalog.files import sd15_shapes, write_model

DEMO = Catalog(Path("nowhere")).demo.path


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files whose bytes were read for a hash."""
    names: list[str] = []
    real = inside.open_regular

    def opened(path: Path) -> int:
        names.append(path.name)
        return real(path)

    monkeypatch.setattr(hashes, "open_regular", opened)
    return names


def test_a_files_hash_is_its_sha256(tmp_path: Path) -> None:
    """The one that model sites show."""
    path = write_model(tmp_path / "vae/v.safetensors", {"decoder.conv_in.weight": (8, 4)})
    assert HashCache().sha256(path) == sha256(path.read_bytes()).hexdigest()


def test_a_folders_hash_is_that_of_its_sha256sum_listing(tmp_path: Path) -> None:
    """Over the files that are read, sorted by path: anyone can compute it with sha256sum."""
    shutil.copytree(DEMO, tmp_path / "checkpoints/mine")
    catalog = Catalog(tmp_path)
    (model,) = catalog.scan().models
    files = sorted(
        path.relative_to(model.path).as_posix()
        for path in model.path.rglob("*")
        if path.suffix in {".json", ".txt", ".safetensors"} and path.name != "known_words.json"
    )
    listing = "".join(
        f"{sha256((model.path / name).read_bytes()).hexdigest()}  {name}\n" for name in files
    )
    assert catalog.sha256(model) == sha256(listing.encode()).hexdigest()


def test_files_that_are_not_read_do_not_change_a_folders_hash(tmp_path: Path) -> None:
    """Previews, notes, weights for training."""
    shutil.copytree(DEMO, tmp_path / "checkpoints/mine")
    catalog = Catalog(tmp_path)
    (model,) = catalog.scan().models
    before = catalog.sha256(model)
    (model.path / "README.md").write_text("words")
    (model.path / "unet/diffusion_pytorch_model.non_ema.safetensors").write_bytes(b"x")
    (model.path / "safety_checker").mkdir()
    (model.path / "safety_checker/config.json").write_text("{}")
    assert catalog.sha256(model) == before
    (model.path / "unet/config.json").write_text("{}")
    assert catalog.sha256(model) != before


def test_a_file_is_hashed_once_until_it_changes(tmp_path: Path, hashed: list[str]) -> None:
    """By path, size and mtime."""
    path = tmp_path / "a"
    path.write_bytes(b"one")
    cache = HashCache()
    first = cache.sha256(path)
    assert cache.sha256(path) == first
    path.write_bytes(b"two")
    os.utime(path, ns=(1, 1))
    assert cache.sha256(path) == sha256(b"two").hexdigest()
    assert hashed == ["a", "a"]


def test_hashes_outlive_the_process_in_their_file(tmp_path: Path, hashed: list[str]) -> None:
    """A restart of the daemon does not read gigabytes again; nor does its engine."""
    path, cache_file = tmp_path / "a", tmp_path / "state/hashes.json"
    cache_file.parent.mkdir()
    path.write_bytes(b"one")
    first = HashCache(cache_file).sha256(path)
    assert HashCache(cache_file, keep=False).sha256(path) == first
    assert hashed == ["a"]
    assert [file.name for file in cache_file.parent.iterdir()] == ["hashes.json"]


def test_a_reader_notices_what_was_hashed_since_it_began(tmp_path: Path, hashed: list[str]) -> None:
    """The engine outlives many new models."""
    path, cache_file = tmp_path / "a", tmp_path / "hashes.json"
    path.write_bytes(b"one")
    reader = HashCache(cache_file, keep=False)
    first = HashCache(cache_file).sha256(path)
    assert reader.sha256(path) == first
    assert hashed == ["a"]


def test_a_reader_of_the_hash_file_never_writes_it(tmp_path: Path) -> None:
    """One writer: the daemon."""
    path, cache_file = tmp_path / "a", tmp_path / "hashes.json"
    path.write_bytes(b"one")
    HashCache(cache_file, keep=False).sha256(path)
    assert not cache_file.exists()


def test_who_keeps_hashes_keeps_those_of_others(tmp_path: Path, hashed: list[str]) -> None:
    """`picowatch models` beside a daemon: neither reads what the other has read."""
    daemon, command = (HashCache(tmp_path / "hashes.json") for _ in range(2))
    for name, cache in (("a", command), ("b", daemon), ("c", command)):
        (tmp_path / name).write_text(name)
        cache.sha256(tmp_path / name)
    restarted = HashCache(tmp_path / "hashes.json")
    for cache in (restarted, daemon):
        for name in "abc":
            assert cache.sha256(tmp_path / name) == sha256(name.encode()).hexdigest()
    assert hashed == ["a", "b", "c"]


def test_many_hashes_are_written_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file with thousands of them takes longer to write than a small model to read."""
    written: list[Path] = []
    real = write_atomically

    def write(path: Path, content: bytes, **options: bool) -> None:
        written.append(path)
        real(path, content, **options)

    monkeypatch.setattr(hashes, "write_atomically", write)
    monkeypatch.setattr(hashes, "_FEW", 2)
    monkeypatch.setattr(hashes, "_BYTES_FOR_AN_ENTRY", 100)
    cache = HashCache(tmp_path / "hashes.json")
    counts = []
    for number, size in enumerate((1, 1, 1, 1, 500, 1, 1)):
        (tmp_path / str(number)).write_bytes(b"x" * size)
        cache.sha256(tmp_path / str(number))
        counts.append(len(written))
    assert counts == [1, 2, 2, 2, 3, 3, 3]
    cache.write()
    cache.write()
    assert len(written) == 4, "nothing is left to be written"
    known = HashCache(tmp_path / "hashes.json", keep=False)
    assert all(known.known(tmp_path / str(number)) for number in range(7))


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{", b'{"version": 9, "files": {}}', b'{"version": 1, "files": [1]}']
)
def test_a_damaged_hash_file_costs_time_only(tmp_path: Path, content: bytes) -> None:
    """It is written again."""
    path, cache_file = tmp_path / "a", tmp_path / "hashes.json"
    path.write_bytes(b"one")
    cache_file.write_bytes(content)
    assert HashCache(cache_file).sha256(path) == sha256(b"one").hexdigest()
    assert str(path.resolve()) in json.loads(cache_file.read_text())["files"]


def test_a_hash_file_that_cannot_be_written_costs_time_only(tmp_path: Path) -> None:
    """A full disk must not stop pictures. Once there is room, or it was deleted, it is written."""
    path, folder = tmp_path / "a", tmp_path / "file"
    path.write_bytes(b"one")
    folder.write_text("not a folder")
    cache = HashCache(folder / "hashes.json")
    for _ in range(2):
        assert cache.sha256(path) == sha256(b"one").hexdigest()
    folder.unlink()
    for _ in range(2):
        cache.sha256(path)
        assert str(path.resolve()) in json.loads((folder / "hashes.json").read_text())["files"]
        (folder / "hashes.json").unlink()


def test_a_model_that_vanishes_is_refused(tmp_path: Path) -> None:
    """Between the scan and the hash."""
    path = write_model(tmp_path / "checkpoints/a.safetensors", sd15_shapes())
    catalog = Catalog(tmp_path)
    model = catalog.find("checkpoint", "a")
    path.unlink()
    with pytest.raises(ModelRefused, match=r"a\.safetensors cannot be read"):
        catalog.sha256(model)


def test_a_file_that_changes_while_it_is_hashed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its hash would be that of neither."""
    path = tmp_path / "a"
    path.write_bytes(b"one")
    real = hashes._digest

    def digest(file, on_block):  # type: ignore[no-untyped-def]
        path.write_bytes(b"longer")
        return real(file, on_block)

    monkeypatch.setattr(hashes, "_digest", digest)
    with pytest.raises(ModelRefused, match="a changed while it was read"):
        HashCache().sha256(path)
