"""`python -m ftcloud`."""

from dispatcher.cli.main import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
