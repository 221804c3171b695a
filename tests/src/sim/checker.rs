//! The invariants I1–I9 as an outsider sees them: from what was committed,
//! what was answered, and what really happened on the hosts. Knows nothing of
//! the farm's inside. A broken one is a [`Broken`] with its number.

use std::collections::{BTreeMap, BTreeSet};

use farmbell_farm::record::{
    AttemptEnd, AttemptRecord, BuilderRecord, Change, JobRecord, JobState, LedgerEntry, LedgerKind,
    Occupation, Stage,
};
use farmbell_protocol::id::{AttemptId, BuilderId, CleanNonce, JobId, Seq};
use farmbell_protocol::outcome::{Outcome, Verdict};
use farmbell_protocol::spec::Output;

use super::bulk::Bulk;
use super::store::SimStore;

/// An invariant that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// For example `I3`.
    pub invariant: &'static str,
    pub what: String,
}

pub(super) fn broken<T>(invariant: &'static str, what: impl Into<String>) -> Result<T, Broken> {
    Err(Broken {
        invariant,
        what: what.into(),
    })
}

/// One execution, as the host tells it: a tally kept outside the farm.
#[derive(Clone, Debug)]
pub(super) struct Execution {
    pub(super) outcome: Option<Outcome>,
    pub(super) outputs: Option<Vec<Output>>,
    pub(super) log_bytes: u64,
}

#[derive(Debug, Default)]
pub(super) struct Checker {
    pub(super) tally: BTreeMap<AttemptId, Execution>,
    /// The fences seen under a number: never two.
    fences: BTreeMap<(JobId, u16, u16), AttemptId>,
    /// What the client was told, by idempotency key.
    submitted: BTreeMap<String, Vec<JobId>>,
    assigned: BTreeSet<(BuilderId, AttemptId)>,
    proofs: BTreeMap<BuilderId, Proof>,
    /// The highest number of a generation that was committed as running.
    ran: BTreeMap<(JobId, u16), u16>,
    /// Builders' highest stored report of the newest transaction, which may
    /// have removed the builder after that.
    reported: BTreeMap<BuilderId, Seq>,
}

/// What a builder has shown since its last assignment.
#[derive(Debug, Default)]
struct Proof {
    nonce: Option<CleanNonce>,
    shown: BTreeSet<CleanNonce>,
}

impl Checker {
    pub(super) fn transaction(&mut self) {
        self.reported.clear();
    }

    /// Looks at one committed change, before it is applied.
    pub(super) fn change(&mut self, store: &SimStore, change: &Change) -> Result<(), Broken> {
        match change {
            Change::Job(job) => self.job(store.jobs.get(&job.id), job),
            Change::Builder(builder) => self.builder(builder),
            Change::Ledger(entry) => ledger(store.ledger.last(), entry),
            Change::Attempt(attempt) => over(store.attempts.get(&attempt.id), attempt),
            Change::BuilderRemoved(builder) => {
                // What it had said was stored until now.
                if let Some(row) = store.builders.get(builder) {
                    let reported = self.reported.entry(*builder).or_default();
                    *reported = row.acked.max(*reported);
                }
                Ok(())
            }
            Change::Submission(_)
            | Change::Spec { .. }
            | Change::Artifacts { .. }
            | Change::Agent(_)
            | Change::AgentRemoved(_)
            | Change::Token(_)
            | Change::Waits(_)
            | Change::WaitOver(_)
            | Change::Package(_)
            | Change::PackageForgotten(_)
            | Change::Bulk(_)
            | Change::BulkOver(_)
            | Change::SubmissionRetired { .. }
            | Change::LedgerRetired { .. }
            | Change::Duration(_)
            | Change::Meta(_) => Ok(()),
        }
    }

