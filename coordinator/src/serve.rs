//! Wires and runs the service.
