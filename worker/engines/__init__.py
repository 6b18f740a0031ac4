"""One file an engine, behind one Protocol (`worker.engines.base.Engine`)."""
