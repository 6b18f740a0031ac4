"""The database: tables, states, and every transaction of docmill. It imports `docmill.settings` only.

- `tables` is the data dictionary, `states` names the states, `attempt_metrics` lists what an attempt measures.
- `moves` has every transaction that changes state, grouped by who makes it: workers (`jobs`, `attempts`,
  `workers`), submissions (`new_batches`, `new_jobs`, `submitter_lock`), dispatchers (`announce`, `rescue`,
  `documents`, `finish_batches`) and users (`batches`, `requeue_failed`). `counters` and `batch_state` are shared.
- `reads` has queries that change nothing; `views` reads the views for users' SQL and exports.
- `database` opens connections, `schema` runs the migrations, `hosts` restricts a SQLite database to one host.
"""
