"""Reaching a machine: files here; SSH beside it."""
