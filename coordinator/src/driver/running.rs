//! The driver at work: one thread with the farm, one with the store. Owns when
//! events are taken, when a batch goes to the store, and when it is said.
//!
//! While one batch is in commit the next is gathered, so that farm and disk
//! work side by side; nothing of the later one is said before the earlier one
//! is durable. While the store takes nothing, the lanes stay unread.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use farmbell_farm::Settings;
use farmbell_farm::effect::{Effect, Reply};
use farmbell_farm::event::{Event, RequestId};
use farmbell_farm::record::Change;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Outbox;
use super::batch::{Batch, EVENTS_MAX};
use super::clock::{Clock, wall};
use super::guard::{Guard, GuardError};
use super::handle::{Lanes, Request};
use super::health::Stall;
use super::restore;
use super::turn::Turn;
use super::writer::{Committed, Writer};
use crate::failpoint::{self, Failpoint};
use crate::specs::Specs;
use crate::store::{CommitError, Store, StoreError};

/// Between two tries of a commit that the store could not take.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// All that a driver is made of.
#[derive(Debug)]
pub struct Parts<S, O> {
    pub settings: Settings,
    pub store: S,
    pub outbox: O,
    pub specs: Specs,
    pub guard: Guard,
}

/// A driver on its threads.
#[derive(Debug)]
pub struct Running {
    stop: oneshot::Sender<()>,
    ready: oneshot::Receiver<()>,
    end: oneshot::Receiver<Result<(), DriverError>>,
}

/// Why the driver ended, and the process has to.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}; nothing more is said, and the next start goes on from the store")]
    Commit(CommitError),
    #[error(transparent)]
    Guard(#[from] GuardError),
    #[error("the farm panicked over {what}: {why}; the next start goes on from the store")]
    Panicked { what: String, why: String },
    #[error("the thread of the {0} ended by itself; look for a panic above")]
    Thread(&'static str),
    #[error("the operating system gave no {what}: {why}")]
    System { what: &'static str, why: String },
}

/// Restores the farm from its store and sets it to work.
///
/// # Errors
/// If the store cannot be read or a thread cannot be started.
pub fn start<S, O>(lanes: Lanes, mut parts: Parts<S, O>) -> Result<Running, DriverError>
where
    S: Store + 'static,
    O: Outbox + 'static,
{
    let began = std::time::Instant::now();
    let snapshot = parts.store.load()?;
    let base = snapshot
        .meta
        .as_ref()
        .map_or_else(Default::default, |meta| meta.clock);
    let clock = Clock::from(base);
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| DriverError::System {
        what: "randomness",
        why: error.to_string(),
    })?;
    let (farm, effects) = restore::farm(
        &mut parts.store,
        parts.settings,
        snapshot,
        clock.now(),
        seed,
    )?;
    tracing::info!(ms = elapsed_ms(began), "farm restored from the store");

    let (writer, store_thread) = Writer::start(parts.store).map_err(no_thread)?;
    let (stop, stopping) = oneshot::channel();
    let (ready_tell, ready) = oneshot::channel();
    let (end_tell, end) = oneshot::channel();
    let driver = Driver {
        turn: Turn::new(farm, clock, parts.guard),
        outbox: parts.outbox,
        specs: parts.specs,
        writer,
        lanes,
        gathering: Batch::default(),
        in_commit: None,
        retry: None,
        replies: BTreeMap::new(),
        next_request: 0,
        ready: Some(ready_tell),
    };
    thread::Builder::new()
        .name("farm".to_owned())
        .spawn(move || {
            let ended = on_its_own_runtime(driver, effects, stopping);
            let joined = store_thread
                .join()
                .map_err(|_| DriverError::Thread("store"));
            if let Err(Err(unheard)) = end_tell.send(ended.and(joined)) {
                tracing::error!(error = %unheard, "the driver ended and nobody waits for it");
            }
        })
        .map_err(no_thread)?;
    Ok(Running { stop, ready, end })
}

impl Running {
    /// Waits for the first commit: the new epoch is durable, the farm works.
    /// Returns early if the driver ends.
    pub async fn ready(&mut self) {
        if (&mut self.ready).await.is_err() {
            tracing::debug!("the driver ended before its first commit");
        }
    }

    /// Waits until the driver ends by itself, which it does for errors only.
    ///
    /// # Errors
    /// The reason.
    pub async fn ended(&mut self) -> Result<(), DriverError> {
        (&mut self.end)
            .await
            .unwrap_or(Err(DriverError::Thread("farm")))
    }

    /// Takes no more events, commits and says what was taken, and ends.
    ///
    /// # Errors
    /// If the last commit fails.
    pub async fn stop(self) -> Result<(), DriverError> {
        if self.stop.send(()).is_err() {
            tracing::debug!("the driver had ended before it was told to");
        }
        self.end.await.unwrap_or(Err(DriverError::Thread("farm")))
    }
}

fn on_its_own_runtime<O: Outbox>(
    driver: Driver<O>,
    effects: Vec<Effect>,
    stopping: oneshot::Receiver<()>,
) -> Result<(), DriverError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(|error| DriverError::System {
            what: "runtime for the farm",
            why: error.to_string(),
        })?
        .block_on(driver.run(effects, stopping))
}

