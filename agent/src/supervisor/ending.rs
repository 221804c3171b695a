//! How a run comes to its end: who asked, TERM, grace, KILL, and what is said
//! when even KILL does not help. Owns the deadlines of the way down and the
//! words of the exit record.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use farmbell_protocol::bounded::Reason;
use farmbell_protocol::builder::EndReport;
use farmbell_protocol::outcome::{FailureKind, Outcome, Usage};
use nix::fcntl::OFlag;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;

use super::Supervisor;
use crate::attempt::{ExitRecord, Request};
use crate::mask::Masker;
use crate::recipes;

/// A process that lives this long after KILL hangs in the kernel.
const KILL_PATIENCE: Duration = Duration::from_secs(10);
/// One line for a person.
const REASON_MAX: u64 = 1024;
/// The unit of block counts in `getrusage`.
const BLOCK_BYTES: u64 = 512;

/// Why a run is ended from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    Asked,
    Limit(Reason),
    /// The host goes down.
    GoingDown,
}

#[derive(Debug, Default)]
pub(super) struct Ending {
    cause: Option<Cause>,
    kill_at: Option<Instant>,
    killed_at: Option<Instant>,
    gave_up: bool,
    not_started: Option<Outcome>,
}

impl Ending {
    pub(super) fn is_not_begun(&self) -> bool {
        self.kill_at.is_none() && self.killed_at.is_none()
    }

    pub(super) fn is_killing(&self) -> bool {
        self.killed_at.is_some()
    }

    /// `true` for the first cause, which alone counts.
    pub(super) fn begin(&mut self, cause: Cause, kill_at: Instant) -> bool {
        let first = self.is_not_begun();
        if first {
            self.cause = Some(cause);
            self.kill_at = Some(kill_at);
        }
        first
    }

    pub(super) fn shorten(&mut self, kill_at: Instant) {
        self.kill_at = self.kill_at.map(|at| at.min(kill_at));
    }

    pub(super) fn kill_is_due(&self, now: Instant) -> bool {
        self.killed_at.is_none() && self.kill_at.is_some_and(|at| now >= at)
    }

    pub(super) fn kill_now(&mut self, now: Instant) {
        self.kill_at = None;
        self.killed_at.get_or_insert(now);
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let patience = self
            .killed_at
            .filter(|_| !self.gave_up)
            .map(|at| at + KILL_PATIENCE);
        [self.kill_at, patience].into_iter().flatten().min()
    }

    /// Once, when killing has not helped.
    pub(super) fn give_up(&mut self, now: Instant) -> Option<Reason> {
        let due = self.killed_at.is_some_and(|at| now >= at + KILL_PATIENCE);
        if !due || self.gave_up {
            return None;
        }
        self.gave_up = true;
        Some(Reason::cut(format!(
            "processes of the build live on {} s after KILL; restart the host",
            KILL_PATIENCE.as_secs()
        )))
    }

    pub(super) fn not_started(&mut self, request: &Request, error: &io::Error) {
        let program = request.argv.first().map_or("", String::as_str);
        let why = Reason::cut(format!("'{program}' cannot be started: {error}"));
        self.not_started = Some(if request.argv_is_the_jobs {
            let kind = FailureKind::Build;
            Outcome::Failed { kind, why }
        } else {
            Outcome::BuilderProblem { why }
        });
    }
}

impl Supervisor {
    /// The record of a run whose tree is empty; its log is durable.
    pub(super) fn exit_record(&mut self, now: Instant) -> anyhow::Result<ExitRecord> {
        let outcome = self.outcome();
        if let Outcome::Failed { why, .. } | Outcome::BuilderProblem { why } = &outcome
            && self.exit.is_none()
        {
            let line = format!("farmbell: {why}\n");
            self.store(line.as_bytes(), now)?;
        }
        let usage = self.usage(now);
        let log = self.log.finish(now).context("the log cannot be written")?;
        if let Some(group) = self.tree.entered() {
            group.remove();
        }
        let exit = self.exit;
        Ok(ExitRecord {
            report: EndReport {
                outcome,
                exit,
                usage,
            },
            log,
        })
    }

    fn outcome(&self) -> Outcome {
        if let Some(outcome) = &self.ending.not_started {
            return outcome.clone();
        }
        match &self.ending.cause {
            Some(Cause::Asked) => return Outcome::Aborted,
            Some(Cause::Limit(why)) => return limit(why.clone()),
            Some(Cause::GoingDown) => {
                let why = Reason::cut("the host went down while it ran");
                return Outcome::GivenBack { why };
            }
            None => {}
        }
        let Some(exit) = self.exit else {
            let why = Reason::cut("nobody saw how the recipe ended");
            return Outcome::SupervisorLost { why };
        };
        let outcome = recipes::meaning(exit, self.reason());
        let group = self.tree.entered();
        if outcome != Outcome::Succeeded
            && group.is_some_and(crate::groups::Group::memory_was_exceeded)
        {
            let bytes = self.request.bounds.memory_bytes;
            return limit(Reason::cut(format!(
                "it used more memory than its limit of {bytes} bytes"
            )));
        }
        outcome
    }

    /// What the recipe left in its reason file, which may be anything.
    fn reason(&self) -> Option<Reason> {
        let file = File::options()
            .read(true)
            .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
            .open(self.dir.reason())
            .ok()?;
        if !file.metadata().ok()?.is_file() {
            return None;
        }
        let mut bytes = Vec::new();
        file.take(REASON_MAX).read_to_end(&mut bytes).ok()?;
        let mut masker = Masker::new(super::secret_values(&self.request).ok()?);
        let mut masked = Vec::new();
        masker.feed(&bytes, &mut masked);
        masker.finish(&mut masked);
        let text = String::from_utf8_lossy(&masked);
        let line = text.lines().next()?.trim();
        (!line.is_empty()).then(|| Reason::cut(line))
    }

    fn usage(&self, now: Instant) -> Usage {
        let wall_ms = u64::try_from((now - self.began).as_millis()).unwrap_or(u64::MAX);
        let Ok(used) = getrusage(UsageWho::RUSAGE_CHILDREN) else {
            return Usage {
                wall_ms,
                ..Usage::default()
            };
        };
        let number = |count: i64| u64::try_from(count).unwrap_or(0);
        let cpu = used.user_time().num_milliseconds() + used.system_time().num_milliseconds();
        let largest = number(used.max_rss()) << 10;
        let counted = self
            .tree
            .entered()
            .and_then(crate::groups::Group::memory_peak);
        Usage {
            wall_ms,
            cpu_ms: number(cpu),
            memory_peak_bytes: counted.unwrap_or(0).max(largest),
            read_bytes: number(used.block_reads()) * BLOCK_BYTES,
            written_bytes: number(used.block_writes()) * BLOCK_BYTES,
        }
    }
}

fn limit(why: Reason) -> Outcome {
    let kind = FailureKind::Limit;
    Outcome::Failed { kind, why }
}
