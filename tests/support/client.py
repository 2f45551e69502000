"""The client of the examples, which the tests use as well."""
from examples.client import TrytonClient

__all__ = ['TrytonClient']
