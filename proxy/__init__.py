"""Penstock: an aiohttp reverse proxy that runs an ordered chain of proxy-wasm filters it does not trust."""
