//! `farmbell builders` and `farmbell builder …`: looking at builders and the
//! operator's acts on them.

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};

use super::client::segment;
use super::exit::{Exit, Result};
use super::output::span;
use super::{Context, units};
use crate::http::wire::{Act, BuilderView, Stamp};

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  farmbell builders
  farmbell builders --arch arm64")]
pub(super) struct BuildersArgs {
    /// Builders for this architecture
    #[arg(long, value_name = "ARCH", value_parser = NonEmptyStringValueParser::new())]
    arch: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum BuilderCommand {
    /// Show everything known of a builder
    Show {
        /// The builder's name
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        name: String,
    },
    /// Give it work again
    Enable(ActArgs),
    /// Take it out now: its job waits again, nobody is blamed
    #[command(after_help = "Example:\n  farmbell builder disable b1 --reason 'disk swap'")]
    Disable(ActArgs),
    /// Keep it ready, but give it no work by itself
    Manual(ActArgs),
    /// Let it take work by itself again
    Auto(ActArgs),
    /// Let it finish what it has, then give it nothing new
    #[command(after_help = "Example:\n  farmbell builder drain b1 --within 2h --reason 'new disk'")]
    Drain {
        #[command(flatten)]
        act: ActArgs,
        /// After this long its job is taken from it and waits again
        #[arg(long, value_name = "SPAN", value_parser = units::milliseconds)]
        within: Option<u64>,
    },
    /// End a drain or a quarantine
    Resume(ActArgs),
    /// Take it out as suspect, as the farm does by itself
    Quarantine(ActArgs),
    /// Reset it although nothing asks for it
    Reset(ActArgs),
    /// Say when it is reset, and who reports that a reset is over
    #[command(after_help = "Examples:
  farmbell builder reset-rule b1 --when before
  farmbell builder reset-rule vm7 --when after --reporter vm-manager")]
    ResetRule {
        #[command(flatten)]
        act: ActArgs,
        /// After each attempt, before the next one that wants it, or by hand
        #[arg(long, value_parser = ["after", "before", "by-hand"])]
        when: String,
        /// Besides its agent: the user or token that types `reset-over`. A reset
        /// that it does not report in time has failed
        #[arg(long, value_name = "WHO")]
        reporter: Option<String>,
    },
    /// As its reporter: say that a reset is over
    #[command(after_help = "Examples:
  farmbell builder reset-over vm7 0123456789abcdef
  farmbell builder reset-over vm7 0123456789abcdef --failed 'no such image'")]
    ResetOver {
        #[command(flatten)]
        act: ActArgs,
        /// The reset's challenge: builder.resetting in `farmbell events` has it
        nonce: String,
        /// It failed, and why
        #[arg(long, value_name = "WHY")]
        failed: Option<String>,
    },
    /// Forget it; refused while it holds an attempt
    #[command(
        after_help = "Example:\n  farmbell builder remove b1 --abandon --reason 'board is dead'"
    )]
    Remove {
        #[command(flatten)]
        act: ActArgs,
        /// Even while it holds an attempt, which is given up
        #[arg(long)]
        abandon: bool,
    },
}

/// What every act takes.
#[derive(Args, Debug)]
pub(super) struct ActArgs {
    /// The builder's name
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    name: String,
    /// Why; stands beside the builder and in the history
    #[arg(long, default_value = "")]
    reason: String,
}

pub(super) async fn list(context: &Context, args: &BuildersArgs) -> Result<Exit> {
    let mut builders: Vec<BuilderView> = context.client.get("/api/v1/builders").await?;
    if let Some(arch) = &args.arch {
        builders.retain(|builder| builder.architectures.contains(arch));
    }
    context.output.list(
        &builders,
        &[
            "BUILDER", "AGENT", "ARCH", "TAGS", "STATUS", "JOB", "REASON",
        ],
        |builder| {
            vec![
                builder.name.clone(),
                builder.agent.clone(),
                builder.architectures.join(","),
                [&builder.open_tags[..], &builder.restricted_tags[..]]
                    .concat()
                    .join(","),
                builder.status.clone(),
                builder
                    .held
                    .as_ref()
                    .map(|held| held.job.clone())
                    .unwrap_or_default(),
                first_reason(builder),
            ]
        },
    )?;
    Ok(Exit::Ok)
}

fn first_reason(builder: &BuilderView) -> String {
    if builder.mode != "enabled" && !builder.mode_why.is_empty() {
        return format!("{} ({})", builder.mode_why, builder.mode_by);
    }
    if builder.fitness_why.is_empty()
        && let Some(trouble) = &builder.reset.trouble
    {
        // Below its first line stands what the script wrote.
        let what = trouble.lines().next().unwrap_or_default();
        return format!("the last reset failed: {what}");
    }
    builder.fitness_why.clone()
}

