//! What a builder's task does for one attempt: attendant, seal, transfers,
//! release. Owns the handles; each is started once and ends with the release.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use farmbell_protocol::bounded::Reason;
use farmbell_protocol::builder::{Event, SealReport};
use farmbell_protocol::client::bulk::LogGrowth;
use farmbell_protocol::id::AttemptId;
use farmbell_protocol::outcome::{FailureKind, Outcome};
use farmbell_protocol::spec::JobSpec;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::{Driver, LINGER, say};
use crate::attempt::AttemptDir;
use crate::attend::{Attendant, ORDERS_MAX, stop_after};
use crate::failpoint::{self, Failpoint};
use crate::health;
use crate::host::{BuilderHost, blocking};
use crate::launcher;
use crate::places::{self, Spare, stricter};
use crate::seal::{self, SealError, SealLimits, SealedOutputs};
use crate::supervisor::talk::Order;
use crate::uploads;

/// One attempt as its driver holds it.
#[derive(Debug)]
pub(super) struct Held {
    /// To the attendant, while there is one.
    orders: Option<mpsc::Sender<Order>>,
    growth: watch::Receiver<LogGrowth>,
    spec: Option<Box<JobSpec>>,
    /// Filled by the gathering, before its event.
    sealed: Arc<OnceLock<SealedOutputs>>,
    /// Sealed in an earlier life of the agent: to be read again.
    sealed_before: bool,
    log_transfer: Option<AbortHandle>,
    output_transfer: Option<AbortHandle>,
}

impl Held {
    fn of(spec: Option<Box<JobSpec>>) -> (Self, watch::Sender<LogGrowth>) {
        let (grow, growth) = watch::channel(LogGrowth::default());
        let held = Self {
            orders: None,
            growth,
            spec,
            sealed: Arc::new(OnceLock::new()),
            sealed_before: false,
            log_transfer: None,
            output_transfer: None,
        };
        (held, grow)
    }

    /// Ends what runs, to be given back.
    pub(super) fn leave(&mut self, grace: Duration) {
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        self.order(Order::Leave { grace_ms });
    }

    /// `false` where nobody attends the attempt.
    fn order(&mut self, order: Order) -> bool {
        match self.orders.as_ref().map(|orders| orders.try_send(order)) {
            // Full: what waits there says the same.
            Some(Ok(()) | Err(mpsc::error::TrySendError::Full(_))) => true,
            Some(Err(mpsc::error::TrySendError::Closed(_))) | None => false,
        }
    }
}

impl Driver {
    pub(super) fn start(&mut self, attempt: AttemptId, spec: Box<JobSpec>) {
        tracing::info!(builder = %self.host.name, %attempt, name = %spec.name, "starting");
        let attendant = self.attendant(attempt, Some(spec.clone()));
        self.tasks.spawn(attendant.start(spec, self.spare.take()));
    }

    /// Makes the directory of the next attempt before it is offered; never
    /// while a build runs, which could reach it.
    pub(super) fn make_spare(&mut self) {
        if self.spare.is_some() {
            return;
        }
        self.spares_made = self.spares_made.wrapping_add(1);
        let (host, number) = (self.host.clone(), self.spares_made);
        let (made, making) = oneshot::channel();
        self.spare = Some(making);
        self.host.tidy.later(move || {
            // The attempt may have come, and made its own.
            if !made.is_closed() {
                drop(made.send(Spare::make(&host.directory, number)));
            }
        });
    }

    /// Takes up an attempt that an earlier life of the agent started.
    pub(super) fn adopt(&mut self, attempt: AttemptId, spec: Option<Box<JobSpec>>) {
        tracing::info!(builder = %self.host.name, %attempt, "taking up");
        let attendant = self.attendant(attempt, spec);
        self.tasks.spawn(attendant.adopt());
    }

    fn attendant(&mut self, attempt: AttemptId, spec: Option<Box<JobSpec>>) -> Attendant {
        let (mut held, growth) = Held::of(spec);
        let (orders, waiting) = mpsc::channel(ORDERS_MAX);
        held.orders = Some(orders);
        self.held.insert(attempt, held);
        Attendant {
            host: self.host.clone(),
            attempt,
            orders: waiting,
            events: self.tell.clone(),
            growth,
        }
    }

