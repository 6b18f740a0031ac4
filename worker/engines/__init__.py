"""One file an engine, behind one Protocol (`docmill.worker.engines.base.Engine`)."""
