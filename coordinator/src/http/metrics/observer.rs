//! What takes time, seen as the ledger tells it: from submit to start, from an
//! end to the next start on the same builder, of a reset, and of builders that
//! stood idle while a job they took was waiting already.
//!
//! Follows committed entries only, remembers bounded numbers of them, and
//! forgets all when it had to pass entries over: a figure is missed rather
//! than wrong.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use farmbell_farm::record::{LedgerEntry, LedgerKind};
use farmbell_protocol::id::{BuilderId, JobId};
use farmbell_protocol::time::Wall;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

/// Jobs whose submit is remembered until they start: enough for every job that
/// starts soon; one that waits behind more is measured by the queue's age.
const JOBS_MAX: usize = 65_536;

/// Words of verdicts: the label's closed set.
const VERDICTS: [&str; 5] = [
    "succeeded",
    "failed",
    "cancelled",
    "superseded",
    "infrastructure",
];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VerdictLabel {
    verdict: &'static str,
}

/// The figures; clones are the same figures.
#[derive(Clone, Debug)]
pub(in crate::http) struct Observed {
    start: Histogram,
    turnaround: Histogram,
    reset: Histogram,
    idle_with_work: Counter<f64, AtomicU64>,
    verdicts: Family<VerdictLabel, Counter>,
    reset_failures: Counter,
    attempts_lost: Counter,
    breaches: Counter,
    repairs: Counter,
}

/// What has begun and not ended yet.
#[derive(Debug, Default)]
struct Begun {
    /// When it was submitted, and the builder that has it.
    jobs: BTreeMap<JobId, (Wall, Option<BuilderId>)>,
    resetting: BTreeMap<BuilderId, Wall>,
    clean: BTreeMap<BuilderId, Wall>,
    ended: BTreeMap<BuilderId, Wall>,
}

impl Default for Observed {
    fn default() -> Self {
        let verdicts = Family::<VerdictLabel, Counter>::default();
        for verdict in VERDICTS {
            // A counter that is there from the start can be watched for rises.
            drop(verdicts.get_or_create(&VerdictLabel { verdict }));
        }
        // From a quiet farm's millisecond to a day in the queue.
        let waits = || Histogram::new(exponential_buckets(0.001, 4.0, 14));
        Self {
            start: waits(),
            turnaround: waits(),
            reset: Histogram::new(exponential_buckets(0.01, 4.0, 9)),
            idle_with_work: Counter::default(),
            verdicts,
            reset_failures: Counter::default(),
            attempts_lost: Counter::default(),
            breaches: Counter::default(),
            repairs: Counter::default(),
        }
    }
}

impl Observed {
    pub(super) fn register(&self, registry: &mut Registry) {
        let seconds = || Unit::Seconds;
        registry.register_with_unit(
            "job_start",
            "From submit, or the start of a retry, to the command running",
            seconds(),
            self.start.clone(),
        );
        registry.register_with_unit(
            "builder_turnaround",
            "From the end of an attempt to the next running there, work waiting all the while",
            seconds(),
            self.turnaround.clone(),
        );
        registry.register_with_unit(
            "builder_reset",
            "Resets with their probes, from order to proof",
            seconds(),
            self.reset.clone(),
        );
        registry.register_with_unit(
            "builder_idle_with_work",
            "Time that clean builders stood idle while the job they then took was waiting",
            seconds(),
            self.idle_with_work.clone(),
        );
        registry.register(
            "verdicts",
            "Generations of jobs that ended",
            self.verdicts.clone(),
        );
        registry.register(
            "reset_failures",
            "Resets or probes that failed",
            self.reset_failures.clone(),
        );
        registry.register(
            "attempts_lost",
            "Attempts lost with their builders",
            self.attempts_lost.clone(),
        );
        registry.register(
            "isolation_breaches",
            "Builders found busy that were believed free",
            self.breaches.clone(),
        );
        registry.register(
            "repairs",
            "Things that the sweep had to mend: each is a bug of the farm's",
            self.repairs.clone(),
        );
    }