    /// Notes an attempt whose run was over before this life of the agent.
    pub(super) fn hold_ended(
        &mut self,
        attempt: AttemptId,
        spec: Option<Box<JobSpec>>,
        growth: LogGrowth,
        sealed_before: bool,
    ) {
        let (mut held, grow) = Held::of(spec);
        held.sealed_before = sealed_before;
        grow.send_replace(growth);
        self.held.insert(attempt, held);
    }

    pub(super) fn stop(&mut self, attempt: AttemptId, grace: Duration) {
        let order = stop_after(grace);
        let attended = self
            .held
            .get_mut(&attempt)
            .is_some_and(|held| held.order(order));
        if !attended {
            // Its end is on the way to the brain, or it never began.
            tracing::debug!(%attempt, "nobody to stop");
        }
    }

    pub(super) fn seal(&mut self, attempt: AttemptId) {
        let (host, tell) = (self.host.clone(), self.tell.clone());
        let (spec, slot) = match self.held.get(&attempt) {
            Some(held) => (held.spec.clone(), held.sealed.clone()),
            // Accepted in an earlier life, and nothing of it ever ran.
            None => {
                let (held, grow) = Held::of(None);
                grow.send_modify(|growth| growth.ended = true);
                let slot = held.sealed.clone();
                self.held.insert(attempt, held);
                (None, slot)
            }
        };
        let (tidy, dir) = (host.tidy.clone(), host.dir(attempt));
        self.tasks.spawn(async move {
            let gathered = blocking(move || {
                let gathered = gather(&host, attempt, spec.as_deref(), &slot);
                (gathered, Some(health::look(&host)))
            });
            let (gathered, looked) = gathered.await.unwrap_or_else(|error| {
                let why = Reason::cut(format!("gathering its outputs failed: {error}"));
                (Event::OutputsLost { attempt, why }, None)
            });
            for event in looked.into_iter().chain([gathered]) {
                say(&tell, event).await;
            }
            // The reset does this as well, and most often finds it done.
            tidy.later(move || {
                if let Err(error) = places::clear(&dir) {
                    tracing::debug!(%attempt, %error, "its workspace is left to the reset");
                }
            });
        });
    }

    pub(super) fn upload(&mut self, attempt: AttemptId) {
        let Some(held) = self.held.get_mut(&attempt) else {
            return;
        };
        if held.log_transfer.is_none() {
            let task = uploads::log(self.host.clone(), attempt, held.growth.clone());
            held.log_transfer = Some(self.tasks.spawn(task));
        }
        let sealed = held.sealed_before || held.sealed.get().is_some();
        if held.output_transfer.is_none() && sealed {
            let (host, tell) = (self.host.clone(), self.tell.clone());
            let task = send_outputs(host, attempt, held.sealed.clone(), tell);
            held.output_transfer = Some(self.tasks.spawn(task));
        }
    }

    pub(super) fn release(&mut self, attempt: AttemptId) {
        if let Some(held) = self.held.remove(&attempt) {
            let transfers = [held.log_transfer, held.output_transfer];
            transfers
                .into_iter()
                .flatten()
                .for_each(|task| task.abort());
        }
        self.released.attempts.push(attempt);
        self.released
            .due
            .get_or_insert_with(|| Instant::now() + LINGER);
    }

    pub(super) fn remove(&mut self, attempt: AttemptId) {
        let (host, tell) = (self.host.clone(), self.tell.clone());
        self.tasks.spawn(async move {
            let tidy = host.tidy.clone();
            let (done, removed) = oneshot::channel();
            tidy.later(move || {
                let removed = launcher::remove(&host.dir(attempt), &host.place, attempt);
                drop(done.send(removed.map(|()| health::look(&host))));
            });
            match removed.await.map_err(io::Error::other).flatten() {
                Ok(looked) => say(&tell, looked).await,
                Err(error) => tracing::warn!(%attempt, %error, "an attempt's directory stays"),
            }
        });
    }
}

