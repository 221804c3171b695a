//! The file as it is written. Only shapes: what they mean is `config.rs`'s.

use std::path::PathBuf;

use serde::Deserialize;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct File {
    pub(super) name: Option<String>,
    pub(super) state: Option<PathBuf>,
    pub(super) recipes: Vec<PathBuf>,
    pub(super) secrets: Option<PathBuf>,
    pub(super) chroots: Option<PathBuf>,
    pub(super) limits: Limits,
    pub(super) builder: Vec<Builder>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct Builder {
    pub(super) name: Option<String>,
    pub(super) architectures: Option<Vec<String>>,
    pub(super) tags: Vec<String>,
    pub(super) restricted_tags: Vec<String>,
    pub(super) virtualized: bool,
    pub(super) reset_scope: Scope,
    pub(super) reset: Option<Vec<String>>,
    pub(super) reset_timeout_s: Option<u64>,
    pub(super) probe: Option<Vec<String>>,
    pub(super) probe_timeout_s: Option<u64>,
    pub(super) backlog: Option<u16>,
    pub(super) disk_low_bytes: Option<u64>,
    pub(super) limits: Limits,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Scope {
    #[default]
    Workspace,
    Guest,
    Host,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct Limits {
    pub(super) total_s: Option<u64>,
    pub(super) silence_s: Option<u64>,
    pub(super) grace_s: Option<u64>,
    pub(super) memory_bytes: Option<u64>,
    pub(super) processes: Option<u32>,
    pub(super) cpu_millis: Option<u32>,
    pub(super) log_bytes: Option<u64>,
    pub(super) outputs: Option<u32>,
    pub(super) output_bytes: Option<u64>,
}
