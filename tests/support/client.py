"""The client of the examples is also the tests'."""
from examples.client import TrytonClient

__all__ = ['TrytonClient']
