"""A host whose clock is wrong: put this directory on PYTHONPATH and set CHAOS_SKEW_S to seconds."""

import os
import time

_skew_s = float(os.environ.get("CHAOS_SKEW_S", "0"))
if _skew_s:
    _time, _time_ns = time.time, time.time_ns
    time.time = lambda: _time() + _skew_s
    time.time_ns = lambda: _time_ns() + int(_skew_s * 1e9)
