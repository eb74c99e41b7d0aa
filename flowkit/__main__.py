"""`python -m flowkit`: the command, where its script isn't on the path."""

from flowkit.cli import main

if __name__ == "__main__":
    main()
