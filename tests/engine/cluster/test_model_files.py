"""Model files and start images reach the nodes: verified, once, and not mixed up."""

import shutil
from hashlib import sha256
from pathlib import Path

import pytest

from picowatch.catalog import Catalog
from picowatch.engine.child import ChildEngine
from picowatch.engine.options import EngineOptions
from picowatch.engine.protocol import Engine
from picowatch.errors import RenderFailed
from picowatch.recipe.request import ImageRequest, LoraUse
from tests.catalog.files import kohya_lora_shapes, write_model
from tests.catalog.test_families import Z_IMAGE
from tests.engine.cluster.conftest import HEAD, SECOND, MakeExecutor, joined, on
from tests.engine.cluster.nodes import Nodes
from tests.engine.requests import PATIENCE, ignore_steps, make, request
from tests.engine.tiny_flows import tiny_flow

pytestmark = pytest.mark.heavy

DEMO = Path(__file__).parents[3] / "picowatch/assets/demo"
LAYER = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
PIECES = 20_000_000  # bytes; a file of several pieces


def far(folder: Path) -> Path:
    """A path that leads to the folder in the daemon alone."""
    if not Path("/proc/self/cwd").exists():
        pytest.skip("needs /proc")
    return Path(f"/proc/self/cwd{folder}")