    fn job(&mut self, before: Option<&JobRecord>, job: &JobRecord) -> Result<(), Broken> {
        if let JobState::Live(live) = &job.state {
            self.fence(live.id)?;
            if (live.id.job, live.id.generation) != (job.id, job.generation) {
                return broken("I1", format!("{} is live in another job's books", live.id));
            }
            // An adopted attempt may be older than the newest number.
            if live.id.number > job.attempt_number {
                return broken("I2", format!("{} is above its job's numbers", live.id));
            }
            self.live(live)?;
        }
        let Some(before) = before else {
            return Ok(());
        };
        if job.generation == before.generation {
            let steps = i32::from(job.attempt_number) - i32::from(before.attempt_number);
            if !(0..=1).contains(&steps) {
                let what = format!(
                    "{}: number {} follows {}",
                    job.id, job.attempt_number, before.attempt_number
                );
                return broken("I2", what);
            }
            if let JobState::Done(done) = &before.state
                && job.state != before.state
            {
                return broken("I3", format!("{}: the verdict {done:?} changed", job.id));
            }
        } else if job.generation != before.generation + 1
            || !matches!(before.state, JobState::Done(_))
        {
            return broken(
                "I3",
                format!("{}: a generation began before the last ended", job.id),
            );
        }
        if let JobState::Done(done) = &job.state
            && let Some(attempt) = done.attempt
            && (attempt.job, attempt.generation) != (job.id, job.generation)
        {
            return broken("I3", format!("{}: the verdict names {attempt}", job.id));
        }
        Ok(())
    }

    /// What the books say of a live attempt must be what happened to it, and
    /// nothing comes back once a later attempt was seen to run.
    fn live(&mut self, live: &AttemptRecord) -> Result<(), Broken> {
        let (id, ran) = (live.id, self.tally.get(&live.id));
        if live.stage == Stage::Running && ran.is_none() {
            return broken(
                "I1",
                format!("{id} is running in the books and nowhere else"),
            );
        }
        if live.outcome == Some(Outcome::Succeeded) && ran.is_none_or(|ran| ran.outcome.is_none()) {
            return broken("I1", format!("{id} has an outcome that it never reported"));
        }
        let newest = self.ran.entry((id.job, id.generation)).or_default();
        if id.number < *newest {
            return broken("I1", format!("{id} is live again, though {newest} has run"));
        }
        if live.started.is_some() {
            *newest = id.number;
        }
        Ok(())
    }

    fn fence(&mut self, attempt: AttemptId) -> Result<(), Broken> {
        let key = (attempt.job, attempt.generation, attempt.number);
        let first = *self.fences.entry(key).or_insert(attempt);
        if first != attempt {
            return broken("I2", format!("{attempt} was given out twice"));
        }
        Ok(())
    }

    /// I8: an assignment needs the answer to the newest challenge, which
    /// itself is newer than the assignment before.
    fn builder(&mut self, builder: &BuilderRecord) -> Result<(), Broken> {
        let reported = self.reported.entry(builder.id).or_default();
        *reported = builder.acked.max(*reported);
        let proof = self.proofs.entry(builder.id).or_default();
        if let Occupation::Held { attempt } = builder.occupation
            && self.assigned.insert((builder.id, attempt))
        {
            let proved = proof
                .nonce
                .is_some_and(|nonce| proof.shown.contains(&nonce));
            proof.shown.clear();
            if !proved {
                let what = format!("builder {} got {attempt} without a proof", builder.id);
                return broken("I8", what);
            }
        }
        proof.nonce = builder.nonce.or(proof.nonce);
        Ok(())
    }

    /// A clean proof reached the farm. Only the newest challenge's counts.
    pub(super) fn clean_shown(&mut self, builder: BuilderId, nonce: CleanNonce) {
        let proof = self.proofs.entry(builder).or_default();
        if proof.nonce == Some(nonce) {
            proof.shown.insert(nonce);
        }
    }

