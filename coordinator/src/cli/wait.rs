//! Waiting for verdicts. The coordinator answers when there is one; nothing is
//! asked twice unless the connection is lost or the coordinator's own time for
//! a question, a day, is over.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

use super::Context;
use super::client::{Retries, Trouble, segment};
use super::exit::{self, Exit, Failure, Result};
use crate::http::wire::{JobView, WaitView};

/// When a command that waits this long gives up; never, where no clock counts
/// so far.
pub(super) fn until(timeout_ms: Option<u64>) -> Option<Instant> {
    timeout_ms.and_then(|ms| Instant::now().checked_add(Duration::from_millis(ms)))
}

/// Waits until the job has a verdict, or gives up then.
pub(super) async fn verdict(
    context: &Context,
    id: &str,
    until: Option<Instant>,
) -> Result<JobView> {
    let path = format!("/api/v1/jobs/{}/wait", segment(id));
    let mut retries = Retries::default();
    loop {
        let path = match until {
            Some(until) => format!("{path}?timeout_ms={}", left_ms(until)),
            None => path.clone(),
        };
        match context.client.try_get::<WaitView>(&path).await {
            Ok(answer) if answer.done => return Ok(answer.job),
            Ok(answer) if until.is_some_and(|until| until <= Instant::now()) => {
                return Err(Failure::new(
                    Exit::TimedOut,
                    format!("job {id} is still {}; it goes on", answer.job.state),
                    "Wait longer, or look why.",
                )
                .try_this(format!("farmbell job explain {id}")));
            }
            Ok(_) => retries.reset(),
            Err(Trouble::Answer(failure)) => return Err(failure),
            Err(Trouble::Cut(failure)) => retries.pause(failure).await?,
        }
    }
}

/// Rounded up: an answer that comes a little early would be asked for again
/// and again.
fn left_ms(until: Instant) -> u128 {
    let left = until.saturating_duration_since(Instant::now());
    left.as_nanos().div_ceil(1_000_000)
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixListener;

    use super::*;
    use crate::cli::client::Client;
    use crate::cli::endpoint::Endpoint;
    use crate::cli::jobs::{self, JobCommand};
    use crate::cli::output::{Format, Output};

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn answer(done: bool) -> Value {
        let verdict = json!({ "verdict": "succeeded", "why": "", "at": "2026-01-01T00:00:00Z" });
        json!({
            "done": done,
            "job": {
                "id": "abcdefgh", "submission": "sabcdefgh", "name": "slow", "version": "",
                "recipe": "command", "architecture": "amd64", "owner": "kim", "private": false,
                "priority": 0, "tags": [], "submitted": "2026-01-01T00:00:00Z",
                "state": if done { "done" } else { "running" },
                "generation": 1, "attempts": 1, "attempts_max": 3,
                "verdict": done.then_some(verdict),
            },
        })
    }

    /// Types `job wait` at a coordinator that takes `time` for each of these
    /// answers; says how it ended and what it asked for.
    async fn wait(
        jobs: &[&str],
        timeout: Option<Duration>,
        time: Duration,
        answers: &[Value],
    ) -> (Result<Exit>, Vec<String>) {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        let context = Context {
            client: Client::new(Endpoint::Unix(socket)),
            output: Output::new(Format::Ndjson),
        };
        let command = JobCommand::Wait {
            jobs: jobs.iter().map(|job| (*job).to_owned()).collect(),
            timeout: timeout.map(|timeout| timeout.as_millis().try_into().unwrap()),
        };
        let coordinator = async {
            let mut asked = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
                }
                tokio::time::advance(time).await;
                let body = answer.to_string();
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
                stream.write_all((head + &body).as_bytes()).await.unwrap();
                let line = String::from_utf8(request).unwrap();
                asked.push(line.split(' ').nth(1).unwrap().to_owned());
            }
            asked
        };
        tokio::join!(jobs::run(&context, command), coordinator)
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_goes_on_when_the_coordinator_ends_the_question_after_a_day() {
        let answers = [answer(false), answer(false), answer(true)];
        let (ended, asked) = wait(&["abcdefgh"], None, DAY, &answers).await;
        assert_eq!(ended, Ok(Exit::Ok));
        assert_eq!(asked, ["/api/v1/jobs/abcdefgh/wait"; 3]);
        let (ended, asked) = wait(&["abcdefgh"], Some(2 * DAY), DAY, &answers[..2]).await;
        assert_eq!(ended.unwrap_err().exit, Exit::TimedOut);
        assert!(asked[0].ends_with("?timeout_ms=172800000"), "{asked:?}");
        assert!(asked[1].ends_with("?timeout_ms=86400000"), "{asked:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_to_wait_is_that_of_all_the_jobs() {
        let (hour, answers) = (DAY / 24, [answer(true), answer(true)]);
        let (ended, asked) = wait(&["abc", "def"], Some(DAY), hour, &answers).await;
        assert_eq!(ended, Ok(Exit::Ok));
        assert!(
            asked[0].ends_with("/abc/wait?timeout_ms=86400000"),
            "{asked:?}"
        );
        assert!(
            asked[1].ends_with("/def/wait?timeout_ms=82800000"),
            "{asked:?}"
        );
    }
}