def write_lora(models: Path, name: str, last: bytes = b"x") -> str:
    """A LoRA that ends with these bytes; gives its hash."""
    shapes = kohya_lora_shapes() | {f"{LAYER}.lora_mid.weight": (PIECES // 2,)}
    path = write_model(models / "loras" / f"{name}.safetensors", shapes)
    with path.open("r+b") as file:
        file.seek(-len(last), 2)
        file.write(last)
    return sha256(path.read_bytes()).hexdigest()


def with_lora(name: str, digest: str, prompt: str = "x") -> ImageRequest:
    return request(prompt, loras=(LoraUse(name, digest, 1.0),))


def seen(engine: Engine, requested: ImageRequest) -> tuple[str, ...]:
    """The files that the engine's process found for this request, with their hashes."""
    [picture] = make(engine, requested)
    return picture.warnings


def test_a_file_is_sent_to_each_node_and_kept_there(
    make_executor: MakeExecutor, nodes: Nodes, tmp_path: Path
) -> None:
    """Once for all engines of a node; what is there is not sent again."""
    digest = write_lora(tmp_path / "models", "style/one")
    executor = make_executor(models=far(tmp_path / "models"), cpus_per_engine=0.5)
    engines = joined(executor, 4, {HEAD, SECOND})
    requested = with_lora("style/one", digest)
    found = [engine.render([requested], ignore_steps) for engine in engines]
    for future in found:
        [picture] = future.result(PATIENCE)
        assert picture.warnings == (f"loras/style/one.safetensors {digest}",)
    for node in (HEAD, SECOND):
        folder = nodes.cache(node) / "models"
        [kept] = [path for path in folder.rglob("*.safetensors") if not path.is_symlink()]
        assert kept == folder / digest / "loras/style/one.safetensors"
        assert kept.stat().st_size > PIECES
    kept = nodes.cache(HEAD) / "models" / digest / "loras/style/one.safetensors"
    before = kept.stat()
    shutil.rmtree(tmp_path / "models")
    assert seen(on(executor, HEAD), requested)
    assert kept.stat() == before


def test_two_daemons_files_of_one_name_are_not_mixed_up(
    make_executor: MakeExecutor, tmp_path: Path
) -> None:
    """Each gets its own, on one node at one time."""
    mine = write_lora(tmp_path / "models", "same", b"a")
    theirs = write_lora(tmp_path / "other", "same", b"b")
    first = make_executor(models=far(tmp_path / "models"))
    [engine] = joined(first, 1)
    second = make_executor(models=far(tmp_path / "other"))
    [another] = joined(second, 1)
    for _ in range(2):
        assert seen(engine, with_lora("same", mine)) == (f"loras/same.safetensors {mine}",)
        assert seen(another, with_lora("same", theirs)) == (f"loras/same.safetensors {theirs}",)


def test_a_damaged_file_on_a_node_is_sent_anew(
    make_executor: MakeExecutor, nodes: Nodes, tmp_path: Path
) -> None:
    """It is verified by its hash before it is used."""
    digest = write_lora(tmp_path / "models", "whole", b"c")
    executor = make_executor(models=far(tmp_path / "models"))
    [engine] = joined(executor, 1)
    requested = with_lora("whole", digest)
    node = make(engine, requested)[0].node
    kept = nodes.cache(node) / "models" / digest / "loras/whole.safetensors"
    kept.write_bytes(kept.read_bytes()[:-1] + b"?")
    assert seen(engine, requested) == (f"loras/whole.safetensors {digest}",)


def test_a_file_that_all_see_is_not_copied(
    make_executor: MakeExecutor, nodes: Nodes, tmp_path: Path
) -> None:
    """Where the node has the same file at the same path."""
    digest = write_lora(tmp_path / "models", "shared", b"d")
    executor = make_executor()
    [engine] = joined(executor, 1)
    assert seen(engine, with_lora("shared", digest)) == (f"loras/shared.safetensors {digest}",)
    for node in (HEAD, SECOND):
        assert not (nodes.cache(node) / "models" / digest).exists()


def test_a_file_that_was_replaced_fails_its_image_in_words(
    make_executor: MakeExecutor, tmp_path: Path
) -> None:
    """As on one machine; and the engine goes on."""
    digest = write_lora(tmp_path / "models", "gone", b"e")
    write_lora(tmp_path / "models", "gone", b"f")
    executor = make_executor(models=far(tmp_path / "models"))
    [engine] = joined(executor, 1)
    with pytest.raises(RenderFailed, match="'gone' is a different file now"):
        make(engine, with_lora("gone", digest))
    with pytest.raises(RenderFailed, match="There is no 'never'"):
        make(engine, with_lora("never", digest))
    assert seen(engine, request()) == ()


def test_start_images_travel_with_their_request(
    make_executor: MakeExecutor, tmp_path: Path
) -> None:
    """And are gone with the next one."""
    content = b"a picture"
    digest = sha256(content).hexdigest()
    (tmp_path / "start-images").mkdir()
    (tmp_path / "start-images" / digest).write_bytes(content)
    [engine] = joined(make_executor(), 1)
    requested = request(image="a.png", image_hash=digest, denoising_strength=0.5, resize="crop")
    assert seen(engine, requested) == (f"start-images/{digest} {digest}",)
    assert seen(engine, request()) == ()


def test_a_transformer_is_sent_with_what_completes_it(
    make_executor: MakeExecutor, tmp_path: Path
) -> None:
    """And the engine there sees no other files."""
    models = tmp_path / "models"
    write_model(models / "checkpoints/z-turbo.safetensors", Z_IMAGE)
    shutil.copytree(tiny_flow("Z-Image-Turbo"), models / "checkpoints/lent")
    catalog = Catalog(models)
    transformer = catalog.find("checkpoint", "z-turbo")
    requested = request(checkpoint="z-turbo", checkpoint_hash=catalog.sha256(transformer))
    [engine] = joined(make_executor(models=far(models)), 1)
    found = [warning.split()[0] for warning in seen(engine, requested)]
    assert found == sorted(catalog.files_below(transformer))
    assert "checkpoints/lent/vae/diffusion_pytorch_model.safetensors" in found
    assert "checkpoints/lent/transformer/diffusion_pytorch_model.safetensors" not in found


def test_a_model_renders_the_same_picture_on_every_node(
    make_executor: MakeExecutor, tmp_path: Path
) -> None:
    """And on this machine: a checkpoint in a folder, which has to be sent."""
    shutil.copytree(DEMO, tmp_path / "models" / "checkpoints/copy")
    catalog = Catalog(tmp_path / "models")
    digest = catalog.sha256(catalog.find("checkpoint", "copy"))
    requested = request(checkpoint="copy", checkpoint_hash=digest)
    executor = make_executor("picowatch.engine.child_main", models=far(tmp_path / "models"))
    joined(executor, 2, {HEAD, SECOND})
    here = ChildEngine(EngineOptions(models=tmp_path / "models", threads=1))
    try:
        [expected] = make(here, requested)
    finally:
        here.close()
    for node in (HEAD, SECOND):
        [picture] = make(on(executor, node), requested)
        assert (picture.node, picture.device) == (node, "cpu")
        assert picture.pixels == expected.pixels
