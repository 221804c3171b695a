//! How jobs, plans and artifacts are told to people, wherever a command does.

use super::output::{size, table};
use crate::http::wire::{ArtifactView, BuilderReasons, ExplainView, JobView, PlanView};

/// The columns of a list of artifacts.
pub(super) const ARTIFACT_HEADER: [&str; 3] = ["NAME", "SIZE", "BLAKE3"];

/// One line that says how a job stands.
pub(super) fn state_line(job: &JobView) -> String {
    format!("job {} ({}): {}", job.id, job.name, state(job))
}

/// The same with the score that it starts by.
pub(super) fn score_line(job: &JobView) -> String {
    format!("{}, score {}", state_line(job), job.priority)
}

/// The state in one word or two, for a table.
pub(super) fn state(job: &JobView) -> String {
    match (&job.verdict, &job.cancel) {
        (Some(verdict), _) => match &verdict.kind {
            Some(kind) => format!("{} ({kind})", verdict.verdict),
            None => verdict.verdict.clone(),
        },
        (None, Some(_)) => "cancelling".to_owned(),
        (None, None) if job.suspended && job.state == "waiting" => "suspended".to_owned(),
        // It keeps its builder; only a further attempt would not start.
        (None, None) if job.suspended => format!("{} (to be held back)", job.state),
        (None, None) => job.state.clone(),
    }
}

/// One line that says how a job ended.
pub(super) fn verdict_line(job: &JobView) -> String {
    let mut line = state_line(job);
    if let Some(verdict) = job
        .verdict
        .as_ref()
        .filter(|verdict| !verdict.why.is_empty())
    {
        line.push_str(": ");
        line.push_str(&crate::inert::line(&verdict.why));
    }
    line
}

/// Why a job waits, or how it ended.
pub(super) fn explanation(explained: &ExplainView) -> String {
    match &explained.plan {
        Some(plan) => format!(
            "job {} ({}) for {}: waiting: {}{}",
            explained.job.id,
            explained.job.name,
            plan.architecture,
            plan.summary,
            builders(&plan.builders)
        ),
        None => verdict_line(&explained.job),
    }
}

/// Which builders could take it, and why the others cannot.
pub(super) fn plan(plan: &PlanView) -> String {
    let builders = builders(&plan.builders);
    format!("{}: {}{builders}", plan.architecture, plan.summary)
}

fn builders(builders: &[BuilderReasons]) -> String {
    if builders.is_empty() {
        return String::new();
    }
    let rows = builders.iter().map(|builder| {
        let could = if builder.matches { "yes" } else { "no" };
        vec![
            builder.builder.clone(),
            could.to_owned(),
            builder.reasons.join(", "),
        ]
    });
    let table = table(&["BUILDER", "COULD TAKE IT", "NOW"], rows);
    format!("\n\n{table}")
}

pub(super) fn artifacts(artifacts: &[ArtifactView]) -> String {
    table(&ARTIFACT_HEADER, artifacts.iter().map(artifact_row))
}

pub(super) fn artifact_row(artifact: &ArtifactView) -> Vec<String> {
    vec![
        artifact.name.clone(),
        size(artifact.length),
        artifact.digest.clone(),
    ]
}
