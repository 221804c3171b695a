//! `farmbell submit`: a Debian source package, a job file or a command becomes
//! one submission. Owns the order: check, hash, ask what is there already,
//! upload the rest, submit.
//!
//! Invariant: however often the connection is lost, one call makes one
//! submission, since every try carries the same idempotency key.

mod draft;
mod dsc;
mod job_file;
mod upload;

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::Context;
use super::client::{Retries, Trouble};
use super::exit::{Exit, Failure, Result};
use super::{logs, output, units, wait, words};
use crate::http::wire::{BuilderView, JobView, PlanView, SubmitRequest, Submitted};
use draft::{Draft, DraftInput};

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  farmbell submit hello_2.10-3.dsc --follow
  farmbell submit hello_2.10-3.dsc --arch amd64,arm64 --wait
  farmbell submit job.toml --dry-run
  farmbell submit --input hello.c -- sh -c 'cc -o $FARMBELL_OUTPUTS/hello $FARMBELL_INPUTS/hello.c'")]
pub(super) struct SubmitArgs {
    /// A Debian source package (.dsc) or a job file (.toml)
    #[arg(
        value_name = "SOURCE",
        required_unless_present = "command",
        conflicts_with = "command"
    )]
    source: Option<PathBuf>,
    /// A program and its arguments, run by the recipe `command`
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
    /// Debian architectures; one job each
    #[arg(long, value_name = "ARCH", value_delimiter = ',')]
    arch: Vec<String>,
    /// What people see in lists
    #[arg(long)]
    name: Option<String>,
    /// In whose name the job runs
    #[arg(long)]
    owner: Option<String>,
    /// The distribution series, for example bookworm
    #[arg(long)]
    suite: Option<String>,
    /// Higher starts earlier
    #[arg(long, allow_negative_numbers = true)]
    priority: Option<i32>,
    /// Tags the builder must have
    #[arg(long, value_name = "TAG", value_delimiter = ',')]
    tag: Vec<String>,
    /// A file the job needs (may be given several times)
    #[arg(long, value_name = "FILE")]
    input: Vec<PathBuf>,
    /// Patterns of outputs to keep as artifacts; all when none is given
    #[arg(long, value_name = "PATTERN")]
    keep: Vec<String>,
    /// A variable of the job's environment
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    env: Vec<(String, String)>,
    /// How long the build may take, for example 90m
    #[arg(long, value_name = "SPAN", value_parser = units::milliseconds)]
    timeout: Option<u64>,
    /// Let the job use the network
    #[arg(long)]
    network: bool,
    /// The weakest isolation accepted: process, sandbox, chroot or virtual
    #[arg(long)]
    rung: Option<String>,
    /// Attempts the job may take at most
    #[arg(long, value_name = "N")]
    retries: Option<u8>,
    /// Hide it from readers who are no operators
    #[arg(long)]
    private: bool,
    /// Submitting again with the same key makes no second job
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Accept it although no known builder could ever take it
    #[arg(long)]
    allow_unmatched: bool,
    /// Wait for the verdict; the exit code tells it
    #[arg(long)]
    wait: bool,
    /// Show the log while it is written, then wait for the verdict
    #[arg(long, short)]
    follow: bool,
    /// Only say which builders could take it and why the others cannot
    #[arg(long, conflicts_with_all = ["wait", "follow"])]
    dry_run: bool,
}

/// What `--wait` prints for programs.
#[derive(Debug, Serialize)]
struct Finished {
    submission: String,
    jobs: Vec<JobView>,
    existed: bool,
}

fn variable(text: &str) -> std::result::Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("'{text}' is not NAME=VALUE")),
    }
}

pub(super) async fn run(context: &Context, args: SubmitArgs) -> Result<Exit> {
    if args.follow && !context.output.is_table() {
        return Err(Failure::usage(
            "--follow prints the log, which is no JSON",
            "Use --wait with --output json, or farmbell logs -f.",
        ));
    }
    let mut draft = draft_of(&args)?;
    if draft.architectures.is_empty() {
        draft.architectures = vec![usual_architecture(context).await?];
    }
    draft.check_architectures()?;
    let files = draft.hash_inputs()?;
    let request = SubmitRequest {
        jobs: draft.jobs(),
        allow_unmatched: args.allow_unmatched,
    };
    if args.dry_run {
        return dry_run(context, &request).await;
    }
    upload::missing(context, &files).await?;
    let key = match args.idempotency_key.or(draft.key) {
        Some(key) => key,
        None => fresh_key()?,
    };
    let submitted = submit(context, &request, &key).await?;
    finish(context, &submitted, args.follow, args.wait).await
}

