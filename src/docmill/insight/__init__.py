"""Judgements on what was measured: doctor, tune, reports, traces. The queries are in `docmill.storage.reads`."""
