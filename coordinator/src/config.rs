//! The coordinator's configuration: one TOML file.
