//! How the command ends: a documented exit code, and for every failure the
//! cause, the fix and the command to type. Owns the codes; scripts rely on
//! them, so they never change.

use std::io;

use crate::http::wire::{Code, JobView, Problem};
use crate::inert;

/// What `$?` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Exit {
    Ok = 0,
    /// The build failed, was cancelled or superseded.
    Failed = 1,
    /// The command line or the job is wrong.
    Usage = 2,
    NotFound = 3,
    NotAllowed = 4,
    Unreachable = 5,
    /// `--timeout` was up; the job goes on.
    TimedOut = 6,
    /// The farm's present state or a limit is in the way.
    Refused = 7,
    /// The farm or this host is at fault, not the build.
    Infrastructure = 8,
    /// Ctrl-C; the job goes on.
    Interrupted = 130,
}

impl Exit {
    #[must_use]
    pub(super) const fn number(self) -> u8 {
        self as u8
    }
}

/// The table that `--help` shows.
pub(super) const TABLE: &str = "Exit codes:
  0    done; with --wait or --follow: the build succeeded
  1    the build failed, was cancelled or superseded
  2    the command line or the job is wrong
  3    no such job, builder, agent, token or artifact
  4    not allowed
  5    the coordinator cannot be reached
  6    the time to wait was up; the job goes on
  7    refused: the farm's present state or a limit is in the way
  8    the farm or this host is at fault, not the build
  130  interrupted; the job goes on";

/// Why the command did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{cause}")]
pub(super) struct Failure {
    pub exit: Exit,
    pub cause: String,
    pub fix: String,
    /// A line to paste.
    pub command: Option<String>,
}

pub(super) type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    pub(super) fn new(exit: Exit, cause: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            exit,
            cause: cause.into(),
            fix: fix.into(),
            command: None,
        }
    }

    pub(super) fn usage(cause: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(Exit::Usage, cause, fix)
    }

    pub(super) fn try_this(mut self, command: impl Into<String>) -> Self {
        self.command = Some(command.into());
        self
    }

    /// A file of this host could not be used.
    pub(super) fn file(path: &std::path::Path, e: &io::Error) -> Self {
        let cause = format!("{}: {e}", path.display());
        if e.kind() == io::ErrorKind::NotFound {
            return Self::usage(cause, "Check the path.");
        }
        if e.kind() == io::ErrorKind::PermissionDenied {
            return Self::usage(
                cause,
                "Make the file accessible to you, or give another path.",
            );
        }
        Self::new(
            Exit::Infrastructure,
            cause,
            "Mend the disk or its file system.",
        )
    }

    pub(super) fn output(e: &io::Error) -> Self {
        if e.kind() == io::ErrorKind::BrokenPipe {
            // The reader has seen enough, as `head` does.
            return Self::new(Exit::Ok, "", "");
        }
        Self::new(
            Exit::Infrastructure,
            format!("the output could not be written: {e}"),
            "Check where the output goes.",
        )
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        let exit = match problem.code {
            Code::NotFound => Exit::NotFound,
            Code::Ambiguous | Code::Invalid => Exit::Usage,
            Code::Unauthorized | Code::Forbidden => Exit::NotAllowed,
            Code::Conflict | Code::Unmatched | Code::Limit | Code::Suspect => Exit::Refused,
            Code::Corrupt | Code::Stalled | Code::Unavailable | Code::Internal => {
                Exit::Infrastructure
            }
        };
        let mut fix = problem.fix;
        if !problem.candidates.is_empty() {
            fix = format!("{fix}\n  {}", problem.candidates.join("\n  "));
        }
        Self::new(exit, problem.cause, fix)
    }
}

/// The exit code that a finished job stands for.
pub(super) fn of_job(job: &JobView) -> Exit {
    match job.verdict.as_ref().map(|v| v.verdict.as_str()) {
        Some("succeeded") => Exit::Ok,
        Some("infrastructure") => Exit::Infrastructure,
        Some(_) => Exit::Failed,
        None => Exit::Ok,
    }
}

/// The failure as it stands on the terminal, without its colour.
pub(super) fn text(failure: &Failure) -> String {
    let cause = inert::lines(failure.cause.as_bytes());
    match advice(failure) {
        advice if advice.is_empty() => cause,
        advice => format!("{cause}\n{advice}"),
    }
}

/// What to do about it, without the cause.
pub(super) fn advice(failure: &Failure) -> String {
    let mut lines = Vec::new();
    if !failure.fix.is_empty() {
        lines.push(format!("fix: {}", inert::lines(failure.fix.as_bytes())));
    }
    if let Some(command) = &failure.command {
        lines.push(format!("try: {}", inert::line(command)));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_cause_fix_and_command_and_nothing_hostile() {
        let failure = Failure::usage("no file 'a\u{1b}[2J'", "Check the path.").try_this("ls");
        assert_eq!(
            text(&failure),
            "no file 'a␛[2J'\nfix: Check the path.\ntry: ls"
        );
    }

    #[test]
    fn an_ambiguous_prefix_lists_what_it_could_mean() {
        let mut problem = Problem::new(Code::Ambiguous, "'k' names 2 jobs", "Give more letters:");
        problem.candidates = vec!["k1".into(), "k2".into()];
        let failure = Failure::from(problem);
        assert_eq!(failure.exit, Exit::Usage);
        assert_eq!(failure.fix, "Give more letters:\n  k1\n  k2");
    }
}
