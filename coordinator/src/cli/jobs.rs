//! `farmbell jobs` and `farmbell job …`: looking at jobs and acting on them.

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};

use super::client::segment;
use super::exit::{Exit, Result};
use super::output::{facts, size, span, table};
use super::pick::{Each, Filter, MANY_FINISHED, MANY_HERE, MANY_IN_FARM, Pick, Whom};
use super::{Context, units, wait, words};
use crate::http::wire::{Act, AttemptView, ExplainView, JobActSpec, JobDetail, Stamp};

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  farmbell jobs
  farmbell jobs --state waiting --arch arm64
  farmbell jobs --state failed --owner kim --limit 100
  farmbell --output ndjson jobs --all | jq -r .id")]
pub(super) struct JobsArgs {
    #[command(flatten)]
    filter: Filter,
    /// How many at most
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: u32,
    /// All of them
    #[arg(long, conflicts_with = "limit")]
    all: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum JobCommand {
    /// Show everything known of a job
    #[command(after_help = "Example:\n  farmbell job show k3v9")]
    Show {
        /// The job's id, or the beginning of it
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        job: String,
    },
    /// End jobs; a running one is aborted on its builder
    #[command(after_help = many("Examples:
  farmbell job cancel k3v9 --reason 'wrong branch'
  farmbell job cancel --state waiting --owner kim", MANY_IN_FARM))]
    Cancel {
        #[command(flatten)]
        pick: Pick,
        #[command(flatten)]
        why: Why,
    },
    /// Build finished jobs again, as a new generation each
    #[command(after_help = many("Examples:
  farmbell job retry k3v9
  farmbell job retry --state infrastructure --reason 'the power is back'", MANY_FINISHED))]
    Retry {
        #[command(flatten)]
        pick: Pick,
        #[command(flatten)]
        why: Why,
    },
    /// Build jobs again that wait for their dependencies, whatever they wait for
    #[command(after_help = many("Examples:
  farmbell job wake k3v9 --reason 'libfoo is in the archive'
  farmbell job wake --state dependency_wait --owner kim", MANY_HERE))]
    Wake {
        #[command(flatten)]
        pick: Pick,
        #[command(flatten)]
        why: Why,
    },
    /// Set the score of jobs, frozen from then on; higher starts earlier
    #[command(after_help = many("Examples:
  farmbell job set-priority 100 k3v9
  farmbell job set-priority -5 --owner nightly --state waiting", MANY_IN_FARM))]
    SetPriority {
        /// The new score
        #[arg(allow_negative_numbers = true)]
        priority: i32,
        #[command(flatten)]
        pick: Pick,
        #[command(flatten)]
        why: Why,
    },
    /// Keep waiting jobs from starting until they are resumed
    #[command(after_help = many("Example:\n  farmbell job suspend --submission sk3v9abcd", MANY_IN_FARM))]
    Suspend {
        #[command(flatten)]
        pick: Pick,
        #[command(flatten)]
        why: Why,
    },
    /// Let suspended jobs start again
    #[command(after_help = many("Example:\n  farmbell job resume --owner kim", MANY_IN_FARM))]
    Resume {
        #[command(flatten)]
        pick: Pick,
        #[command(flatten)]
        why: Why,
    },
    /// End jobs because something newer makes them pointless
    #[command(after_help = many("Example:\n  farmbell job supersede k3v9 --reason 'hello 2.11 is in'", MANY_IN_FARM))]
    Supersede {
        #[command(flatten)]
        pick: Pick,
        #[command(flatten)]
        why: Why,
    },
    /// Wait for verdicts; the exit code tells the worst
    #[command(after_help = "Example:\n  farmbell job wait k3v9 --timeout 30m")]
    Wait {
        /// Ids of jobs, or the beginnings of them
        #[arg(required = true, value_parser = NonEmptyStringValueParser::new())]
        jobs: Vec<String>,
        /// Give up after this long, over all the jobs; they go on
        #[arg(long, value_name = "SPAN", value_parser = units::milliseconds)]
        timeout: Option<u64>,
    },
    /// Say why a job waits, builder by builder
    #[command(after_help = "Example:\n  farmbell job explain k3v9")]
    Explain {
        /// The job's id, or the beginning of it
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        job: String,
    },
}

/// Examples, and where an act on many jobs is done.
fn many(examples: &str, where_it_is_done: &str) -> String {
    format!("{examples}\n\n{where_it_is_done}")
}

/// Why something is done.
#[derive(Args, Debug)]
pub(super) struct Why {
    /// Stands in the history
    #[arg(long, default_value = "")]
    reason: String,
}

pub(super) async fn list(context: &Context, args: &JobsArgs) -> Result<Exit> {
    let wanted = if args.all { u32::MAX } else { args.limit };
    let jobs = args.filter.jobs(context, wanted).await?;
    let now = Stamp::now();
    context.output.list(
        &jobs,
        &[
            "JOB", "NAME", "VERSION", "ARCH", "STATE", "BUILDER", "OWNER", "AGE",
        ],
        |job| {
            vec![
                job.id.clone(),
                job.name.clone(),
                job.version.clone(),
                job.architecture.clone(),
                words::state(job),
                job.builder.clone().unwrap_or_default(),
                job.owner.clone(),
                span(job.submitted.until_ms(now)),
            ]
        },
    )?;
    Ok(Exit::Ok)
}

pub(super) async fn run(context: &Context, command: JobCommand) -> Result<Exit> {
    match command {
        JobCommand::Show { job } => {
            let path = format!("/api/v1/jobs/{}", segment(&job));
            let detail: JobDetail = context.client.get(&path).await?;
            context.output.one(&detail, detail_text)?;
            Ok(Exit::Ok)
        }
        JobCommand::Cancel { pick, why } => act(context, &pick, JobActSpec::Cancel, why).await,
        JobCommand::Supersede { pick, why } => {
            act(context, &pick, JobActSpec::Supersede, why).await
        }
        JobCommand::Suspend { pick, why } => act(context, &pick, JobActSpec::Suspend, why).await,
        JobCommand::Resume { pick, why } => act(context, &pick, JobActSpec::Resume, why).await,
        JobCommand::SetPriority {
            priority,
            pick,
            why,
        } => act(context, &pick, JobActSpec::SetPriority(priority), why).await,
        JobCommand::Retry { pick, why } => act(context, &pick, JobActSpec::Retry, why).await,
        JobCommand::Wake { pick, why } => {
            let each = Each {
                act: "wake",
                whom: Whom::Dependent,
                body: &Act { reason: why.reason },
                line: words::state_line,
            };
            pick.each(context, each).await
        }
        JobCommand::Wait { jobs, timeout } => {
            let until = wait::until(timeout);
            let finished = wait::or_interrupt(&jobs, async {
                let mut finished = Vec::with_capacity(jobs.len());
                for job in &jobs {
                    let done = wait::verdict(context, job, until).await?;
                    context.output.item(&done, words::verdict_line)?;
                    finished.push(done);
                }
                Ok(finished)
            })
            .await?;
            Ok(wait::worst(&finished))
        }
        JobCommand::Explain { job } => {
            let path = format!("/api/v1/jobs/{}/explain", segment(&job));
            let explained: ExplainView = context.client.get(&path).await?;
            context.output.one(&explained, words::explanation)?;
            Ok(Exit::Ok)
        }
    }
}

async fn act(context: &Context, pick: &Pick, act: JobActSpec, why: Why) -> Result<Exit> {
    pick.act(context, act, why.reason).await
}

fn detail_text(detail: &JobDetail) -> String {
    let job = &detail.job;
    let mut text = facts(&[
        ("job", job.id.clone()),
        (
            "name",
            format!("{} {}", job.name, job.version).trim().to_owned(),
        ),
        ("state", words::state(job)),
        (
            "why",
            job.verdict
                .as_ref()
                .map(|v| v.why.clone())
                .unwrap_or_default(),
        ),
        ("waits for", detail.waits_for.clone().unwrap_or_default()),
        ("recipe", job.recipe.clone()),
        ("architecture", job.architecture.clone()),
        ("tags", job.tags.join(", ")),
        ("owner", job.owner.clone()),
        ("priority", job.priority.to_string()),
        ("submission", job.submission.clone()),
        ("submitted", job.submitted.to_string()),
        (
            "cancelled by",
            job.cancel
                .as_ref()
                .map(|c| format!("{} {}", c.by, c.why))
                .unwrap_or_default(),
        ),
        ("generation", job.generation.to_string()),
        ("builder", job.builder.clone().unwrap_or_default()),
    ]);
    if !detail.attempts.is_empty() {
        text.push_str("\n\n");
        text.push_str(&table(
            &[
                "ATTEMPT",
                "BUILDER",
                "STAGE",
                "TOOK",
                "PEAK MEMORY",
                "EXIT",
                "OUTCOME",
                "WHY",
            ],
            detail.attempts.iter().map(attempt_row),
        ));
    }
    if !detail.artifacts.is_empty() {
        text.push_str("\n\n");
        text.push_str(&words::artifacts(&detail.artifacts));
    }
    text
}

fn attempt_row(attempt: &AttemptView) -> Vec<String> {
    let took = match (attempt.started, attempt.ended) {
        (Some(started), Some(ended)) => span(started.until_ms(ended)),
        (Some(started), None) => format!("{} so far", span(started.until_ms(Stamp::now()))),
        (None, _) => String::new(),
    };
    let peak = match attempt.usage.memory_peak_bytes {
        0 => String::new(),
        bytes => size(bytes),
    };
    let end = attempt.end.as_ref();
    let outcome = attempt.outcome.as_ref();
    let ended_by_farm = end.filter(|end| end.end != "verdict");
    let (word, why) = match (ended_by_farm, outcome) {
        (Some(end), _) => (end.end.clone(), end.why.clone()),
        (None, Some(outcome)) => (outcome.outcome.clone(), outcome.why.clone()),
        (None, None) => (String::new(), String::new()),
    };
    vec![
        attempt.attempt.clone(),
        attempt.builder.clone(),
        // How far it came says nothing of one that is over; its outcome does.
        end.map_or_else(|| attempt.stage.clone(), |_| String::new()),
        took,
        peak,
        attempt.exit.clone().unwrap_or_default(),
        word,
        why,
    ]
}
