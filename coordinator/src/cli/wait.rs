//! Waiting for verdicts. The coordinator answers when there is one; nothing is
//! asked twice unless the connection is lost.

use std::future::Future;

use super::Context;
use super::client::{Retries, Trouble, segment};
use super::exit::{self, Exit, Failure, Result};
use crate::http::wire::{JobView, WaitView};

/// Waits until the job has a verdict, at most `timeout_ms`.
pub(super) async fn verdict(
    context: &Context,
    id: &str,
    timeout_ms: Option<u64>,
) -> Result<JobView> {
    let mut path = format!("/api/v1/jobs/{}/wait", segment(id));
    if let Some(ms) = timeout_ms {
        path.push_str(&format!("?timeout_ms={ms}"));
    }
    let mut retries = Retries::default();
    let answer = loop {
        match context.client.try_get::<WaitView>(&path).await {
            Ok(answer) => break answer,
            Err(Trouble::Answer(failure)) => return Err(failure),
            Err(Trouble::Cut(failure)) => retries.pause(failure).await?,
        }
    };
    if answer.done {
        return Ok(answer.job);
    }
    Err(Failure::new(
        Exit::TimedOut,
        format!("job {id} is still {}; it goes on", answer.job.state),
        "Wait longer, or look why.",
    )
    .try_this(format!("farmbell job explain {id}")))
}

/// Does `work` unless Ctrl-C comes first; the jobs go on then.
pub(super) async fn or_interrupt<T>(
    jobs: &[String],
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let interrupted = || {
        let ids = jobs.join(" ");
        let (noun, verb) = if jobs.len() == 1 {
            ("job", "goes")
        } else {
            ("jobs", "go")
        };
        Failure::new(
            Exit::Interrupted,
            format!("interrupted; {noun} {ids} {verb} on"),
            "To stop the work as well, cancel it.",
        )
        .try_this(format!("farmbell job cancel {ids}"))
    };
    tokio::select! {
        done = work => done,
        signal = tokio::signal::ctrl_c() => match signal {
            Ok(()) => Err(interrupted()),
            Err(e) => Err(Failure::new(
                Exit::Infrastructure,
                format!("Ctrl-C cannot be listened for: {e}"),
                "Use --output json and job wait in a script instead.",
            )),
        },
    }
}

/// The exit code of several jobs together: what is worse for the submitter.
pub(super) fn worst(jobs: &[JobView]) -> Exit {
    jobs.iter()
        .map(exit::of_job)
        .max_by_key(|exit| exit.number())
        .unwrap_or(Exit::Ok)
}
