"""`python -m durabatch` is the `durabatch` command."""

from durabatch.cli import main

if __name__ == "__main__":
    main()
