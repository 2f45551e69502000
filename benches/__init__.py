"""Benchmarks of the stock bus and of ours, side by side in one run."""
