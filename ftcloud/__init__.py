"""ftcloud: fine-tune an open-weight LLM on a rented GPU, knowing the price before paying it."""

__version__ = "0.1.0"
__all__ = ["__version__"]
