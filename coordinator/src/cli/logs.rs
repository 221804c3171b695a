//! `farmbell logs`: the log of a job's attempt, whole or while it is written.
//! Owns the byte offset: after a lost connection it goes on where it stopped,
//! nothing twice and nothing missing.
//!
//! On a terminal the bytes are made harmless; into a pipe they go as they are.

use std::io::Write;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::Context;
use super::client::{Answer, Retries, Trouble, segment};
use super::exit::{Exit, Failure, Result};
use super::output::{remark, stdout_is_terminal};
use super::wait;
use crate::http::wire::CutView;
use crate::inert::Washer;

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  farmbell logs k3v9
  farmbell logs -f k3v9
  farmbell logs --tail 4096 k3v9
  farmbell logs --attempt 1.2 k3v9 > build.log")]
pub(super) struct LogsArgs {
    /// The job's id, or the beginning of it
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    job: String,
    /// Go on while it is written, through all attempts, until the verdict
    #[arg(long, short)]
    follow: bool,
    /// Begin this many bytes before the end
    #[arg(long, value_name = "BYTES", value_parser = super::units::bytes)]
    tail: Option<u64>,
    /// GENERATION.NUMBER of an attempt; the newest otherwise
    #[arg(long, conflicts_with = "follow")]
    attempt: Option<String>,
}

/// Where the bytes go.
struct Sink {
    washer: Option<Washer>,
}

/// One attempt's log, as far as it was read.
#[derive(Debug, Default)]
struct Place {
    attempt: Option<String>,
    offset: Option<u64>,
}

pub(super) async fn run(context: &Context, args: &LogsArgs) -> Result<Exit> {
    let mut sink = Sink::new();
    let mut place = Place {
        attempt: args.attempt.clone(),
        offset: None,
    };
    if !args.follow {
        read(context, &args.job, &mut place, &mut sink, false, args.tail).await?;
        sink.finish()?;
        tell_cuts(context, &args.job, &place).await?;
        return Ok(Exit::Ok);
    }
    let jobs = [args.job.clone()];
    wait::or_interrupt(&jobs, follow_into(context, &args.job, &mut sink, args.tail)).await?;
    Ok(Exit::Ok)
}

/// Shows the job's log, attempt after attempt, until it has a verdict.
pub(super) async fn follow(context: &Context, job: &str) -> Result<()> {
    follow_into(context, job, &mut Sink::new(), None).await
}

async fn follow_into(
    context: &Context,
    job: &str,
    sink: &mut Sink,
    mut tail: Option<u64>,
) -> Result<()> {
    let mut seen: Option<String> = None;
    while let Some(attempt) = next_attempt(context, job, seen.as_deref()).await? {
        if seen.is_some() {
            remark(&format!("-- attempt {attempt} --"));
        }
        let mut place = Place {
            attempt: Some(attempt.clone()),
            offset: None,
        };
        read(context, job, &mut place, sink, true, tail.take()).await?;
        sink.finish()?;
        tell_cuts(context, job, &place).await?;
        seen = Some(attempt);
    }
    Ok(())
}

/// The first attempt after `seen`, as soon as there is one; none when the job
/// has its verdict instead.
async fn next_attempt(context: &Context, job: &str, seen: Option<&str>) -> Result<Option<String>> {
    let mut path = format!("/api/v1/jobs/{}/next-attempt", segment(job));
    if let Some(seen) = seen {
        path.push_str(&format!("?after={}", segment(seen)));
    }
    let mut retries = Retries::default();
    loop {
        match context.client.try_get::<Option<String>>(&path).await {
            Ok(attempt) => return Ok(attempt),
            Err(Trouble::Answer(failure)) => return Err(failure),
            Err(Trouble::Cut(failure)) => retries.pause(failure).await?,
        }
    }
}

async fn read(
    context: &Context,
    job: &str,
    place: &mut Place,
    sink: &mut Sink,
    follow: bool,
    tail: Option<u64>,
) -> Result<()> {
    let mut retries = Retries::default();
    loop {
        let path = log_path(job, place, follow, tail);
        let tried = match context.client.stream(&path).await {
            Ok(answer) => copy(answer, place, sink, &mut retries).await,
            Err(trouble) => Err(trouble),
        };
        match tried {
            Ok(()) => return Ok(()),
            Err(Trouble::Answer(failure)) => return Err(failure),
            Err(Trouble::Cut(failure)) => retries.pause(failure).await?,
        }
    }
}

/// What was shown is not all that was said: where, and how much is missing.
async fn tell_cuts(context: &Context, job: &str, place: &Place) -> Result<()> {
    let mut path = format!("/api/v1/jobs/{}/log/cuts", segment(job));
    if let Some(attempt) = &place.attempt {
        path.push_str(&format!("?attempt={}", segment(attempt)));
    }
    let cuts: Vec<CutView> = context.client.get(&path).await?;
    for CutView { offset, dropped } in cuts {
        remark(&format!(
            "-- {dropped} bytes that followed byte {offset} are not kept: the log is over its limit --"
        ));
    }
    Ok(())
}

fn log_path(job: &str, place: &Place, follow: bool, tail: Option<u64>) -> String {
    let mut path = format!("/api/v1/jobs/{}/log?follow={follow}", segment(job));
    if let Some(attempt) = &place.attempt {
        path.push_str(&format!("&attempt={}", segment(attempt)));
    }
    match (place.offset, tail) {
        (Some(offset), _) => path.push_str(&format!("&offset={offset}")),
        (None, Some(tail)) => path.push_str(&format!("&tail={tail}")),
        (None, None) => {}
    }
    path
}

async fn copy(
    mut answer: Answer,
    place: &mut Place,
    sink: &mut Sink,
    retries: &mut Retries,
) -> std::result::Result<(), Trouble> {
    if place.offset.is_none() {
        place.offset = answer
            .header("x-log-offset")
            .and_then(|offset| offset.parse().ok());
    }
    if place.attempt.is_none() {
        place.attempt = answer.header("x-attempt").map(str::to_owned);
    }
    while let Some(piece) = answer.piece().await? {
        retries.reset();
        sink.write(&piece).map_err(Trouble::Answer)?;
        place.offset = place.offset.map(|offset| offset + piece.len() as u64);
    }
    Ok(())
}

impl Sink {
    fn new() -> Self {
        Self {
            washer: stdout_is_terminal().then(Washer::default),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let Some(washer) = &mut self.washer else {
            return put(bytes);
        };
        let mut text = String::with_capacity(bytes.len());
        washer.push(bytes, &mut text);
        put(text.as_bytes())
    }

    fn finish(&mut self) -> Result<()> {
        let Some(washer) = &mut self.washer else {
            return Ok(());
        };
        let mut text = String::new();
        washer.finish(&mut text);
        put(text.as_bytes())
    }
}

fn put(bytes: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes)
        .and_then(|()| out.flush())
        .map_err(|e| Failure::output(&e))
}
