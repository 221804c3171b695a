//! The farmbell command.
