"""What `doctor` says about torch, cards and drivers, on machines that a stand-in simulates."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from picowatch.engine import torch_check
from picowatch.engine.torch_check import Check


def torch(
    version: str = "2.9.0", cuda: str | None = "12.8", hip: str | None = None, usable: bool = True
) -> Any:
    """A torch of that build, and whether it can use the card."""
    return SimpleNamespace(
        __version__=version,
        version=SimpleNamespace(cuda=cuda, hip=hip),
        cuda=SimpleNamespace(
            is_available=lambda: usable,
        ),
    )


@pytest.mark.parametrize(
    ("card", "build", "said", "remedy"),
    [
        (
            *(True, {"version": "2.9.0+cpu", "cuda": None}),
            *("2.9.0+cpu, built for the CPU, though there is an NVIDIA card", "pytorch.org"),
        ),
        (True, {"usable": False}, "cannot use the NVIDIA card", "Update the driver"),
        (True, {}, "2.9.0, built for CUDA 12.8", ""),
        (False, {"cuda": None}, "2.9.0, built for the CPU", ""),
        (False, {}, "built for CUDA 12.8; there is no NVIDIA card, so the much smaller build", ""),
        (True, {"version": "99.1.0+cu130"}, "99.1.0+cu130 (newer than ", ""),
        (False, {"hip": "6.4", "cuda": None}, "2.9.0, built for ROCm 6.4", ""),
    ],
)
def test_a_torch_has_to_fit_the_card(
    card: bool,
    build: dict[str, Any],
    said: str,
    remedy: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a driver that is too old, torch sees no card; without a card, any build will do."""
    driver = tmp_path / "version"
    if card:
        driver.write_text("NVRM version")
    monkeypatch.setattr(torch_check, "NVIDIA", driver)
    monkeypatch.setattr(torch_check, "WSL", tmp_path / "none")
    found = torch_check._torch(torch(**build))
    assert said in found.text
    assert (remedy in found.remedy) and bool(remedy) == bool(found.remedy)


def test_the_tested_versions_are_those_of_the_constraints() -> None:
    """A newer one is noted: what it draws may differ."""
    pinned = (Path(__file__).parents[2] / "constraints.txt").read_text().splitlines()
    for name, version in torch_check.TESTED.items():
        assert f"{name}=={version}" in pinned
        assert torch_check.noted(name, version) == version


def test_a_card_that_is_in_use() -> None:
    """Little free memory has its remedy."""
    enough = Check("card memory", "20.0 of 24.0 GB of the card's memory are free")
    assert torch_check._gpu_memory(20e9, 24e9) == enough
    assert "nvidia-smi" in torch_check._gpu_memory(1e9, 24e9).remedy


def test_the_device_and_its_precision_are_those_of_the_settings() -> None:
    """A device that is not found comes with its remedy."""
    import torch as real

    device, precision = torch_check._devices(real, "cpu", "float32", 1)
    assert device.text.startswith("cpu, ")
    assert precision.text == "float32 (precision: float32)"
    if not real.backends.mps.is_available():
        (found,) = torch_check._devices(real, "mps", "auto", 1)
        assert found.remedy.startswith("Set device: auto")