struct Driver<O> {
    turn: Turn,
    outbox: O,
    specs: Specs,
    writer: Writer,
    lanes: Lanes,
    /// What was handled and is not in commit yet.
    gathering: Batch,
    /// Effects that wait for the transaction in commit.
    in_commit: Option<Vec<Effect>>,
    /// A transaction that the store could not take, and when it is tried again.
    retry: Option<(Instant, Vec<Change>)>,
    replies: BTreeMap<RequestId, oneshot::Sender<Reply>>,
    next_request: u64,
    ready: Option<oneshot::Sender<()>>,
}

impl<O: Outbox> Driver<O> {
    async fn run(
        mut self,
        restored: Vec<Effect>,
        mut stopping: oneshot::Receiver<()>,
    ) -> Result<(), DriverError> {
        self.gathering.add(restored);
        let parked = self.turn.parked()?;
        self.gathering.add(parked);
        let mut stop = false;
        loop {
            self.hand_over()?;
            if stop && (self.in_commit.is_none() || self.retry.is_some()) {
                // What a stalled store did not take was never said either.
                return Ok(());
            }
            let takes = !stop && self.takes();
            tokio::select! {
                biased;
                committed = self.writer.committed(), if self.in_commit.is_some() && self.retry.is_none() => {
                    let committed = committed.map_err(|_gone| DriverError::Thread("store"))?;
                    self.settle(committed)?;
                }
                () = at(self.retry.as_ref().map(|(when, _)| *when)) => self.try_again()?,
                _ = &mut stopping, if !stop => stop = true,
                () = at(self.turn.deadline()), if takes => self.handle(Event::Wake)?,
                Some(event) = self.lanes.agents.recv(), if takes => {
                    self.handle(event)?;
                    self.take_what_waits()?;
                }
                Some(request) = self.lanes.http.recv(), if takes => {
                    self.handle_request(request)?;
                    self.take_what_waits()?;
                }
            }
        }
    }

    /// Lanes are read while there is room for the answers.
    fn takes(&self) -> bool {
        self.retry.is_none() && !self.gathering.is_full()
    }

    /// Everything that waits in both lanes, by turns, up to one batch.
    fn take_what_waits(&mut self) -> Result<(), DriverError> {
        for _ in 0..EVENTS_MAX {
            let event = self.lanes.agents.try_recv().ok();
            let request = self.lanes.http.try_recv().ok();
            if event.is_none() && request.is_none() {
                break;
            }
            if let Some(event) = event {
                self.handle(event)?;
            }
            if let Some(request) = request {
                self.handle_request(request)?;
            }
            if self.gathering.is_full() {
                break;
            }
        }
        Ok(())
    }

    fn handle_request(&mut self, request: Request) -> Result<(), DriverError> {
        let Request { by, command, reply } = request;
        self.next_request += 1;
        let id = RequestId(self.next_request);
        self.replies.insert(id, reply);
        self.handle(Event::Request {
            request: id,
            by,
            command,
        })
    }

    fn handle(&mut self, event: Event) -> Result<(), DriverError> {
        let effects = self.turn.handle(event)?;
        self.gathering.add(effects);
        self.lanes.meter.handled();
        failpoint::pass(Failpoint::AfterHandle);
        Ok(())
    }

    /// Gives the gathered batch to the store if that is free; a batch without
    /// changes waits only for those before it.
    fn hand_over(&mut self) -> Result<(), DriverError> {
        if self.in_commit.is_some() || self.gathering.is_empty() {
            return Ok(());
        }
        let Batch {
            changes, effects, ..
        } = std::mem::take(&mut self.gathering);
        if changes.is_empty() {
            self.perform(effects);
            return Ok(());
        }
        self.in_commit = Some(effects);
        self.commit(changes)
    }

