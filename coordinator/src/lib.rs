//! The coordinator: the service `farmbell-coordinator` and the command
//! `farmbell`. This file only names the modules.
//!
//! Events come in by the listener and by HTTP, the [`driver`] gives them to
//! the farm one by one, the [`store`] makes the changes durable, then the
//! effects are performed. Bulk bytes go from sessions to [`blobs`] and
//! [`logs`], never through the farm.
#![forbid(unsafe_code)]

pub mod backup;
pub mod blobs;
pub mod bulk;
pub mod check;
pub mod cli;
pub mod config;
pub mod disk;
pub mod driver;
pub mod failpoint;
pub mod http;
pub mod inert;
pub mod init;
pub mod listener;
pub mod logs;
pub mod outbox;
pub mod page;
pub mod retire;
pub mod search;
pub mod serve;
pub mod service;
pub mod session;
pub mod specs;
pub mod statedir;
pub mod store;
pub mod tokens;
