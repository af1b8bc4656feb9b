"""Wasm engine, compile cache, stores and their limits."""
