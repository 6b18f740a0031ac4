"""What `docmill doctor` looks at: facts are gathered in one module and judged in another."""
