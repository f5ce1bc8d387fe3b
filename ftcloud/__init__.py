"""ftcloud: fine-tune an open-weight LLM on a rented GPU, knowing the price before paying it."""

from dispatcher.version import VERSION as __version__

__all__ = ["__version__"]
