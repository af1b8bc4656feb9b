"""Micro-benchmarks of the layers, with pytest-benchmark: python -m pytest benchmarks/micro. Timing fails nothing."""
