"""ftcloud: fine-tune an open-weight LLM on a rented GPU, knowing the price before paying it."""

from dispatcher.version import VERSION

__version__ = VERSION

__all__ = ["__version__"]
