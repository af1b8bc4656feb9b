"""The proxy-wasm ABI: versions 0.1.0, 0.2.0 and 0.2.1."""
