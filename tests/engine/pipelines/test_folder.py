"""Parts of diffusers folders as they are read."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from picowatch.catalog.models import Part
from picowatch.engine.pipelines.folder import read_part
from picowatch.engine.pipelines.samplers import scheduler_for


def test_a_scheduler_with_beta_sigmas_needs_no_scipy(tmp_path: Path) -> None:
    """At even quantiles of the beta distribution, from the first to the last noise level."""
    config = {"_class_name": "FlowMatchEulerDiscreteScheduler", "use_beta_sigmas": True}
    (tmp_path / "scheduler_config.json").write_text(json.dumps(config))
    part = Part("scheduler", "FlowMatchEulerDiscreteScheduler", tmp_path)
    scheduler = read_part(part, torch.float32, torch.device("cpu"))
    for sampler in ("Euler", "UniPC"):
        _check_levels(scheduler_for(sampler, scheduler))


def _check_levels(scheduler: Any) -> None:
    assert scheduler.config.use_beta_sigmas
    scheduler.set_timesteps(sigmas=[1.0, 0.8, 0.6, 0.4, 0.2])
    levels = (scheduler.sigmas[:-1].double().numpy() - 0.2) / 0.8
    # The share of the distribution below each, by the sum over many thin slices.
    x = np.linspace(0, 1, 2_000_001)[1:-1]
    mass = np.cumsum((x * (1 - x)) ** (0.6 - 1))
    shares = np.interp(levels, x, mass / mass[-1])
    assert shares == pytest.approx([1, 0.75, 0.5, 0.25, 0], abs=1e-3)
