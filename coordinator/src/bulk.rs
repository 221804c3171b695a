//! Bulk streams: logs, artifacts and inputs between agents and the disk.
