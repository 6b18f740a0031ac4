"""A stand-in for the compiled module of exllamav2 0.3.2: its kernels in PyTorch, on a CPU. For tests only.

The package's own `ext.py` imports this, and the import puts the fake devices in place. `calls` counts the kernels
that ran. A kernel that is not here raises NotImplementedError when it is called.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from functools import wraps
from typing import Any

if "exllamav2.device" not in sys.modules:
    raise ImportError("import exllamav2: it imports this stand-in at the moment when the placement can be changed")

from cpu_stand_in import cache, kernels, placement, sampling

calls: Counter[str] = Counter()


def _counted(kernel: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(kernel)
    def counting(*args: Any, **kwargs: Any) -> Any:
        calls[kernel.__name__] += 1
        return kernel(*args, **kwargs)

    return counting


for _module in (kernels, cache, sampling):
    for _name in _module.KERNELS:
        globals()[_name] = _counted(getattr(_module, _name))

placement.install()


def __getattr__(name: str) -> Callable[..., Any]:
    if name.startswith("__"):
        raise AttributeError(name)

    def missing(*args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"exllamav2_ext.{name} is not in the CPU stand-in")

    return missing
