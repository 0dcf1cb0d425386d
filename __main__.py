"""`python -m durabatch` is the `durabatch` command."""

from durabatch.clients.command import main

if __name__ == "__main__":
    main()
