"""What `doctor` says about torch, cards and drivers, on machines that a stand-in simulates."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from picowatch.engine import torch_check
from picowatch.engine.devices import range_of, remedy_for, runs_on
from picowatch.engine.torch_check import Check


def torch(
    version: str = "2.9.0", cuda: str | None = "12.8", hip: str | None = None, **card: Any
) -> Any:
    """A torch of that build, on a machine with that card."""
    values = {"capability": (8, 6), "built_for": ["sm_86"], "memory": (20e9, 24e9), "usable": True}
    values |= card
    return SimpleNamespace(
        __version__=version,
        version=SimpleNamespace(cuda=cuda, hip=hip),
        cuda=SimpleNamespace(
            is_available=lambda: values["usable"],
            get_device_capability=lambda device: values["capability"],
            get_arch_list=lambda: values["built_for"],
            mem_get_info=lambda device: values["memory"],
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


def test_a_card_that_is_in_use() -> None:
    """Little free memory has its remedy."""
    assert torch_check._gpu_memory(torch(), None) == Check(
        "card memory", "20.0 of 24.0 GB of the card's memory are free"
    )
    assert "nvidia-smi" in torch_check._gpu_memory(torch(memory=(1e9, 24e9)), None).remedy


def test_the_device_and_its_precision_are_those_of_the_settings() -> None:
    """A device that is not found comes with its remedy."""
    import torch as real

    device, precision = torch_check._devices(real, "cpu", "float32", 1)
    assert device.text.startswith("cpu, ")
    assert precision.text == "float32 (precision: float32)"
    if not real.backends.mps.is_available():
        (found,) = torch_check._devices(real, "mps", "auto", 1)
        assert found.remedy == "Set device: auto."


def devices_named(*names: str) -> Any:
    """`choose_target` on a machine with these devices."""

    def choose(device: str, precision: str, ordinal: int = 0) -> Any:
        name = names[ordinal % len(names)]
        kind = SimpleNamespace(type=name.partition(":")[0])
        return SimpleNamespace(device=kind, name=name, dtype=None, large_unet_dtype=None)

    return choose


@pytest.mark.parametrize(
    ("devices", "engines", "text", "ok"),
    [
        (("cpu",), 2, "2, 4 threads each", True),
        (("cpu",), 9, "9 engines for 8 threads: they slow each other down", False),
        (("cuda:0", "cuda:1"), 2, "2, a device each", True),
        (
            ("cuda:0",),
            2,
            "2 engines share 1 device, and each holds its own checkpoint there",
            False,
        ),
        (("cuda:0", "cuda:1"), 4, "4 engines share 2 devices", False),
    ],
)
def test_several_engines_and_what_there_is_for_them(
    devices: tuple[str, ...],
    engines: int,
    text: str,
    ok: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each device is named, and how they are shared."""
    monkeypatch.setattr("picowatch.engine.devices.choose_target", devices_named(*devices))
    monkeypatch.setattr("picowatch.engine.devices.precision_name", lambda dtype: "float16")
    stand_in = torch()
    stand_in.get_num_threads = lambda: 8
    found = list(torch_check._devices(stand_in, "auto", "auto", engines))
    assert [one.text.split()[0].strip(",") for one in found if one.name == "device"] == [*devices]
    (shared,) = (one for one in found if one.name == "engines")
    assert shared.text.startswith(text)
    assert shared.ok == ok


# torch.cuda.get_arch_list() of torch 2.9's builds.
CU126 = ["sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90"]
CU128 = ["sm_70", "sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]
CU130 = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120"]


@pytest.mark.parametrize(
    ("card", "build", "runs"),
    [
        ((6, 1), CU126, True),  # GTX 1080 on code for 6.0
        ((6, 1), CU128, False),
        ((7, 0), CU130, False),
        ((8, 9), CU130, True),  # RTX 4090 on code for 8.6
        ((13, 0), CU130, True),  # by PTX
        ((13, 0), CU128, False),
        ((9, 0), ["sm_90a"], True),
        ((9, 0), ["gfx90a"], False),
    ],
)
def test_code_runs_on_later_cards_of_its_generation(
    card: tuple[int, int], build: list[str], runs: bool
) -> None:
    """And PTX on all later ones."""
    assert runs_on(card, build) is runs


def test_old_cards_are_told_the_last_build_for_them() -> None:
    """Pascal and Maxwell: CUDA 12.6; what is too new for a build needs a newer one."""
    assert "cu126" in remedy_for((6, 1))
    assert "newer build" in remedy_for((13, 0))
    assert range_of(CU130) == "7.5 to 12.0"
    assert range_of(["gfx90a"]) == "no card"
