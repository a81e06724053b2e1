"""Which cards a build of torch has code for."""

import pytest

from picowatch.engine.torch_check import range_of, remedy_for, runs_on

# torch.cuda.get_arch_list() of torch 2.9's builds.
CU126 = ["sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90"]
CU128 = ["sm_70", "sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]
CU130 = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120"]


@pytest.mark.parametrize(
    ("card", "build", "runs"),
    [
        ((6, 1), CU126, True),  # GTX 1080 on code for 6.0
        ((6, 1), CU128, False),
        ((5, 2), CU126, True),
        ((7, 0), CU128, True),
        ((7, 0), CU130, False),
        ((8, 9), CU130, True),  # RTX 4090 on code for 8.6
        ((12, 1), CU130, True),
        ((13, 0), CU130, True),  # by PTX
        ((13, 0), CU128, False),
        ((9, 0), ["sm_90a"], True),
        ((9, 0), [], False),
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


def test_what_a_build_is_for_is_said_in_short() -> None:
    """From the oldest to the newest."""
    assert range_of(CU130) == "7.5 to 12.0"
    assert range_of(["sm_90"]) == "9.0"
    assert range_of(["gfx90a"]) == "no card"
