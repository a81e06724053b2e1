"""How much memory is free: the computer's, or less where a container has a limit."""

from pathlib import Path

import pytest
import torch

from picowatch.engine.memory import usage

CPU = torch.device("cpu")


def cgroup(folder: Path, limit: str) -> Path:
    """A container's files: 1 GiB used, a quarter of it pages of files."""
    (folder / "memory.max").write_text(limit + "\n")
    (folder / "memory.current").write_text(f"{2**30}\n")
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {2**28}\nactive_file 7\n")
    return folder


@pytest.mark.parametrize(
    ("limit", "left"), [(str(3 * 2**30), 2 * 2**30 + 2**28), ("max", 2**63), ("junk", 2**63)]
)
def test_a_containers_limit_counts(tmp_path: Path, limit: str, left: int) -> None:
    """What is used is taken off it, pages of files are not."""
    assert usage._left_to_container(cgroup(tmp_path, limit)) == left


def test_without_a_container_the_computers_memory_counts(tmp_path: Path) -> None:
    """There is some."""
    assert usage._left_to_container(tmp_path) == 2**63
    assert 0 < usage.free_bytes(CPU) < 2**60