fn draft_of(args: &SubmitArgs) -> Result<Draft> {
    let mut draft = match &args.source {
        None => Draft::of_command(&args.command),
        Some(path) => of_file(path)?,
    };
    if !args.arch.is_empty() {
        draft.architectures.clone_from(&args.arch);
        draft.architectures.retain(|word| !word.is_empty());
    }
    let inputs = args.input.iter().map(|path| DraftInput::of(path));
    draft.inputs.extend(inputs);
    let spec = &mut draft.spec;
    for (place, option) in [
        (&mut spec.name, &args.name),
        (&mut spec.owner, &args.owner),
        (&mut spec.suite, &args.suite),
        (&mut spec.rung, &args.rung),
    ] {
        if let Some(value) = option {
            place.clone_from(value);
        }
    }
    spec.tags.extend(args.tag.iter().cloned());
    spec.outputs.extend(args.keep.iter().cloned());
    spec.environment.extend(args.env.iter().cloned());
    spec.priority = args.priority.unwrap_or(spec.priority);
    spec.retries = args.retries.unwrap_or(spec.retries);
    spec.limits.total_ms = args.timeout.unwrap_or(spec.limits.total_ms);
    spec.private |= args.private;
    if args.network {
        spec.network = "full".to_owned();
    }
    Ok(draft)
}

fn of_file(path: &Path) -> Result<Draft> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("dsc") => Draft::of_source(path),
        Some("toml") => job_file::read(path),
        _ => Err(Failure::usage(
            format!("{} is neither a .dsc nor a .toml file", path.display()),
            "Give a source package or a job file, or put a command behind --.",
        )
        .try_this(format!("farmbell submit -- {}", path.display()))),
    }
}

/// The one architecture that the farm's builders have; this host's where they
/// have several or none.
async fn usual_architecture(context: &Context) -> Result<String> {
    let builders: Vec<BuilderView> = context.client.get("/api/v1/builders").await?;
    let mut all: Vec<_> = builders.into_iter().flat_map(|b| b.architectures).collect();
    all.sort();
    all.dedup();
    match all.as_slice() {
        [only] => Ok(only.clone()),
        _ => Ok(host_architecture().to_owned()),
    }
}

/// Debian's name of the architecture this program was built for.
fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "i386",
        "arm" => "armhf",
        "powerpc64" => "ppc64el",
        "loongarch64" => "loong64",
        same => same,
    }
}

async fn dry_run(context: &Context, request: &SubmitRequest) -> Result<Exit> {
    let plans: Vec<PlanView> = context
        .client
        .post("/api/v1/submissions?dry_run=true", request)
        .await?;
    context.output.one(&plans, |plans| {
        let plans: Vec<_> = plans.iter().map(words::plan).collect();
        plans.join("\n\n")
    })?;
    let possible = plans
        .iter()
        .all(|plan| plan.builders.iter().any(|b| b.matches));
    Ok(if possible { Exit::Ok } else { Exit::Refused })
}

fn fresh_key() -> Result<String> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|e| {
        Failure::new(
            Exit::Infrastructure,
            format!("this host gives no random bytes: {e}"),
            "Name a key yourself with --idempotency-key.",
        )
    })?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

async fn submit(context: &Context, request: &SubmitRequest, key: &str) -> Result<Submitted> {
    let mut retries = Retries::default();
    loop {
        let headers = [("idempotency-key", key)];
        let tried = context
            .client
            .try_post("/api/v1/submissions", request, &headers)
            .await;
        match tried {
            Ok(submitted) => return Ok(submitted),
            Err(Trouble::Answer(failure)) => return Err(unsure(failure, key)),
            Err(Trouble::Cut(failure)) => retries.pause(unsure(failure, key)).await?,
        }
    }
}

/// A submit that may have been accepted all the same has to be repeated with
/// its key.
fn unsure(mut failure: Failure, key: &str) -> Failure {
    if matches!(failure.exit, Exit::Unreachable | Exit::Infrastructure) {
        failure.fix.push_str(&format!(
            " It may have been accepted all the same: repeat it with --idempotency-key {key}."
        ));
    }
    failure
}

async fn finish(
    context: &Context,
    submitted: &Submitted,
    follow: bool,
    wait: bool,
) -> Result<Exit> {
    let ids: Vec<_> = submitted.jobs.iter().map(|job| job.id.clone()).collect();
    if !follow && !wait {
        context.output.one(submitted, submitted_text)?;
        return Ok(Exit::Ok);
    }
    output::remark(&submitted_text(submitted));
    let jobs = wait::or_interrupt(&ids, async {
        let mut jobs = Vec::with_capacity(ids.len());
        for id in &ids {
            if follow {
                logs::follow(context, id).await?;
            }
            jobs.push(wait::verdict(context, id, None).await?);
        }
        Ok(jobs)
    })
    .await?;
    let exit = wait::worst(&jobs);
    let finished = Finished {
        submission: submitted.submission.clone(),
        jobs,
        existed: submitted.existed,
    };
    let text = |finished: &Finished| {
        let lines: Vec<_> = finished.jobs.iter().map(words::verdict_line).collect();
        lines.join("\n")
    };
    if follow {
        output::remark(&text(&finished));
    } else {
        context.output.one(&finished, text)?;
    }
    Ok(exit)
}

fn submitted_text(submitted: &Submitted) -> String {
    let mut lines: Vec<_> = submitted
        .jobs
        .iter()
        .map(|job| {
            let what = if submitted.existed {
                "was submitted before"
            } else {
                "submitted"
            };
            format!(
                "job {} {what}: {} for {}",
                job.id, job.name, job.architecture
            )
        })
        .collect();
    if let [job] = submitted.jobs.as_slice() {
        lines.push(format!("watch it: farmbell logs -f {}", job.id));
    }
    lines.join("\n")
}
