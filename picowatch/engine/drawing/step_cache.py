"""`step_cache: true`: blocks of a transformer that change little between steps are not computed.

cache-dit computes the first block of each step, and reuses what the others did to the picture in an
earlier step if the first changed little since. The numbers are those of SGLang (docs/speed.md).
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from picowatch.engine.drawing.callbacks import FlowSteps
from picowatch.engine.private import forget_hooked_forward
from picowatch.errors import RenderFailed, install_command

_ALWAYS = 4  # steps at the beginning of a picture
_NUMBERS = {
    "Fn_compute_blocks": 1,
    "Bn_compute_blocks": 0,
    "residual_diff_threshold": 0.24,
    "max_continuous_cached_steps": 3,
}


def need_cache_dit() -> None:
    """Raise RenderFailed if cache-dit is not installed."""
    if find_spec("cache_dit") is None:
        raise RenderFailed(
            "step_cache needs cache-dit, which is not installed.",
            f"Type: {install_command('cache')}. Or remove step_cache from the recipe.",
        )


@contextmanager
def restored(denoiser: Any) -> Iterator[None]:
    """Restore the denoiser at the end: cache-dit itself would leave other methods behind."""
    before = [(module, dict(vars(module))) for module in denoiser.modules()]
    try:
        yield
    finally:
        for module, own in before:
            vars(module).clear()
            vars(module).update(own)


class CachedSteps(FlowSteps):
    """A transformer that caches once it is known how often the pipeline calls it in a step.

    With guidance some pipelines call it twice, each time with half of the image's prompts.
    """

    _calls = 0  # in the first step
    _is_first = True

    def __call__(self, *given: Any, **named: Any) -> Any:
        self._calls += self._is_first
        return super().__call__(*given, **named)

    def tell_step(self) -> None:
        """Tell the step; after the first, begin to cache."""
        super().tell_step()
        if self._is_first:
            _enable(self._module, twice=self._calls == 2)
        self._is_first = False


def _enable(denoiser: Any, *, twice: bool) -> None:
    """Let cache-dit compute the denoiser's blocks from its second step on."""
    os.environ.setdefault("CACHE_DIT_LOG_LEVEL", "error")  # it would print on standard output
    cache_dit, cached = import_module("cache_dit"), denoiser
    forget_hooked_forward(denoiser)
    if type(denoiser).__name__ == "SD3Transformer2DModel":  # it knows the pipeline's name only
        blocks, pattern = denoiser.transformer_blocks, cache_dit.ForwardPattern.Pattern_1
        cached = cache_dit.BlockAdapter(
            transformer=denoiser, blocks=blocks, forward_pattern=pattern
        )
    config = cache_dit.DBCacheConfig(
        max_warmup_steps=_ALWAYS - 1, enable_separate_cfg=twice, **_NUMBERS
    )
    cache_dit.enable_cache(cached, cache_config=config)
