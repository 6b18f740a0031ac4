"""What `docmill doctor` checks: `*_facts` gather facts, `machine_checks` and `service_checks` judge them."""
