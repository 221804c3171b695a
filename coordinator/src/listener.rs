//! The control endpoint that agents dial.
