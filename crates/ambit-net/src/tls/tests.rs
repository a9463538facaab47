//! Handshakes over real sockets; the corpus of hostile certificates lives in the workspace's tests.
