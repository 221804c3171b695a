//! Bringing a builder back to clean: what attempts left goes, then the reset
//! script, then the probe, which decides. Owns the order; the brain decides
//! when, and only after the build's process tree was proved empty.

use std::time::{Duration, Instant};

use farmbell_protocol::agent_to_coordinator::{ResetScope, ResetStage, ScriptFailure};
use farmbell_protocol::bounded::{Blob, Reason};
use farmbell_protocol::builder::{Event, ResetReport};

use crate::canary::{self, Canary};
use crate::failpoint::{self, Failpoint};
use crate::host::{BuilderHost, blocking};
use crate::places;

/// Resets and probes.
pub(crate) async fn reset(host: &BuilderHost) -> ResetReport {
    let began = Instant::now();
    let own = host.clone();
    let cleared = blocking(move || places::clear_workspaces(&own.directory)).await;
    if let Err(error) = cleared.flatten() {
        let why = format!("a workspace cannot be removed: {error}");
        return not_run(&why);
    }
    if let Err(failed) = stage(host, ResetStage::Reset).await {
        return *failed;
    }
    failpoint::pass(Failpoint::ResetDone);
    match probe_alone(host).await {
        ResetReport::Clean { probe, .. } => ResetReport::Clean {
            reset: began.elapsed().saturating_sub(probe),
            probe,
        },
        failed @ ResetReport::Failed { .. } => failed,
    }
}

/// A canary for the reset that follows; `None` where no script could take
/// outputs along, or the agent goes down with what is reset. Without one the
/// reset is run as well, and outputs wait for it.
pub(crate) async fn set_canary(host: &BuilderHost) -> Option<canary::Set> {
    if host.reset_scope == ResetScope::Host {
        return None;
    }
    let (directory, script) = (host.directory.clone(), host.reset.clone()?);
    let set = blocking(move || Canary::of(&directory, &script)?.set()).await;
    set.flatten()
        .inspect_err(|error| {
            tracing::debug!(builder = %host.name, %error, "no canary will tell of this reset");
        })
        .ok()
}

/// Whether the reset left outputs alone.
pub(crate) async fn look_for(host: &BuilderHost, canary: canary::Set) -> Event {
    let looked = blocking(move || canary.look()).await.flatten();
    looked.unwrap_or_else(|error| {
        tracing::debug!(builder = %host.name, %error, "no canary tells of this reset");
        Event::SpoolSurvivesReset { proved: false }
    })
}

/// The reset was a reboot that this host has come back from.
pub(crate) async fn probe_alone(host: &BuilderHost) -> ResetReport {
    match stage(host, ResetStage::Probe).await {
        Ok(probe) => ResetReport::Clean {
            reset: Duration::ZERO,
            probe,
        },
        Err(failed) => *failed,
    }
}

async fn stage(host: &BuilderHost, stage: ResetStage) -> Result<Duration, Box<ResetReport>> {
    let Some(report) = host.launcher.script(&host.name, stage).await else {
        return Ok(Duration::ZERO);
    };
    match report.result {
        Ok(()) => Ok(report.took),
        Err(failure) => Err(Box::new(ResetReport::Failed {
            stage,
            failure,
            stdout: report.stdout,
            stderr: report.stderr,
        })),
    }
}

fn not_run(why: &str) -> ResetReport {
    ResetReport::Failed {
        stage: ResetStage::Reset,
        failure: ScriptFailure::NotRun {
            why: Reason::cut(why),
        },
        stdout: Blob::default(),
        stderr: Blob::default(),
    }
}
