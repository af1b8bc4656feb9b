"""Filter ABIs: the stream memory they share, and proxy-wasm."""
