"""What cannot be sent to nodes, without Ray: it is refused before anything is sent."""

from concurrent.futures import Future
from pathlib import Path

import pytest

from picowatch.catalog import Catalog
from picowatch.engine.cluster.model_transfer import ModelTransfer
from picowatch.engine.cluster.node_models import Need, NodeModels
from picowatch.engine.options import EngineOptions
from picowatch.errors import RenderFailed
from tests.catalog.files import write_model
from tests.catalog.test_families import Z_IMAGE
from tests.engine.pipelines.tiny_flows import tiny_flow


@pytest.fixture
def need(tmp_path: Path) -> Need:
    """A transformer's file, which a diffusers folder completes."""
    checkpoints = tmp_path / "models/checkpoints"
    write_model(checkpoints / "z-turbo.safetensors", Z_IMAGE)
    (checkpoints / "Z-Image-Turbo").symlink_to(tiny_flow("Z-Image-Turbo"))
    catalog = Catalog(tmp_path / "models")
    return Need("checkpoint", "z-turbo", catalog.sha256(catalog.find("checkpoint", "z-turbo")))


def test_a_transformer_in_a_file_of_its_own_is_not_sent(tmp_path: Path, need: Need) -> None:
    """It would be nothing without its folder."""
    transfer = ModelTransfer(EngineOptions(models=tmp_path / "models"))

    def ask(method: str, *arguments: object) -> Future[object]:
        raise AssertionError(f"{method} was called")

    with pytest.raises(RenderFailed, match=r"'z-turbo' is a transformer .* Set executor: local"):
        transfer.bring([need], "node", ask)


def test_a_transformer_that_all_see_is_not_used_alone(tmp_path: Path, need: Need) -> None:
    """The engine would see the file without the folder that completes it."""
    root = tmp_path / "cache"
    root.mkdir()
    node = NodeModels(root, tmp_path / "models", tmp_path / "arriving")
    assert node.find(need) is None
