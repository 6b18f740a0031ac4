"""`python -m cli`: the same as `docmill`."""

from cli.main import main

if __name__ == "__main__":
    main()
