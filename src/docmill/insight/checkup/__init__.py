"""What `docmill doctor` checks: `services` and `software` gather facts, `checks` and `service_checks` judge them."""