pub(super) async fn run(context: &Context, command: BuilderCommand) -> Result<Exit> {
    let (act, word) = match command {
        BuilderCommand::Show { name } => return show(context, &name).await,
        BuilderCommand::Enable(act) => (act, "enable".to_owned()),
        BuilderCommand::Disable(act) => (act, "disable".to_owned()),
        BuilderCommand::Manual(act) => (act, "manual".to_owned()),
        BuilderCommand::Auto(act) => (act, "auto".to_owned()),
        BuilderCommand::Drain { act, within: None } => (act, "drain".to_owned()),
        BuilderCommand::Drain {
            act,
            within: Some(ms),
        } => (act, format!("drain?within_ms={ms}")),
        BuilderCommand::Resume(act) => (act, "resume".to_owned()),
        BuilderCommand::Quarantine(act) => (act, "quarantine".to_owned()),
        BuilderCommand::Reset(act) => (act, "reset".to_owned()),
        BuilderCommand::ResetRule {
            act,
            when,
            reporter,
        } => {
            let reporter = parameter("reporter", reporter);
            (act, format!("reset-rule?when={when}{reporter}"))
        }
        BuilderCommand::ResetOver { act, nonce, failed } => {
            let failed = parameter("failed", failed);
            (act, format!("reset-over?nonce={}{failed}", segment(&nonce)))
        }
        BuilderCommand::Remove {
            act,
            abandon: false,
        } => (act, "remove".to_owned()),
        BuilderCommand::Remove { act, abandon: true } => (act, "remove?abandon=true".to_owned()),
    };
    let path = format!("/api/v1/builders/{}/{word}", segment(&act.name));
    let body = Act { reason: act.reason };
    let view: Option<BuilderView> = context.client.post(&path, &body).await?;
    context.output.one(&view, |view| match view {
        Some(view) => format!("builder {}: {}", view.name, view.status),
        None => format!("builder {}: done", act.name),
    })?;
    Ok(Exit::Ok)
}

fn parameter(name: &str, value: Option<String>) -> String {
    value.map_or_else(String::new, |value| format!("&{name}={}", segment(&value)))
}

async fn show(context: &Context, name: &str) -> Result<Exit> {
    let path = format!("/api/v1/builders/{}", segment(name));
    let builder: BuilderView = context.client.get(&path).await?;
    context.output.one(&builder, text)?;
    Ok(Exit::Ok)
}

fn text(builder: &BuilderView) -> String {
    let held = builder.held.as_ref();
    let yes_no = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    let mut text = super::output::facts(&[
        ("builder", builder.name.clone()),
        ("agent", builder.agent.clone()),
        ("status", builder.status.clone()),
        (
            "link",
            format!(
                "{} for {}",
                builder.link,
                span(builder.link_since.until_ms(Stamp::now()))
            ),
        ),
        (
            "job",
            // As the history names attempts.
            held.map(|held| format!("{}.{}", held.job, held.attempt))
                .unwrap_or_default(),
        ),
        ("mode", builder.mode.clone()),
        ("mode set by", builder.mode_by.clone()),
        ("mode because", builder.mode_why.clone()),
        (
            "drains until",
            builder
                .drain_ends
                .map_or_else(String::new, |at| at.to_string()),
        ),
        ("cleanliness", builder.cleanliness.clone()),
        (
            "fitness",
            format!("{} {}", builder.fitness, builder.fitness_why)
                .trim()
                .to_owned(),
        ),
        ("strikes", builder.strikes.to_string()),
        ("architectures", builder.architectures.join(", ")),
        ("recipes", builder.recipes.join(", ")),
        ("open tags", builder.open_tags.join(", ")),
        ("restricted tags", builder.restricted_tags.join(", ")),
        ("virtualized", yes_no(builder.virtualized)),
        ("isolation", builder.rung.clone()),
        ("reset scope", builder.reset.scope.clone()),
        ("is reset", builder.reset.when.clone()),
        (
            "reset reported by",
            builder.reset.reporter.clone().unwrap_or_default(),
        ),
        (
            "reset challenge",
            builder.reset.nonce.clone().unwrap_or_default(),
        ),
    ]);
    if !builder.host_lacks.is_empty() {
        text.push_str("\n\nits host works with less:");
        for line in &builder.host_lacks {
            text.push_str("\n  ");
            text.push_str(&crate::inert::line(line));
        }
    }
    if let Some(trouble) = &builder.reset.trouble {
        text.push_str("\n\nlast failed reset:\n");
        text.push_str(&crate::inert::lines(trouble.as_bytes()));
    }
    text
}
