//! One builder's task: the brain, and whoever performs what it asks for. Owns
//! the order: records of a call are durable before anything else of that call
//! is done, but for what a restart would begin again. Everything that takes
//! time runs in tasks of its own and comes back as an event; a panic of one ends
//! that one.

mod attempts;
mod restore;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use farmbell_protocol::agent_to_coordinator::{Fitness, ResetScope};
use farmbell_protocol::builder::{Builder, Effect, Event, Record, ResetReport};
use farmbell_protocol::client::session::{Desk, ToBuilder};
use farmbell_protocol::id::AttemptId;
use farmbell_protocol::time::Time;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::attend::Making;
use crate::failpoint::{self, Failpoint};
use crate::health;
use crate::host::{BuilderHost, blocking};
use crate::reset;
use crate::spool::Spool;
use attempts::Held;

pub(crate) use restore::restored;

/// Host events that may wait for the brain: a few per attempt that is held.
const EVENTS_MAX: usize = 256;
/// How long the traces of a released attempt stay. Nobody waits for them to go,
/// and the next job is most likely about to start: it has disk and processors
/// first.
const LINGER: Duration = Duration::from_millis(100);
/// Before a disk that failed is tried again; nothing is said meanwhile.
const DISK_RETRY: Duration = Duration::from_secs(5);

/// How often a host that is too hot is looked at.
const COOLING: Duration = Duration::from_secs(30);

/// How the whole agent comes to its end, told to every builder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Leaving {
    /// Not at all.
    No,
    /// Finish what runs, take nothing new.
    Drain,
    /// End what runs and give it back.
    Cancel,
}

/// Attempts that are over for everybody. Without the records a restart would
/// hold them again, and be told the same again.
#[derive(Default)]
struct Released {
    /// Not written yet: they go ahead of the next ones.
    records: Vec<Record>,
    /// Directories to remove.
    attempts: Vec<AttemptId>,
    /// When both are done, at the latest.
    due: Option<Instant>,
}

/// What a builder's task is made of.
pub(crate) struct Driver {
    desk: Desk,
    host: BuilderHost,
    spool: Spool,
    held: BTreeMap<AttemptId, Held>,
    events: mpsc::Receiver<Event>,
    tell: mpsc::Sender<Event>,
    tasks: JoinSet<()>,
    released: Released,
    /// When a host that is too hot is looked at again.
    cooling: Option<Instant>,
    /// Where the next attempt will be.
    spare: Option<Making>,
    spares_made: u32,
    leaving: Leaving,
    /// Take one attempt, then drain.
    once: bool,
    began: Instant,
}

impl Driver {
    fn new(builder: Builder, host: BuilderHost, spool: Spool, once: bool) -> Self {
        let (tell, events) = mpsc::channel(EVENTS_MAX);
        Self {
            desk: Desk::new(builder),
            host,
            spool,
            held: BTreeMap::new(),
            events,
            tell,
            tasks: JoinSet::new(),
            released: Released::default(),
            cooling: None,
            spare: None,
            spares_made: 0,
            leaving: Leaving::No,
            once,
            began: Instant::now(),
        }
    }

