"""Filters that are WebAssembly components: the world of wit/, its values, and their place in the chain."""
