"""One module per engine, behind one protocol: `docmill.worker.engines.base.Engine`."""
