//! Makes a state directory.