    fn commit(&mut self, changes: Vec<Change>) -> Result<(), DriverError> {
        failpoint::pass(Failpoint::BeforeCommit);
        self.writer
            .commit(changes)
            .map_err(|_gone| DriverError::Thread("store"))
    }

    fn settle(&mut self, committed: Committed) -> Result<(), DriverError> {
        let Committed {
            changes,
            took,
            result,
        } = committed;
        match result {
            Ok(()) => {
                failpoint::pass(Failpoint::AfterCommit);
                self.lanes.meter.committed(changes.len() as u64, took);
                self.stall_ends();
                let effects = self.in_commit.take();
                // The store goes on with the next while this one is told of.
                if self.gathering.has_changes() {
                    self.hand_over()?;
                }
                self.publish(changes);
                self.perform(effects.unwrap_or_default());
                if let Some(ready) = self.ready.take()
                    && ready.send(()).is_err()
                {
                    tracing::debug!("nobody waits for the first commit");
                }
                Ok(())
            }
            Err(error @ (CommitError::Full { .. } | CommitError::Busy { .. })) => {
                self.stall_begins(&error);
                self.retry = Some((Instant::now() + RETRY_AFTER, changes));
                Ok(())
            }
            Err(error @ CommitError::Unknown { .. }) => Err(DriverError::Commit(error)),
        }
    }

    /// The same changes once more; their effects are still withheld.
    fn try_again(&mut self) -> Result<(), DriverError> {
        match self.retry.take() {
            Some((_, changes)) => self.commit(changes),
            None => Ok(()),
        }
    }

    fn stall_begins(&self, error: &CommitError) {
        if self.lanes.stall.borrow().is_some() {
            return;
        }
        tracing::error!(
            %error,
            "nothing can be made durable: nothing is accepted or said until the store takes it"
        );
        self.lanes.stall.send_replace(Some(Stall {
            since: wall(),
            why: error.to_string(),
        }));
    }

    fn stall_ends(&self) {
        if self.lanes.stall.borrow().is_some() {
            tracing::info!("the store takes changes again; nothing was lost");
            self.lanes.stall.send_replace(None);
        }
    }

    /// What readers beside the farm need of committed changes.
    fn publish(&self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Spec { job, spec } => self.specs.put(job, spec),
                // Nobody may be following, which is no error.
                Change::Ledger(entry) => drop(self.lanes.ledger.send(entry)),
                Change::Meta(_)
                | Change::Submission(_)
                | Change::Job(_)
                | Change::Attempt(_)
                | Change::Artifacts { .. }
                | Change::Builder(_)
                | Change::BuilderRemoved(_)
                | Change::Agent(_)
                | Change::AgentRemoved(_)
                | Change::Token(_)
                | Change::Waits(_)
                | Change::WaitOver(_)
                | Change::Package(_)
                | Change::PackageForgotten(_)
                | Change::Bulk(_)
                | Change::BulkOver(_)
                | Change::Duration(_)
                | Change::SubmissionRetired { .. }
                | Change::LedgerRetired { .. } => {}
            }
        }
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            failpoint::pass(Failpoint::BetweenEffects);
            match effect {
                Effect::Reply { request, reply } => {
                    if let Some(waits) = self.replies.remove(&request) {
                        // Whoever asked may have gone away; what it asked for is done.
                        drop(waits.send(*reply));
                    }
                }
                Effect::Change(_) => unreachable!("a batch keeps changes apart"),
                effect @ (Effect::Send { .. }
                | Effect::Offer { .. }
                | Effect::Welcome { .. }
                | Effect::Close { .. }
                | Effect::Admit { .. }
                | Effect::Dismiss { .. }
                | Effect::Expect { .. }
                | Effect::Look(_)
                | Effect::Search { .. }
                | Effect::Prune) => self.outbox.perform(effect),
            }
        }
    }
}

/// Ends at that moment; never where there is none.
async fn at(when: Option<Instant>) {
    match when {
        Some(when) => tokio::time::sleep_until(when).await,
        None => std::future::pending().await,
    }
}

pub(super) fn no_thread(error: std::io::Error) -> DriverError {
    DriverError::System {
        what: "thread",
        why: error.to_string(),
    }
}

fn elapsed_ms(since: std::time::Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}
