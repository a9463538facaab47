//! ambit-xds.
