//! The brain of one builder: everything an agent decides about one place
//! where one attempt runs at a time. Pure: events in, effects out; the agent
//! and a stranger's builder are this same machine, and the simulation runs
//! thousands of it. Never touches a process, a file or a socket.
//!
//! ```text
//!            Offer        Started      Ended       Sealed      Committed
//!  free+clean ──▶ accepted ──▶ running ──▶ ended ──▶ sealed ──▶ released
//!                    │ NotStarted                      (the builder is free
//!                    ▼                                  and dirty again)
//!                 refused ──(acknowledged)──▶ released
//! ```
//!
//! The contract of whoever drives it:
//! 1. [`Effect::Spool`] records of one call are durable before any other
//!    effect of that call is performed (write before say). [`Effect::Seal`],
//!    and an [`Effect::Reset`] that leaves the host up, may begin meanwhile: a
//!    restart without the record would begin them as well.
//! 2. Effects are performed in order; a [`Effect::Say`] while there is no
//!    session is dropped (the next Welcome brings it level again).
//! 3. Everything asked for (`Start`, `Stop`, `Seal`, `Reset`, `Probe`) is
//!    answered by an event, once, however it ends.
//! 4. After a restart, [`Builder::restore`] is given the spool's records and
//!    what the host still runs, and carries on. A spool may be rewritten as
//!    [`Builder::records`] at any time.
//!
//! Invariant: the state that matters is a fold over the spooled records, so a
//! restored builder says exactly what the one before it said, under the same
//! numbers.

mod attempt;
mod event;
mod host;
mod orders;
mod reports;
mod restore;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

pub use event::{
    BuilderReport, Cleanliness, Effect, EndReport, Event, HostView, Record, ResetReport,
    SealReport, Settings, Survivor,
};

use crate::agent_to_coordinator::{Fitness, HelloAttempt, HelloBuilder};
use crate::bounded::{Reason, Text};
use crate::coordinator_to_agent::Standing;
use crate::id::{AttemptId, BootId, BuilderIndex, CleanNonce, Seq};
use crate::time::Time;
use attempt::{Attempt, Phase};
use reports::Reports;

/// One builder's state machine.
#[derive(Debug)]
pub struct Builder {
    settings: Settings,
    /// This builder's place in the live session.
    link: Option<BuilderIndex>,
    attempts: BTreeMap<AttemptId, Attempt>,
    reports: Reports,
    cleanliness: Cleanliness,
    /// A reset that was ordered while the builder was not free for it.
    wanted: Option<CleanNonce>,
    host: (Fitness, Text<512>),
    draining: bool,
    out_of_service: Option<Reason>,
    /// The run of the kernel that the records know.
    boot: Option<BootId>,
    /// Running, but in no record: stopped, and nothing starts beside them.
    strays: BTreeSet<AttemptId>,
    /// What the call in progress asks for.
    effects: Vec<Effect>,
}

