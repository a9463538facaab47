//! Tunnels over loopback are tested with real certificates in the workspace tests.