    /// Looks at what a transaction decided, after it was applied.
    pub(super) fn decided(&self, store: &SimStore, bulk: &Bulk, job: JobId) -> Result<(), Broken> {
        let Some(JobState::Done(done)) = store.jobs.get(&job).map(|job| &job.state) else {
            return Ok(());
        };
        let Some(attempt) = done.attempt else {
            return match done.verdict {
                Verdict::Succeeded => broken("I3", format!("{job} succeeded without an attempt")),
                Verdict::Failed { .. }
                | Verdict::Cancelled
                | Verdict::Superseded
                | Verdict::Infrastructure { .. } => Ok(()),
            };
        };
        if done.verdict != Verdict::Succeeded {
            return Ok(());
        }
        let Some(ran) = self.tally.get(&attempt) else {
            return broken("I3", format!("{attempt} never ran, yet its job succeeded"));
        };
        if ran.outcome != Some(Outcome::Succeeded) {
            return broken(
                "I3",
                format!(
                    "{attempt} ended as {:?}, yet its job succeeded",
                    ran.outcome
                ),
            );
        }
        let stored = bulk.stored(attempt);
        if stored.log != ran.log_bytes {
            let what = format!("{attempt}: {} of {} log bytes", stored.log, ran.log_bytes);
            return broken("I6", what);
        }
        let artifacts = store.artifacts.get(&attempt).map(AsRef::as_ref);
        if !stored.complete || artifacts.unwrap_or(&[]) != ran.outputs.as_deref().unwrap_or(&[]) {
            return broken(
                "I7",
                format!("{attempt}: its artifacts are not what was sealed"),
            );
        }
        Ok(())
    }

    /// A submit was answered.
    pub(super) fn submit_answered(
        &mut self,
        store: &SimStore,
        key: &str,
        jobs: &[JobId],
    ) -> Result<(), Broken> {
        if let Some(first) = self.submitted.get(key)
            && first != jobs
        {
            return broken("I4", format!("the submit {key} made two sets of jobs"));
        }
        self.submitted.insert(key.to_owned(), jobs.to_vec());
        exist(store, jobs)
    }

    /// Every acknowledged submit is still there.
    pub(super) fn submits_exist(&self, store: &SimStore) -> Result<(), Broken> {
        self.submitted
            .values()
            .try_for_each(|jobs| exist(store, jobs))
    }

    /// I5: what is acknowledged is in the store.
    pub(super) fn acknowledged(
        store: &SimStore,
        attempt: AttemptId,
        seq: Seq,
    ) -> Result<(), Broken> {
        match store.acked(attempt) {
            Some(stored) if stored >= seq => Ok(()),
            stored => broken(
                "I5",
                format!("{attempt}: acknowledged up to {seq}, stored {stored:?}"),
            ),
        }
    }

    pub(super) fn builder_acknowledged(
        &self,
        store: &SimStore,
        builder: BuilderId,
        seq: Seq,
    ) -> Result<(), Broken> {
        let row = store.builders.get(&builder).map(|builder| builder.acked);
        let stored = row.max(self.reported.get(&builder).copied());
        match stored {
            Some(stored) if stored >= seq => Ok(()),
            stored => broken(
                "I5",
                format!("builder {builder}: acknowledged up to {seq}, stored {stored:?}"),
            ),
        }
    }
}

fn exist(store: &SimStore, jobs: &[JobId]) -> Result<(), Broken> {
    let mut jobs = jobs.iter();
    match jobs.find(|job| !store.jobs.contains_key(job) || !store.specs.contains_key(job)) {
        Some(job) => broken(
            "I4",
            format!("the acknowledged job {job} is not in the store"),
        ),
        None => Ok(()),
    }
}

fn over(before: Option<&AttemptRecord>, attempt: &AttemptRecord) -> Result<(), Broken> {
    if attempt.end.is_none() {
        return broken("I3", format!("{} has a row without an end", attempt.id));
    }
    let verdict = |record: &AttemptRecord| record.end == Some(AttemptEnd::Verdict);
    if before.is_some_and(|before| verdict(before) && !verdict(attempt)) {
        return broken("I3", format!("{} lost its verdict", attempt.id));
    }
    Ok(())
}

fn ledger(before: Option<&LedgerEntry>, entry: &LedgerEntry) -> Result<(), Broken> {
    let expected = before.map_or(entry.seq, |before| before.seq + 1);
    if entry.kind == LedgerKind::Repaired {
        return broken(
            "I9",
            format!("the sweep had to mend something: {}", entry.why),
        );
    }
    if entry.seq == expected {
        return Ok(());
    }
    broken(
        "I5",
        format!("ledger entry {} where {expected} follows", entry.seq),
    )
}
