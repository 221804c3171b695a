//! Acts on jobs, one or many, and on the queue.

use serde::{Deserialize, Deserializer, Serialize};

/// What is done to a job, with its parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobActSpec {
    Cancel,
    Supersede,
    Suspend,
    Resume,
    /// The score, frozen from now on.
    SetPriority(i32),
    /// A new generation of a finished job.
    Retry,
}

/// The body of `POST jobs/ID/act`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobActRequest {
    pub act: JobActSpec,
    /// Stands in the history.
    #[serde(default)]
    pub reason: String,
}

/// The same to every job that matches all that is given: finished ones are
/// retried; everything else is done to those that are unfinished or wait for
/// packages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BulkRequest {
    pub filter: FilterSpec,
    pub act: JobActSpec,
    #[serde(default)]
    pub reason: String,
}

/// Which jobs; it has to name something.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FilterSpec {
    pub owner: Option<String>,
    pub submission: Option<String>,
    pub architecture: Option<String>,
    /// The whole name.
    pub name: Option<String>,
    /// The beginning of the name.
    pub begins: Option<String>,
    /// How finished jobs ended: `succeeded`, `failed`, `cancelled`,
    /// `superseded`, `infrastructure`; or of the failed `dependency_wait`,
    /// `chroot_problem`. Superseded ones are retried only if named so.
    pub verdict: Option<String>,
    /// Only those that wait for a builder.
    pub waiting: bool,
}

/// A bulk operation; unless it is finished it goes on, whatever restarts, and
/// the event stream tells its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BulkView {
    pub operation: u64,
    /// Jobs that match, as far as it is.
    pub matched: u64,
    /// Jobs changed so far.
    pub changed: u64,
    pub finished: bool,
}

/// A Debian package that can be had from now on: jobs whose builds lacked it
/// run again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackageRequest {
    pub name: String,
    /// The whole version, with its epoch.
    pub version: String,
    /// `all` for packages without one.
    pub architecture: String,
    #[serde(default)]
    pub suite: String,
}

/// Jobs below a score do not start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrakeRequest {
    /// `null`: every architecture.
    #[serde(default)]
    pub architecture: Option<String>,
    /// `null` lifts it; left out, it would mean nothing.
    #[serde(deserialize_with = "nullable")]
    pub least: Option<i32>,
    #[serde(default)]
    pub reason: String,
}

/// A field that may be `null`, but has to be there.
fn nullable<'de, D: Deserializer<'de>>(field: D) -> Result<Option<i32>, D::Error> {
    Option::deserialize(field)
}

/// A brake that is set: jobs below a score do not start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetBrake {
    /// `null`: every architecture.
    pub architecture: Option<String>,
    pub least: i32,
}

impl SetBrake {
    /// What it does.
    pub(crate) fn words(&self) -> String {
        let least = self.least;
        match &self.architecture {
            Some(of) => format!("on {of}, jobs below {least} do not start"),
            None => format!("on every architecture, jobs below {least} do not start"),
        }
    }

    /// What to type to end it.
    pub(crate) fn lift(&self) -> String {
        let of = self.architecture.as_ref();
        of.map_or_else(
            || "farmbell brake --lift".to_owned(),
            |of| format!("farmbell brake --lift --arch {of}"),
        )
    }
}

/// What starts since a brake was set or lifted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrakeView {
    /// `null`: every architecture.
    pub architecture: Option<String>,
    /// What was asked for; `null`: lifted.
    pub least: Option<i32>,
    /// The least score that starts there now, more where the brake on every
    /// architecture is higher; `null`: everything starts.
    pub effective: Option<i32>,
    /// Jobs held or let go so far.
    pub changed: u64,
}
