//! `farmbell queue`, `brake`, `provide` and `restore accept`: the farm as a whole.

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};

use super::Context;
use super::exit::{Exit, Result};
use super::output::{span, table};
use crate::http::wire::{
    Act, BrakeRequest, BrakeView, OverviewView, PackageRequest, QueueView, SetBrake, Stamp,
};

#[derive(Args, Debug)]
#[command(after_help = "The order:
  Owners take turns: next is who has had least of the farm for its weight
  ([owners.NAME] in coordinator.toml: weight, running_max, bonus). Of an owner's
  jobs the one with less of this starts first, so that a point of score is worth
  a minute of waiting, and age catches up:

    submitted - score x 60 s
    score = --priority + the owner's bonus + urgency + pocket + component,
            and 10000 for a private job with any of these three parameters

    urgency    low 5, medium 10, high 15, emergency 20
    pocket     backports 0, release 1500, proposed and updates 3000, security 4500
    component  multiverse 0, universe 250, restricted 750, main 1000, partner 1250

  These are the defaults; [score] in coordinator.toml replaces them. A score set
  with `farmbell job set-priority` stands as it is. `farmbell brake` keeps back
  what is below a score.

  The list is in this order, as if each builder could take each job; last are the
  jobs of owners that have as many attempts under way as running_max lets them.
  What is suspended or below the brake is counted and not listed.

Examples:
  farmbell queue
  farmbell --output json queue | jq .waiting")]
pub(super) struct QueueArgs {}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  farmbell brake 0 --reason 'only urgent work today'
  farmbell brake 50 --arch riscv64
  farmbell brake --lift")]
pub(super) struct BrakeArgs {
    /// The least score that starts
    #[arg(
        allow_negative_numbers = true,
        required_unless_present = "lift",
        conflicts_with = "lift"
    )]
    least: Option<i32>,
    /// Let everything start again, or with --arch what that one's brake holds
    #[arg(long)]
    lift: bool,
    /// Only for this architecture
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    arch: Option<String>,
    /// Why; stands in the history
    #[arg(long, default_value = "")]
    reason: String,
}

#[derive(Args, Debug)]
#[command(after_help = "Example, as the hook of an archive:
  farmbell provide libfoo-dev 1:2.0-1 --arch amd64 --suite trixie")]
pub(super) struct ProvideArgs {
    /// The binary package's name
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    name: String,
    /// Its whole version, with the epoch
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    version: String,
    /// Its architecture, or `all`
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    arch: String,
    /// The suite it is in: the same as of the jobs that wait for it
    #[arg(long, default_value = "")]
    suite: String,
}

#[derive(Debug, Subcommand)]
pub(super) enum RestoreCommand {
    /// Let the farm go on with a restored backup, although agents know more
    ///
    /// Until then nothing new is started. What agents hold and the restored
    /// store does not know is listed in `farmbell events`; once accepted, no
    /// number that any agent has seen is used again.
    #[command(
        after_help = "Example:\n  farmbell restore accept --reason 'disk died, backup of Monday'"
    )]
    Accept {
        /// Why; stands in the history
        #[arg(long, default_value = "")]
        reason: String,
    },
}

pub(super) async fn queue(context: &Context, _: &QueueArgs) -> Result<Exit> {
    let queue: QueueView = context.client.get("/api/v1/queue").await?;
    context.output.one(&queue, text)?;
    Ok(Exit::Ok)
}

pub(super) async fn provide(context: &Context, args: ProvideArgs) -> Result<Exit> {
    let request = PackageRequest {
        name: args.name,
        version: args.version,
        architecture: args.arch,
        suite: args.suite,
    };
    let told: PackageRequest = context.client.post("/api/v1/packages", &request).await?;
    context.output.one(&told, |told| {
        let PackageRequest { name, version, .. } = told;
        format!("{name} {version}: jobs that wait for it run again")
    })?;
    Ok(Exit::Ok)
}

fn text(queue: &QueueView) -> String {
    let mut lines = Vec::new();
    if queue.waiting == 0 {
        lines.push("nothing waits".to_owned());
    }
    if !queue.jobs.is_empty() {
        lines.push(listed(queue));
    }
    let beside = queue.waiting.saturating_sub(queue.held);
    match beside.saturating_sub(queue.jobs.len() as u64) {
        0 => {}
        more => lines.push(format!("… and {more} more")),
    }
    match queue.held {
        0 => {}
        held => lines.push(format!(
            "{held} held back (suspended or below the brake): farmbell jobs --state waiting"
        )),
    }
    lines.extend(queue.brakes.iter().map(|brake| {
        let (words, lift) = (brake.words(), brake.lift());
        format!("brake: {words}; to lift it: {lift}")
    }));
    match queue.dependents {
        0 => {}
        some => lines.push(format!(
            "{some} finished jobs wait for packages: farmbell jobs --state dependency_wait"
        )),
    }
    lines.join("\n")
}

