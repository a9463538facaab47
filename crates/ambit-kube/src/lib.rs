//! A Kubernetes API server as a source of objects, and as a place to write them.
