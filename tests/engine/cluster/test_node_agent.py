"""A node's agent, without Ray: what its disk does is reported as the reason not to use the node."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from picowatch.engine.cluster.node_agent import NodeAgent, NodeUnfit, start_agent
from picowatch.engine.cluster.node_models import Need
from picowatch.engine.options import EngineOptions
from tests.engine.cluster.conftest import DIGESTS, HEAD

NEED = Need("lora", "style", "0" * 64)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The node's cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    return tmp_path / "cache"


def start() -> NodeAgent:
    return start_agent(HEAD, EngineOptions(models=Path("nowhere")), DIGESTS, 0, 1)


def test_a_cache_folder_that_cannot_be_used_is_named(cache: Path) -> None:
    """Before anything is started there."""
    cache.touch()
    with pytest.raises(NodeUnfit, match=f"^{HEAD} is not used: Not a directory .*{cache}"):
        start()


def test_a_user_without_a_home_learns_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in containers."""

    def refuse() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", refuse)
    with pytest.raises(NodeUnfit, match=f"^{HEAD} is not used: .* Set XDG_CACHE_HOME there"):
        start()


def test_a_model_that_has_no_room_is_refused_before_it_is_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With what to do."""
    agent = start()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**30))
    with pytest.raises(NodeUnfit, match=f"^{HEAD} is not used: no room for a model of 5,000 bytes"):
        agent.ask("models.lacks", NEED, 5000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**31))
    assert agent.ask("models.lacks", NEED, 5000)


def test_a_disk_that_fails_in_the_middle_is_the_nodes_fault(cache: Path) -> None:
    """Not the image's: it is rendered elsewhere."""
    agent = start()
    [arriving] = (cache / "picowatch/models/views").glob("*/arriving")
    arriving.rmdir()
    arriving.touch()
    with pytest.raises(NodeUnfit, match=f"^{HEAD} is not used: .*{arriving}"):
        agent.ask("models.append", NEED, "", b"piece")


def test_views_of_engines_that_ended_are_deleted(cache: Path) -> None:
    """Those of engines that run are not."""
    first = start()
    left = cache / "picowatch/models/views/left"
    left.mkdir()
    (left / "lock").touch()
    (left / "arriving").mkdir()
    second = start()
    views = [path for path in left.parent.iterdir() if path.is_dir()]
    assert len(views) == 2
    assert left not in views
    assert first is not second
