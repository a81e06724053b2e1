"""Transformers in files of their own reach a node with all that completes them, without Ray."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from picowatch.catalog import Catalog
from picowatch.catalog.text_encoders import ENCODERS
from picowatch.engine.cluster.model_transfer import Ask, ModelTransfer, needs_of
from picowatch.engine.cluster.node_models import Need, NodeModels
from picowatch.engine.options import EngineOptions
from picowatch.errors import RenderFailed
from picowatch.recipe.parts import Hires, Upscale
from tests.catalog.files import Shapes, write_model
from tests.catalog.test_families import Z_IMAGE, below
from tests.catalog.test_vaes import FLUX1
from tests.catalog.upscalers import compact_shapes
from tests.engine.requests import PATIENCE, request
from tests.engine.tiny_flows import tiny_flow

QWEN: Shapes = {"model.embed_tokens.weight": (16, 8)}


@pytest.fixture(autouse=True)
def small_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Less to send."""
    full = ENCODERS["Qwen3 4B"]
    small = full._replace(shape=QWEN[full.tensor])
    monkeypatch.setitem(ENCODERS, "Qwen3 4B", small)


def with_folder(models: Path) -> None:
    """Completed by a diffusers folder whose transformer it does not need."""
    lender = models / "checkpoints/turbo/Z-Image"
    lender.parent.mkdir(parents=True)
    lender.symlink_to(tiny_flow("Z-Image-Turbo"))


def with_files(models: Path) -> None:
    """Completed by the largest of its text encoders and VAEs: those of equal size by name."""
    write_model(models / "text_encoders/qwen.safetensors", QWEN)
    for name in ("b", "a"):
        write_model(models / f"vae/mine/{name}.safetensors", FLUX1)


def with_all_inside(models: Path) -> None:
    """A file that needs no other."""
    inside = below("text_encoders.qwen3_4b.transformer.", QWEN) | below("vae.", FLUX1)
    write_model(models / "checkpoints/z-turbo.safetensors", Z_IMAGE | inside)


Complete = Callable[[Path], None]
WAYS = pytest.mark.parametrize("complete", [with_folder, with_files, with_all_inside])


def transformer(models: Path, complete: Complete) -> Need:
    write_model(models / "checkpoints/z-turbo.safetensors", Z_IMAGE)
    complete(models)
    catalog = Catalog(models)
    return Need("checkpoint", "z-turbo", catalog.sha256(catalog.find("checkpoint", "z-turbo")))


def node_without(models: Path, tmp_path: Path) -> NodeModels:
    """A node that sees the daemon's models folder only if it is given."""
    root = tmp_path / "cache"
    root.mkdir()
    return NodeModels(root, models, tmp_path / "arriving")