/// The jobs that start next, one a line.
fn listed(queue: &QueueView) -> String {
    let now = Stamp::now();
    let rows = queue.jobs.iter().map(|queued| {
        let job = &queued.job;
        vec![
            job.id.clone(),
            job.name.clone(),
            job.architecture.clone(),
            job.owner.clone(),
            job.priority.to_string(),
            span(job.submitted.until_ms(now)),
            queued.reason.clone(),
        ]
    });
    let header = [
        "JOB",
        "NAME",
        "ARCH",
        "OWNER",
        "PRIORITY",
        "AGE",
        "WAITS BECAUSE",
    ];
    table(&header, rows)
}

pub(super) async fn brake(context: &Context, args: BrakeArgs) -> Result<Exit> {
    let request = BrakeRequest {
        architecture: args.arch,
        least: args.least,
        reason: args.reason,
    };
    let set: BrakeView = context.client.post("/api/v1/brake", &request).await?;
    context.output.one(&set, brake_words)?;
    Ok(Exit::Ok)
}

fn brake_words(set: &BrakeView) -> String {
    let higher = set.effective.filter(|_| set.effective != set.least);
    let starts = |least| {
        let architecture = set.architecture.clone();
        SetBrake {
            architecture,
            least,
        }
        .words()
    };
    match (&set.architecture, set.least, higher) {
        (Some(of), Some(least), Some(higher)) => format!(
            "on {of}, jobs below {higher} do not start: the brake on every architecture is \
             higher than {least}"
        ),
        (Some(_), Some(least), None) | (None, Some(least), _) => starts(least),
        (Some(of), None, Some(higher)) => format!(
            "the brake on {of} is lifted; that on every architecture is not: jobs below \
             {higher} do not start"
        ),
        (Some(of), None, None) => format!("the brake on {of} is lifted"),
        (None, None, _) => "every brake is lifted".to_owned(),
    }
}

pub(super) async fn restore(context: &Context, command: RestoreCommand) -> Result<Exit> {
    let RestoreCommand::Accept { reason } = command;
    let body = Act { reason };
    let overview: OverviewView = context.client.post("/api/v1/restore/accept", &body).await?;
    context.output.one(&overview, |overview| {
        format!("accepted; the farm goes on as epoch {}", overview.epoch)
    })?;
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_back_is_counted_and_says_where_it_is_listed() {
        let told = |waiting, held, dependents| {
            text(&QueueView {
                waiting,
                held,
                brakes: Vec::new(),
                oldest_waiting_ms: 0,
                dependents,
                jobs: Vec::new(),
            })
        };
        let held = "2 held back (suspended or below the brake): farmbell jobs --state waiting";
        let after = "1 finished jobs wait for packages: farmbell jobs --state dependency_wait";
        assert_eq!(told(0, 0, 0), "nothing waits");
        assert_eq!(told(0, 0, 1), format!("nothing waits\n{after}"));
        assert_eq!(told(2, 2, 0), held);
        assert_eq!(told(5, 2, 1), format!("… and 3 more\n{held}\n{after}"));
    }

    #[test]
    fn the_brakes_that_are_set_stand_below_the_queue() {
        let of = |architecture: Option<&str>, least| SetBrake {
            architecture: architecture.map(str::to_owned),
            least,
        };
        let told = text(&QueueView {
            waiting: 0,
            held: 0,
            brakes: vec![of(None, 0), of(Some("riscv64"), 50)],
            oldest_waiting_ms: 0,
            dependents: 0,
            jobs: Vec::new(),
        });
        assert_eq!(
            told,
            "nothing waits\n\
             brake: on every architecture, jobs below 0 do not start; to lift it: farmbell brake --lift\n\
             brake: on riscv64, jobs below 50 do not start; to lift it: farmbell brake --lift --arch riscv64"
        );
    }

    #[test]
    fn where_another_brake_is_higher_it_says_what_starts() {
        let set = |architecture: Option<&str>, least, effective| {
            brake_words(&BrakeView {
                architecture: architecture.map(str::to_owned),
                least,
                effective,
                changed: 0,
            })
        };
        assert_eq!(
            set(Some("amd64"), Some(5), Some(50)),
            "on amd64, jobs below 50 do not start: the brake on every architecture is higher than 5"
        );
        assert_eq!(
            set(Some("amd64"), None, Some(50)),
            "the brake on amd64 is lifted; that on every architecture is not: jobs below 50 do not start"
        );
        assert_eq!(
            set(Some("amd64"), None, None),
            "the brake on amd64 is lifted"
        );
        assert_eq!(set(None, None, None), "every brake is lifted");
    }
}
