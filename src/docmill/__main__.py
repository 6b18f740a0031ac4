"""`python -m docmill`: the same as `docmill`."""

from docmill.cli.main import main

if __name__ == "__main__":
    main()
