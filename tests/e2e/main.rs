//! Stories over real daemons on loopback: what a person would see, told with
//! the command line, files that jobs wrote, and the event stream. One file per
//! story; nothing here knows the inside of a daemon.
#![expect(
    clippy::unwrap_used,
    reason = "what these stories are told with is test code too"
)]

mod a_debian_package;
mod agent_killed;
mod backup_restored;
mod builder_panicked;
mod chaos;
mod coordinator_killed;
mod degraded;
mod demo;
mod dependency_wait;
mod disk_low;
mod every_meaning_of_exit;
mod finished_jobs;
mod launcher;
mod log_flood;
mod operators_acts;
mod poison_event;
mod refused_connections;
mod refused_jobs;
mod reset_beside_upload;
mod reset_rules;
mod retired_history;
mod session_ended;
mod signal_barrage;
mod stalled_store;
mod terminal;
mod two_coordinators;