    /// Serves for as long as it is polled. `busy` is dropped once the agent
    /// leaves and nothing is held; the session still needs this task then.
    pub(crate) async fn run(
        &mut self,
        first: Vec<Effect>,
        session: &mut mpsc::Receiver<ToBuilder>,
        leaving: &mut watch::Receiver<Leaving>,
        busy: &mut Option<mpsc::Sender<Infallible>>,
    ) {
        self.perform(first).await;
        self.look_at_host();
        self.desk.resume();
        loop {
            let idle = self.leaving > Leaving::No && !self.desk.builder().holds_attempts();
            if idle && let Some(busy) = busy.take() {
                self.clear_released().await;
                tracing::info!(builder = %self.host.name, "nothing is held any more");
                drop(busy);
            }
            let deadline = self.desk.next_deadline();
            let wake = deadline.map(|at| self.began + at.since(Time::ZERO));
            let effects = tokio::select! {
                Some(message) = session.recv() => {
                    if matches!(message, ToBuilder::Linked { .. }) {
                        self.look_at_host();
                    }
                    self.desk.take(self.now(), message)
                }
                Some(event) = self.events.recv() => {
                    let nothing_runs = nothing_runs(&event);
                    self.heed_heat(&event);
                    let effects = self.desk.handle(self.now(), event);
                    self.perform(effects).await;
                    if nothing_runs {
                        self.make_spare();
                    }
                    continue;
                }
                Some(ended) = self.tasks.join_next() => {
                    if let Err(error) = ended && error.is_panic() {
                        tracing::error!(builder = %self.host.name, %error, "a task panicked");
                    }
                    continue;
                }
                Ok(()) = leaving.changed() => {
                    let how = *leaving.borrow_and_update();
                    self.leave(how)
                }
                () = sleep_until(wake) => self.desk.handle(self.now(), Event::Wake),
                () = sleep_until(self.released.due) => {
                    self.clear_released().await;
                    continue;
                }
                () = sleep_until(self.cooling) => {
                    self.cooling = None;
                    self.look_at_host();
                    continue;
                }
            };
            self.perform(effects).await;
        }
    }

    /// Takes the place of a driver that panicked.
    pub(crate) fn follow(&mut self, before: Self) {
        self.desk.follow(before.desk);
    }

    /// Serves the session for as long as it is polled, and does nothing else.
    pub(crate) async fn wait(&mut self, session: &mut mpsc::Receiver<ToBuilder>) {
        while let Some(message) = session.recv().await {
            self.desk.wait(message);
        }
    }

    fn now(&self) -> Time {
        Time::ZERO + self.began.elapsed()
    }

    fn leave(&mut self, how: Leaving) -> Vec<Effect> {
        self.leaving = how;
        match how {
            Leaving::No => Vec::new(),
            Leaving::Drain => self.desk.handle(self.now(), Event::Drain),
            Leaving::Cancel => {
                self.held
                    .values_mut()
                    .for_each(|held| held.leave(self.host.grace()));
                self.desk.handle(self.now(), Event::Drain)
            }
        }
    }

    async fn perform(&mut self, effects: Vec<Effect>) {
        let mut records = Vec::new();
        let mut others = Vec::new();
        for effect in effects {
            if let Effect::Spool(record) = effect {
                records.push(record);
            } else if self.may_begin_early(&effect) {
                self.perform_one(effect);
            } else {
                others.push(effect);
            }
        }
        if records.iter().all(is_release) {
            self.released.records.append(&mut records);
        } else {
            self.keep(records).await;
        }
        for effect in others {
            self.perform_one(effect);
            failpoint::pass(Failpoint::BetweenEffects);
        }
    }

    /// Whether this may begin while its record goes to the disk, because a
    /// restart without the record would begin it as well: the exit record asks
    /// for the seal again, and the coordinator for the reset. Its end is an
    /// event, which is taken up after the record. A reset that takes the host
    /// down is told from a crash by its record alone.
    fn may_begin_early(&self, effect: &Effect) -> bool {
        match effect {
            Effect::Seal { .. } => true,
            Effect::Reset { .. } => self.host.reset_scope != ResetScope::Host,
            Effect::Spool(_)
            | Effect::Say(_)
            | Effect::Start { .. }
            | Effect::Stop { .. }
            | Effect::Upload { .. }
            | Effect::Release { .. }
            | Effect::Probe { .. } => false,
        }
    }