    fn take(&self, begun: &mut Begun, entry: &LedgerEntry) {
        match entry.kind {
            LedgerKind::JobSubmitted | LedgerKind::JobRetried => begun.submitted(entry),
            LedgerKind::JobAssigned => self.assigned(begun, entry),
            LedgerKind::JobRunning => self.running(begun, entry),
            LedgerKind::JobCollecting => begun.collecting(entry),
            LedgerKind::JobVerdict => self.verdict(begun, entry),
            LedgerKind::BuilderResetting => begun.resetting(entry),
            LedgerKind::BuilderClean => self.clean(begun, entry),
            LedgerKind::BuilderRemoved => begun.removed(entry),
            LedgerKind::BuilderResetFailed => drop(self.reset_failures.inc()),
            LedgerKind::AttemptLost => drop(self.attempts_lost.inc()),
            LedgerKind::IsolationBreach => drop(self.breaches.inc()),
            LedgerKind::Repaired => drop(self.repairs.inc()),
            LedgerKind::Started
            | LedgerKind::JobFinishing
            | LedgerKind::JobReturned
            | LedgerKind::JobCancelWished
            | LedgerKind::AttemptRefused
            | LedgerKind::AttemptWithdrawn
            | LedgerKind::AttemptAdopted
            | LedgerKind::StaleReport
            | LedgerKind::BuilderAdded
            | LedgerKind::BuilderMode
            | LedgerKind::BuilderFitness
            | LedgerKind::AgentJoined
            | LedgerKind::AgentLinked
            | LedgerKind::AgentUnreachable
            | LedgerKind::AgentFrozen
            | LedgerKind::AgentRevoked
            | LedgerKind::AgentApproved
            | LedgerKind::AgentRemoved
            | LedgerKind::TokenCreated
            | LedgerKind::TokenRevoked
            | LedgerKind::TokenRefused
            | LedgerKind::RestoreSuspected
            | LedgerKind::RestoreAccepted
            | LedgerKind::EventParked
            | LedgerKind::JobSuspended
            | LedgerKind::JobResumed
            | LedgerKind::JobPriority
            | LedgerKind::BulkBegun
            | LedgerKind::BulkEnded
            | LedgerKind::QueueBrake
            | LedgerKind::Blamed
            | LedgerKind::JobWaits
            | LedgerKind::JobWoken
            | LedgerKind::PackageProvided
            | LedgerKind::HistoryRetired
            | LedgerKind::BuilderResetRule => {}
        }
    }

    fn assigned(&self, begun: &mut Begun, entry: &LedgerEntry) {
        let (Some(job), Some(builder)) = (entry.job, entry.builder) else {
            return;
        };
        let clean = begun.clean.remove(&builder);
        let Some((submitted, on)) = begun.jobs.get_mut(&job) else {
            return;
        };
        *on = Some(builder);
        if let Some(clean) = clean {
            let both = clean.max(*submitted);
            self.idle_with_work.inc_by(seconds(both, entry.at));
        }
    }

    fn running(&self, begun: &mut Begun, entry: &LedgerEntry) {
        let Some((submitted, builder)) = entry.job.and_then(|job| begun.jobs.remove(&job)) else {
            return;
        };
        self.start.observe(seconds(submitted, entry.at));
        let ended = builder.and_then(|builder| begun.ended.remove(&builder));
        if let Some(ended) = ended.filter(|ended| *ended >= submitted) {
            self.turnaround.observe(seconds(ended, entry.at));
        }
    }

    fn verdict(&self, begun: &mut Begun, entry: &LedgerEntry) {
        if let Some(job) = entry.job {
            begun.jobs.remove(&job);
        }
        let word = VERDICTS
            .into_iter()
            .find(|word| entry.why.starts_with(word));
        if let Some(verdict) = word {
            self.verdicts.get_or_create(&VerdictLabel { verdict }).inc();
        }
    }

    fn clean(&self, begun: &mut Begun, entry: &LedgerEntry) {
        let Some(builder) = entry.builder else { return };
        if let Some(ordered) = begun.resetting.remove(&builder) {
            self.reset.observe(seconds(ordered, entry.at));
        }
        begun.clean.insert(builder, entry.at);
    }
}

impl Begun {
    fn submitted(&mut self, entry: &LedgerEntry) {
        if let Some(job) = entry.job.filter(|_| self.jobs.len() < JOBS_MAX) {
            self.jobs.insert(job, (entry.at, None));
        }
    }

