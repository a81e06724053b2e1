"""A node's agent, without Ray: what its disk does is reported as the reason not to use the node."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from picowatch.engine.cluster.driver import unfit_by
from picowatch.engine.cluster.node_agent import NodeAgent
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
    return NodeAgent(EngineOptions(models=Path("nowhere")), DIGESTS, 1)


def is_unfit(pattern: str, call: Callable[..., object], *arguments: object) -> bool:
    """Whether the node is not used because of what this call raises, in such words."""
    with pytest.raises(OSError) as caught:
        call(*arguments)
    return re.match(f"{HEAD} is not used: {pattern}", str(unfit_by(caught.value, HEAD))) is not None


def test_a_cache_folder_that_cannot_be_used_is_named(cache: Path) -> None:
    """Before anything is started there."""
    cache.touch()
    assert is_unfit(f"Not a directory .*{cache}", start)


def test_a_user_without_a_home_learns_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in containers."""

    def refuse() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", refuse)
    assert is_unfit(".* Set XDG_CACHE_HOME there", start)


def test_a_model_that_has_no_room_is_refused_before_it_is_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With what to do."""
    agent = start()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**30))
    assert is_unfit("no room for a model of 5,000 bytes", agent.models.lacks, NEED, 5000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**31))
    assert agent.models.lacks(NEED, 5000)


def test_a_disk_that_fails_in_the_middle_is_the_nodes_fault(cache: Path) -> None:
    """Not the image's: it is rendered elsewhere."""
    agent = start()
    [arriving] = (cache / "picowatch/models/views").glob("*/arriving")
    arriving.rmdir()
    arriving.touch()
    assert is_unfit(f".*{arriving}", agent.models.append, NEED, "", b"piece")


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
