"""sha256 of models, computed once; files that are not what they should be are refused."""

import errno
import json
import os
import re
import shutil
import sqlite3
from contextlib import closing, suppress
from hashlib import sha256
from pathlib import Path

import pytest

from picowatch.catalog import Catalog, catalog, embedded
from picowatch.catalog.hashes import HashCache
from picowatch.catalog.headers import Header, read_header
from picowatch.catalog.models import Recognised
from picowatch.catalog.recognise import recognise
from picowatch.errors import ModelRefused
from tests.catalog.files import Shapes, kohya_lora_shapes, refused_in, safetensors, write_model
from tests.catalog.shapes import diffusers_controlnet, esrgan_shapes, flux
from tests.fault_points import preceded_by, refusing, wrap

DEMO = embedded("checkpoint").path


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names: list[str] = []
    note = preceded_by(lambda path: names.append(path.name))
    wrap("picowatch.catalog.hashes:open_regular", note, monkeypatch.setattr)
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
    """A restart, an engine and `picowatch models` do not read again what another has read.

    The files are of 2286, and SQLite counts nanoseconds until 2262.
    """
    file = tmp_path / "state/hashes.sqlite"
    file.parent.mkdir()
    engine = HashCache(file, keep=False)
    engine.sha256(file_with(tmp_path, "alone", "own"))
    assert not file.exists(), "it only reads"
    daemon, command = HashCache(file), HashCache(file)
    for name, cache in (("a", command), ("b", daemon), ("c", command)):
        os.utime(path := file_with(tmp_path, name, name), (1e10, 1e10))
        cache.sha256(path)
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


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 2132625630\n"


def test_what_is_being_copied_or_downloaded_is_refused_until_it_is_whole(tmp_path: Path) -> None:
    """Without a restart. aria2's files have their whole size and header at once."""
    path, catalog = tmp_path / "loras/it.safetensors", Catalog(tmp_path)
    write_model(path, kohya_lora_shapes(), missing_bytes=1000)
    (refused,) = catalog.scan().refused
    assert refused.reason == (
        "it.safetensors is cut off: 16,410 of 17,410 bytes of weights are there; it is still "
        "being copied, or its download was interrupted."
    )
    write_model(path, kohya_lora_shapes())
    control = path.with_name("it.safetensors.aria2")
    control.write_bytes(b"abc")
    assert catalog.scan().models == ()
    with pytest.raises(ModelRefused, match="unfinished download"):
        catalog.find("lora", "it")
    control.unlink()
    assert [model.name for model in catalog.scan().models] == ["it"]


def test_what_could_not_be_read_is_a_model_once_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A permission or a disk that comes back changes neither size nor time."""
    folder = shutil.copytree(embedded("checkpoint").path / "vae", tmp_path / "vae/folder")
    (weights,) = folder.glob("*.safetensors")
    unreadable = {weights, Path(shutil.copy(weights, tmp_path / "vae/file.safetensors"))}
    refuse = refusing(errno.EACCES, lambda file, *_, **__: file in unreadable)
    catalog = Catalog(tmp_path)
    with monkeypatch.context() as patch:
        wrap("os:open", preceded_by(refuse), patch.setattr)
        assert ["cannot be read" in item.reason for item in catalog.scan().refused] == [True, True]
    assert [model.name for model in catalog.scan().models] == ["file", "folder"]


UNREADABLE = "is damaged: its header cannot be read."
TENSOR = {"dtype": "F16", "shape": [1], "data_offsets": [0, 2]}
ONE_TENSOR = json.dumps({"a": TENSOR}).encode()

PICKLE = "is a pickle file (.ckpt) under the name"
IT = "it.safetensors"
# A file's name, its content (None: a link that leads nowhere), and the reason that is told.
BROKEN: list[tuple[str, bytes | None, str]] = [
    (IT, b"", "is empty"),
    (IT, LFS, "is a Git LFS pointer"),
    (IT, b"<!DOCTYPE html><html>login</html>", "is a web page, not a model"),
    (IT, b"PK\x03\x04" + bytes(60), PICKLE),
    (IT, b"GGUF\x03\x00\x00\x00" + bytes(60), "is a GGUF file"),
    (IT, safetensors(b"{}", 5000), "is cut off inside its header"),
    (IT, safetensors(b"{}", 1 << 62), "is not a safetensors file"),
    (IT, safetensors(b"{ not json }"), UNREADABLE),
    (IT, safetensors(b'{"a":' + b"[" * 100_000), UNREADABLE),
    (IT, safetensors(b'{"a": {"data_offsets": [0, 2]}}'), UNREADABLE),
    (IT, safetensors(ONE_TENSOR, weights=9), "is damaged: 7 bytes more than"),
    (IT, safetensors(json.dumps({"a." * 501: TENSOR}).encode(), weights=2), UNREADABLE),
    # By their names: a pickle can run code; browsers and download tools name unfinished files so.
    ("old.ckpt", b"\x80\x02", "is a pickle file, which can run"),
    ("it.safetensors.part", b"\x80\x02", "is an unfinished download."),
    # It could not be written into a picture's metadata.
    ("caf\udce9.safetensors", b"", "has a name that is not UTF-8"),
    ("away.safetensors", None, "cannot be read: its link leads nowhere"),
]


@pytest.mark.parametrize(("name", "content", "words"), BROKEN)
def test_a_broken_file_is_refused_in_words(
    tmp_path: Path, name: str, content: bytes | None, words: str
) -> None:
    path = tmp_path / "checkpoints" / name
    path.parent.mkdir()
    try:
        path.symlink_to("gone") if content is None else path.write_bytes(content)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    shown = name.replace(chr(0xDCE9), chr(92) + "xe9")
    assert refused_in(tmp_path).startswith(f"{shown} {words}")
    assert not Catalog(tmp_path).scan().models


def test_a_header_whose_length_begins_like_a_pickle_is_read(tmp_path: Path) -> None:
    """640 bytes are 80 02 in a file; padded with spaces, as safetensors pads."""
    path = tmp_path / "it.safetensors"
    path.write_bytes(safetensors(ONE_TENSOR.ljust(0x280), weights=2))
    assert read_header(path).shapes == {"a": (1,)}


ODD = [diffusers_controlnet(768, kinds=6), esrgan_shapes(), flux(), kohya_lora_shapes()]


@pytest.mark.parametrize("shapes", ODD)
def test_a_tensor_of_an_odd_shape_is_a_model_or_refused(shapes: Shapes) -> None:
    """One odd file would end every command. One block of each kind stands for its repetitions."""
    kinds = {re.sub(r"\d+", "", name): name for name in shapes}
    for name in kinds.values():
        for odd in ((), (3,)):
            with suppress(ModelRefused):
                recognise(Header({**shapes, name: odd}, {}))


def test_a_file_that_nobody_foresaw_is_refused_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def recognised(header: Header) -> Recognised:
        if "odd" in header.shapes:
            raise ZeroDivisionError("division by zero")
        return recognise(header)

    monkeypatch.setattr(catalog, "recognise", recognised)
    write_model(tmp_path / "loras/it.safetensors", kohya_lora_shapes())
    write_model(tmp_path / "loras/odd.safetensors", {"odd": (1,)})
    found = Catalog(tmp_path).scan()
    assert [model.name for model in found.models] == ["it"]
    assert [entry.reason for entry in found.refused] == [
        "odd.safetensors is damaged, or of a kind that picowatch does not know "
        "(ZeroDivisionError: division by zero). Get it again."
    ]