    fn collecting(&mut self, entry: &LedgerEntry) {
        if let Some(builder) = entry.builder {
            self.ended.insert(builder, entry.at);
        }
    }

    fn resetting(&mut self, entry: &LedgerEntry) {
        if let Some(builder) = entry.builder {
            self.clean.remove(&builder);
            self.resetting.insert(builder, entry.at);
        }
    }

    fn removed(&mut self, entry: &LedgerEntry) {
        if let Some(builder) = entry.builder {
            self.resetting.remove(&builder);
            self.clean.remove(&builder);
            self.ended.remove(&builder);
        }
    }
}

fn seconds(from: Wall, to: Wall) -> f64 {
    Duration::from_millis(to.0.saturating_sub(from.0)).as_secs_f64()
}

/// Follows the ledger for as long as there is one.
pub(in crate::http) async fn observe(observed: Observed, mut ledger: Receiver<LedgerEntry>) {
    let mut begun = Begun::default();
    loop {
        match ledger.recv().await {
            Ok(entry) => observed.take(&mut begun, &entry),
            Err(RecvError::Lagged(_)) => begun = Begun::default(),
            Err(RecvError::Closed) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: LedgerKind, at: u64, job: u64, builder: u32) -> LedgerEntry {
        LedgerEntry {
            seq: 1,
            at: Wall(at),
            kind,
            job: Some(JobId(job)),
            attempt: None,
            builder: Some(BuilderId(builder)),
            agent: None,
            by: farmbell_protocol::bounded::Text::default(),
            why: farmbell_protocol::bounded::Text::cut("succeeded: all well"),
        }
    }

    /// A sample as the metrics give it.
    fn sample(observed: &Observed, name: &str) -> f64 {
        let mut registry = Registry::default();
        observed.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let mut lines = text.lines();
        let line = lines.find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().parse().unwrap()
    }

    fn is(found: f64, wanted: f64) -> bool {
        (found - wanted).abs() < 1e-9
    }

    fn tell(story: &[(LedgerKind, u64, u64)]) -> Observed {
        let (observed, mut begun) = (Observed::default(), Begun::default());
        for (kind, at, job) in story {
            observed.take(&mut begun, &entry(*kind, *at, *job, 1));
        }
        observed
    }

    #[test]
    fn a_builder_is_idle_with_work_only_while_its_job_waits() {
        use LedgerKind::{BuilderClean, JobAssigned, JobSubmitted};
        let idle_with_work = |submitted| {
            let seen = tell(&[
                (BuilderClean, 0, 0),
                (JobSubmitted, submitted, 1),
                (JobAssigned, 1000, 1),
            ]);
            sample(&seen, "builder_idle_with_work_seconds_total")
        };
        assert!(is(idle_with_work(400), 0.6));
        assert!(is(idle_with_work(1000), 0.0));
    }

    #[test]
    fn turnaround_counts_only_work_that_was_waiting() {
        use LedgerKind::{JobAssigned, JobCollecting, JobRunning, JobSubmitted};
        let late = tell(&[
            (JobCollecting, 0, 1),
            (JobSubmitted, 500, 2),
            (JobAssigned, 501, 2),
            (JobRunning, 510, 2),
        ]);
        assert!(is(sample(&late, "builder_turnaround_seconds_count"), 0.0));
        assert!(is(sample(&late, "job_start_seconds_sum"), 0.01));
        let waiting = tell(&[
            (JobSubmitted, 0, 2),
            (JobCollecting, 100, 1),
            (JobAssigned, 110, 2),
            (JobRunning, 120, 2),
        ]);
        assert!(is(sample(&waiting, "builder_turnaround_seconds_sum"), 0.02));
    }

    #[test]
    fn resets_and_verdicts_are_counted() {
        use LedgerKind::{BuilderClean, BuilderResetting, JobVerdict};
        let seen = tell(&[
            (BuilderResetting, 0, 0),
            (BuilderClean, 250, 0),
            (JobVerdict, 300, 1),
        ]);
        assert!(is(sample(&seen, "builder_reset_seconds_sum"), 0.25));
        let verdicts = "verdicts_total{verdict=\"succeeded\"}";
        assert!(is(sample(&seen, verdicts), 1.0));
    }
}
