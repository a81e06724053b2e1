"""Many cases of few kinds: `make test` runs one of each kind, `make test-heavy` the others.

A change that breaks a kind fails at once; one that breaks a single case of it fails in CI.
"""

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def one_of_each_kind(cases: Iterable[Any], in_each_run: Collection[Any]) -> list[Any]:
    """Return all cases for `parametrize`; those that are not `in_each_run` are marked as heavy.

    Raises ValueError if one of `in_each_run` is not a case, for example because it was renamed.
    """
    cases = list(cases)
    if unknown := [name for name in in_each_run if name not in cases]:
        raise ValueError(f"no such cases: {unknown}")
    return [case if case in in_each_run else _heavy(case) for case in cases]


def _heavy(case: Any) -> Any:
    values = case if isinstance(case, tuple) else (case,)
    return pytest.param(*values, marks=pytest.mark.heavy)