async fn send_outputs(
    host: BuilderHost,
    attempt: AttemptId,
    sealed: Arc<OnceLock<SealedOutputs>>,
    tell: mpsc::Sender<Event>,
) {
    if sealed.get().is_none() {
        let (dir, slot) = (host.dir(attempt), sealed.clone());
        let reopened = blocking(move || reopen(&dir, &slot)).await;
        if let Err(error) = reopened.flatten() {
            let why = Reason::cut(format!("sealed outputs cannot be read again: {error}"));
            say(&tell, Event::OutputsLost { attempt, why }).await;
            return;
        }
    }
    uploads::outputs(host, attempt, sealed, tell).await;
}

/// Reads again what an earlier life of the agent sealed. Blocking.
fn reopen(dir: &AttemptDir, slot: &OnceLock<SealedOutputs>) -> io::Result<()> {
    let manifest = std::fs::read(dir.manifest())?;
    let sealed = seal::reopen(&dir.sealed(), &manifest).map_err(io::Error::other)?;
    slot.get_or_init(|| sealed);
    Ok(())
}

/// Gathers what a run left. Blocking.
fn gather(
    host: &BuilderHost,
    attempt: AttemptId,
    spec: Option<&JobSpec>,
    slot: &OnceLock<SealedOutputs>,
) -> Event {
    let dir = host.dir(attempt);
    match seal_and_keep(host, &dir, spec) {
        Ok((sealed, outcome)) => {
            let report = SealReport {
                manifest: sealed.manifest_digest,
                manifest_bytes: sealed.manifest.len() as u64,
                outputs: u32::try_from(sealed.files.len()).unwrap_or(u32::MAX),
                output_bytes: sealed.output_bytes,
                log_bytes: log_bytes(&dir),
                outcome,
            };
            slot.get_or_init(|| sealed);
            Event::Sealed { attempt, report }
        }
        Err(error) => {
            let why = Reason::cut(error.to_string());
            Event::OutputsLost { attempt, why }
        }
    }
}

/// What a failed run left is no result: only a success is gathered. Outputs
/// that break a rule make it a failure, with nothing kept.
fn seal_and_keep(
    host: &BuilderHost,
    dir: &AttemptDir,
    spec: Option<&JobSpec>,
) -> Result<(SealedOutputs, Option<Outcome>), SealError> {
    let at = |path: PathBuf| move |source| SealError::Host { path, source };
    let exit = dir.read_exit().map_err(at(dir.exit()))?;
    let succeeded = exit.is_some_and(|record| record.report.outcome == Outcome::Succeeded);
    let sealed = match spec.filter(|_| succeeded) {
        Some(spec) => {
            let limits = seal_limits(host, spec);
            seal::seal(&dir.outputs(), &dir.sealed(), &spec.outputs, limits)
        }
        None => seal_empty(dir),
    };
    let (sealed, outcome) = match sealed {
        Ok(sealed) => (sealed, None),
        Err(SealError::Job(why)) => {
            let (kind, why) = (FailureKind::Outputs, Reason::cut(why));
            (seal_empty(dir)?, Some(Outcome::Failed { kind, why }))
        }
        Err(error @ SealError::Host { .. }) => return Err(error),
    };
    failpoint::pass(Failpoint::OutputsSealed);
    seal::keep_manifest(&dir.manifest(), &sealed.manifest).map_err(at(dir.manifest()))?;
    failpoint::pass(Failpoint::ManifestKept);
    Ok((sealed, outcome))
}

fn log_bytes(dir: &AttemptDir) -> u64 {
    match dir.read_exit() {
        Ok(Some(record)) => record.log.length,
        Ok(None) | Err(_) => std::fs::metadata(dir.log()).map_or(0, |meta| meta.len()),
    }
}

fn seal_empty(dir: &AttemptDir) -> Result<SealedOutputs, SealError> {
    let host = |source| SealError::Host {
        path: dir.sealed(),
        source,
    };
    for place in [dir.outputs(), dir.sealed()] {
        places::remove_tree(&place).map_err(host)?;
    }
    // Where nothing ran there is no directory either.
    std::fs::create_dir_all(dir.outputs()).map_err(host)?;
    seal::seal(&dir.outputs(), &dir.sealed(), &[], SealLimits::default())
}

fn seal_limits(host: &BuilderHost, spec: &JobSpec) -> SealLimits {
    let (asked, builder) = (&spec.limits, host.limits.seal);
    SealLimits {
        outputs: stricter(asked.outputs, builder.outputs),
        output_bytes: stricter(asked.output_bytes, builder.output_bytes),
    }
}