impl Builder {
    /// A builder with an empty spool: dirty, for nobody has proved otherwise.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            link: None,
            attempts: BTreeMap::new(),
            reports: Reports::default(),
            cleanliness: Cleanliness::Dirty,
            wanted: None,
            host: (Fitness::Fit, Text::default()),
            draining: false,
            out_of_service: None,
            boot: None,
            strays: BTreeSet::new(),
            effects: Vec::new(),
        }
    }

    /// The builder as its spool tells, and what has to be done at once.
    #[must_use]
    pub fn restore(
        settings: Settings,
        records: Vec<Record>,
        host: &HostView,
        _now: Time,
    ) -> (Self, Vec<Effect>) {
        let mut builder = Self::new(settings);
        for record in records {
            builder.fold(record);
        }
        builder.reconcile(host);
        let effects = builder.finish();
        (builder, effects)
    }

    /// Whether outputs may travel during its reset.
    #[must_use]
    pub const fn spool_survives_reset(&self) -> bool {
        self.settings.spool_survives_reset
    }

    /// What this builder contributes to a Hello.
    #[must_use]
    pub fn hello(&self, index: BuilderIndex) -> (HelloBuilder, Vec<HelloAttempt>) {
        let settings = &self.settings;
        let hello = HelloBuilder {
            index,
            name: settings.name.clone(),
            recipes: settings.recipes.clone(),
            architectures: settings.architectures.clone(),
            open_tags: settings.open_tags.clone(),
            restricted_tags: settings.restricted_tags.clone(),
            virtualized: settings.virtualized,
            rung: settings.rung,
            memory_bytes: settings.memory_bytes,
            disk_bytes: settings.disk_bytes,
            reset_scope: settings.reset_scope,
            spool_survives_reset: settings.spool_survives_reset,
            last_seq: self.reports.last(),
            occupied_by: self.occupant(),
        };
        let attempts = self
            .attempts
            .iter()
            .map(|(&attempt, held)| HelloAttempt {
                builder: index,
                attempt,
                phase: held.hello_phase(),
                last_seq: held.last(),
            })
            .collect();
        (hello, attempts)
    }

    /// The fewest records that restore this builder: a spool may be replaced
    /// by them.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        let mut records: Vec<Record> = self
            .attempts
            .values()
            .flat_map(|attempt| attempt.records().iter().cloned())
            .collect();
        records.extend(self.reports.records());
        records.push(Record::Cleanliness(self.cleanliness));
        records.extend(self.boot.map(|boot| Record::Booted { boot }));
        if let Some(why) = &self.out_of_service {
            records.push(Record::OutOfService { why: why.clone() });
        }
        records
    }

    /// Takes one event; what must be done comes back in order.
    pub fn handle(&mut self, _now: Time, event: Event) -> Vec<Effect> {
        match event {
            Event::Linked {
                index,
                acked,
                standings,
            } => self.linked(index, acked, standings),
            Event::Unlinked => self.link = None,
            Event::Offer { attempt, spec } => self.offer(attempt, spec),
            Event::Abort { attempt, why: _ } => self.abort(attempt),
            Event::Abandon { attempt, why: _ } => self.abandon(attempt),
            Event::Committed { attempt } => self.committed(attempt),
            Event::Acked { attempt, seq } => self.acked(attempt, seq),
            Event::BuilderAcked { seq } => self.reports.acknowledge(seq),
            Event::ResetOrdered { nonce } => self.reset_ordered(nonce),
            Event::Started { attempt } => self.started(attempt),
            Event::NotStarted {
                attempt,
                refusal,
                why,
            } => self.not_started(attempt, refusal, why),
            Event::Ended { attempt, report } => self.ended(attempt, report),
            Event::Unkillable { attempt, why } => self.unkillable(attempt, why),
            Event::Sealed { attempt, report } => self.sealed(attempt, report),
            Event::OutputsLost { attempt, why } => self.outputs_lost(attempt, why),
            Event::ResetEnded { nonce, report } => self.reset_ended(nonce, report),
            Event::Fitness { fitness, why } => self.host = (fitness, Text::cut(why)),
            Event::SpoolSurvivesReset { proved } => self.settings.spool_survives_reset = proved,
            Event::Drain => self.draining = true,
            Event::Wake => {}
        }
        self.finish()
    }

    /// When [`Event::Wake`] is due, if ever. Nothing a builder decides by
    /// itself depends on time yet: limits and graces are its driver's.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        None
    }

    /// The attempt that keeps others away, if any.
    #[must_use]
    pub fn occupant(&self) -> Option<AttemptId> {
        self.attempts
            .iter()
            .find(|(_, held)| held.occupies())
            .map(|(&attempt, _)| attempt)
    }

    /// Whether anything of any attempt is still here.
    #[must_use]
    pub fn holds_attempts(&self) -> bool {
        !self.attempts.is_empty()
    }

    #[must_use]
    pub fn cleanliness(&self) -> Cleanliness {
        self.cleanliness
    }

    /// The session is open: say whatever the coordinator does not have.
    fn linked(&mut self, index: BuilderIndex, acked: Seq, standings: Vec<(AttemptId, Standing)>) {
        self.link = Some(index);
        self.catch_up(acked);
        for (attempt, standing) in standings {
            match standing {
                Standing::Continue { acked } => {
                    self.acked(attempt, acked);
                    self.repeat(attempt);
                }
                Standing::Committed => self.committed(attempt),
                Standing::Abandon { .. } | Standing::Lost => self.abandon(attempt),
            }
        }
    }

    /// What every call ends with.
    fn finish(&mut self) -> Vec<Effect> {
        self.start_wanted_reset();
        self.tell_fitness();
        std::mem::take(&mut self.effects)
    }

    /// Makes a record durable, takes it in, and says what it reports.
    fn record(&mut self, record: Record) {
        self.effects.push(Effect::Spool(record.clone()));
        let frame = self.fold(record);
        if let (Some(frame), Some(_)) = (frame, self.link) {
            self.effects.push(Effect::Say(frame));
        }
    }

    fn phase(&self, attempt: AttemptId) -> Option<Phase> {
        self.attempts.get(&attempt).map(Attempt::phase)
    }
}
