"""HTTP/1.1 framing that the parser keeps to itself: pure, without sockets."""