    /// A disk that fails holds this builder up and says so; nothing is done
    /// that was not written.
    async fn keep(&mut self, new: Vec<Record>) {
        let mut records = std::mem::take(&mut self.released.records);
        records.extend(new);
        let size = loop {
            match self.spool.append(records.clone()).await {
                Ok(size) => break size,
                Err(error) => {
                    tracing::error!(builder = %self.host.name, %error, "waiting for the disk")
                }
            }
            tokio::time::sleep(DISK_RETRY).await;
        };
        if records.iter().any(is_release) && Spool::is_large(size) {
            let records = self.desk.builder().records();
            if let Err(error) = self.spool.rewrite(records).await {
                tracing::error!(builder = %self.host.name, %error, "the spool stays long");
            }
        }
    }

    /// Forgets what was released, on the disk as well.
    async fn clear_released(&mut self) {
        if !self.released.records.is_empty() {
            self.keep(Vec::new()).await;
        }
        self.released.due = None;
        for attempt in std::mem::take(&mut self.released.attempts) {
            self.remove(attempt);
        }
    }

    fn perform_one(&mut self, effect: Effect) {
        match effect {
            // Written before anything else of its call.
            Effect::Spool(_) => {}
            Effect::Say(frame) => self.desk.say(frame),
            Effect::Start { attempt, spec } => {
                self.start(attempt, spec);
                if self.once && self.leaving == Leaving::No {
                    self.leaving = Leaving::Drain;
                    self.tell_soon(Event::Drain);
                }
            }
            Effect::Stop { attempt, grace } => {
                assert!(
                    !failpoint::fires(Failpoint::PanicInBuilder),
                    "injected: a panic in a builder's task"
                );
                self.stop(attempt, grace);
            }
            Effect::Seal { attempt } => self.seal(attempt),
            Effect::Upload { attempt } => self.upload(attempt),
            Effect::Release { attempt } => self.release(attempt),
            Effect::Reset { nonce } => {
                let (host, tell) = (self.host.clone(), self.tell.clone());
                self.tasks.spawn(async move {
                    let canary = reset::set_canary(&host).await;
                    let report = reset::reset(&host).await;
                    if let Some(canary) = canary {
                        say(&tell, reset::look_for(&host, canary).await).await;
                    }
                    say(&tell, Event::ResetEnded { nonce, report }).await;
                    // The next job does not wait for a look.
                    tell_of_host(host, &tell).await;
                });
            }
            Effect::Probe { nonce } => {
                let (host, tell) = (self.host.clone(), self.tell.clone());
                self.tasks.spawn(async move {
                    let report = reset::probe_alone(&host).await;
                    say(&tell, Event::ResetEnded { nonce, report }).await;
                });
            }
        }
    }

    fn heed_heat(&mut self, event: &Event) {
        if let Event::Fitness { fitness, .. } = event {
            let hot = *fitness == Fitness::Throttled;
            self.cooling = hot.then(|| Instant::now() + COOLING);
        }
    }

    fn look_at_host(&mut self) {
        let (host, tell) = (self.host.clone(), self.tell.clone());
        self.tasks
            .spawn(async move { tell_of_host(host, &tell).await });
    }

    /// An event for the brain, behind those that wait.
    fn tell_soon(&mut self, event: Event) {
        let tell = self.tell.clone();
        self.tasks.spawn(async move { say(&tell, event).await });
    }
}

/// Whether this tells that the last build is gone and the next has not begun.
const fn nothing_runs(event: &Event) -> bool {
    matches!(
        event,
        Event::Sealed { .. }
            | Event::ResetEnded {
                report: ResetReport::Clean { .. },
                ..
            }
    )
}

const fn is_release(record: &Record) -> bool {
    matches!(record, Record::Released { .. })
}

async fn tell_of_host(host: BuilderHost, tell: &mpsc::Sender<Event>) {
    match blocking(move || health::look(&host)).await {
        Ok(event) => say(tell, event).await,
        Err(error) => tracing::warn!(%error, "the host was not looked at"),
    }
}

async fn say(tell: &mpsc::Sender<Event>, event: Event) {
    if tell.send(event).await.is_err() {
        tracing::debug!("the builder's task is gone");
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