def asking(node: NodeModels) -> Ask:
    """Calls the node at once, as a driver does from afar."""

    def ask(method: str, *arguments: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(getattr(node, method.removeprefix("models."))(*arguments))
        return future

    return ask


def is_whole(found: dict[str, Path] | None, need: Need, view: Path) -> bool:
    """Whether an engine that sees these files and no others finds this checkpoint."""
    assert found
    for relative, path in found.items():
        (view / relative).parent.mkdir(parents=True, exist_ok=True)
        (view / relative).symlink_to(path)
    catalog = Catalog(view)
    return catalog.sha256(catalog.find("checkpoint", need.name)) == need.hash


@WAYS
def test_a_transformer_is_sent_with_what_completes_it(tmp_path: Path, complete: Complete) -> None:
    """Once; and not the weights of the lending folder's own transformer."""
    models, nothing = tmp_path / "models", tmp_path / "nothing"
    need = transformer(models, complete)
    node = node_without(nothing, tmp_path)
    assert node.find(need) is None
    transfer = ModelTransfer(EngineOptions(models=models))
    transfer.bring([need], "node", asking(node), lambda: None)
    found = node.find(need)
    assert is_whole(found, need, tmp_path / "view")
    assert not [path for path in found or {} if "/transformer/diffusion_" in path]
    assert not node.lacks(need, 0)


@WAYS
def test_a_transformer_that_all_see_is_used_where_it_is(tmp_path: Path, complete: Complete) -> None:
    """With what completes it there."""
    need = transformer(tmp_path / "models", complete)
    node = node_without(tmp_path / "models", tmp_path)
    assert is_whole(node.find(need), need, tmp_path / "view")


def test_one_that_changes_while_it_is_sent_fails_in_words(tmp_path: Path) -> None:
    """The VAE alone is enough."""
    models = tmp_path / "models"
    need = transformer(models, with_files)
    node = node_without(tmp_path / "nothing", tmp_path)
    ask = asking(node)

    def changing(method: str, *arguments: Any) -> Future[Any]:
        if method == "models.append" and arguments[1].startswith("vae/"):
            arguments = (*arguments[:2], arguments[2][:-1] + b"?")
        return ask(method, *arguments)

    with pytest.raises(RenderFailed, match="'z-turbo' changed while it was sent to a node"):
        ModelTransfer(EngineOptions(models=models)).bring([need], "node", changing, lambda: None)
    assert node.find(need) is None


def test_an_upscaler_is_sent_as_every_model_is(tmp_path: Path) -> None:
    """Those of both uses; the embedded one is in the package on every node."""
    models = tmp_path / "models"
    write_model(models / "upscalers/mine/2x.safetensors", compact_shapes(2, blocks=1))
    catalog = Catalog(models)
    digest = catalog.sha256(catalog.find("upscaler", "mine/2x"))
    batch = [
        request(upscale=Upscale("mine/2x", 2.0), upscaler_hash=digest),
        request(hires=Hires(upscaler="mine/2x"), hires_upscaler_hash=digest),
        request(upscale=Upscale("demo-compact", 2.0), upscaler_hash="0" * 64),
        request(hires=Hires(upscaler="Lanczos")),
    ]
    (need,) = needs_of(batch)
    assert need == Need("upscaler", "mine/2x", digest)
    node = node_without(tmp_path / "nothing", tmp_path)
    ModelTransfer(EngineOptions(models=models)).bring([need], "node", asking(node), lambda: None)
    assert node.find(need)


def test_a_long_transfer_shows_that_it_goes_on(tmp_path: Path) -> None:
    """Each file does at least, so that nobody takes the engine for one that hangs."""
    models = tmp_path / "models"
    need = transformer(models, with_folder)
    node = node_without(tmp_path / "nothing", tmp_path)
    pieces: list[str] = []
    progress: list[int] = []
    ask = asking(node)

    def counting(method: str, *arguments: Any) -> Future[Any]:
        pieces.extend(arguments[1:2] if method == "models.append" else ())
        return ask(method, *arguments)

    transfer = ModelTransfer(EngineOptions(models=models))
    transfer.bring([need], "node", counting, lambda: progress.append(1))
    assert len(progress) == len(pieces) > 1


def test_an_engine_that_waits_for_anothers_transfer_shows_that_it_goes_on(tmp_path: Path) -> None:
    """Two engines of one node: the second finds the files then."""
    models = tmp_path / "models"
    need = transformer(models, with_all_inside)
    node, has_waited = node_without(tmp_path / "nothing", tmp_path), threading.Event()
    ask, transfer = asking(node), ModelTransfer(EngineOptions(models=models))
    second = threading.Thread(target=transfer.bring, args=([need], "node", ask, has_waited.set))

    def held(method: str, *arguments: Any) -> Future[Any]:
        if method == "models.append" and second.ident is None:
            second.start()
            assert has_waited.wait(PATIENCE)
        return ask(method, *arguments)

    transfer.bring([need], "node", held, lambda: None)
    second.join(PATIENCE)
    assert not second.is_alive()
    assert node.find(need)
