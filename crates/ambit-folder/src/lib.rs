//! ambit-folder.
