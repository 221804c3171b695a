//! Dependency waits. Owns which finished jobs wait for packages, and what lets
//! them run again: a package that the farm stored, one that somebody told it
//! of (the hook of an archive), or an operator's word. Never decides what a
//! failure is (verdicts.rs does).
//!
//! ```text
//! verdict failed(dependency_wait) ─► waits ─► all of it there, or woken ─► next generation
//! ```
//! The verdict stands: what waits is the job, not its generation. Suspending
//! it, or another score, is for the next one. A package
//! counts if it came after the generation had begun, so one that came while
//! the attempt ran is not missed, and one that did not help then does not
//! wake it again.

use std::collections::{BTreeMap, BTreeSet};

use farmbell_protocol::bounded::{Name, Reason, Text};
use farmbell_protocol::id::JobId;
use farmbell_protocol::outcome::{FailureKind, Verdict};
use farmbell_protocol::spec::Output;
use farmbell_protocol::time::Time;

use crate::effect::{Explanation, Hold, Refused, RefusedCode, Reply};
use crate::farm::Farm;
use crate::ledger::About;
use crate::record::{
    CancelWish, Change, JobRecord, JobState, LedgerKind, PackageKey, PackageRecord,
};
use crate::relation::{PackageFile, Relation};
use crate::versions::is_version;

/// Jobs woken by one step; the rest follows in the next, which is due at once.
const WAKE_STEP: usize = 1000;
/// Packages remembered, the newest: those of a whole distribution.
const PACKAGES_MAX: usize = 1 << 17;

#[derive(Clone, Debug, Default)]
pub(crate) struct Dependencies {
    waits: BTreeMap<JobId, Wait>,
    /// Who looks at a package of this name.
    wanted: BTreeMap<String, BTreeSet<JobId>>,
    packages: BTreeMap<PackageKey, (Text<128>, Time)>,
    by_age: BTreeSet<(Time, PackageKey)>,
    /// Everything they wait for is there.
    met: BTreeSet<JobId>,
}

/// A job that waits, as its verdict left it.
#[derive(Clone, Debug)]
struct Wait {
    job: JobRecord,
    /// None where the recipe's words are no relation: only an operator wakes it.
    relation: Option<Relation>,
}

impl Dependencies {
    pub(crate) fn len(&self) -> usize {
        self.waits.len()
    }

    pub(crate) fn get(&self, job: JobId) -> Option<&JobRecord> {
        self.waits.get(&job).map(|wait| &wait.job)
    }

    /// Those numbered above `after`, rising.
    pub(crate) fn after(&self, after: JobId) -> impl Iterator<Item = &JobRecord> + '_ {
        use std::ops::Bound::{Excluded, Unbounded};
        let range = self.waits.range((Excluded(after), Unbounded));
        range.map(|(_, wait)| &wait.job)
    }

    /// Whether somebody could run again at once.
    pub(crate) fn is_due(&self) -> bool {
        !self.met.is_empty()
    }

    pub(crate) fn insert(&mut self, job: JobRecord) {
        let relation = missing_of(&job).and_then(Relation::parse);
        for name in relation.iter().flat_map(Relation::names) {
            let wanted = self.wanted.entry(name.to_owned()).or_default();
            wanted.insert(job.id);
        }
        let id = job.id;
        self.waits.insert(id, Wait { job, relation });
        self.note_if_met(id);
    }

    pub(crate) fn remove(&mut self, job: JobId) -> Option<JobRecord> {
        let wait = self.waits.remove(&job)?;
        self.met.remove(&job);
        for name in wait.relation.iter().flat_map(Relation::names) {
            if let Some(wanted) = self.wanted.get_mut(name) {
                wanted.remove(&job);
                if wanted.is_empty() {
                    self.wanted.remove(name);
                }
            }
        }
        Some(wait.job)
    }

    /// Remembers a package; says which one had to be forgotten for it.
    pub(crate) fn learn(&mut self, package: PackageRecord) -> Option<PackageKey> {
        let PackageRecord { key, version, at } = package;
        if let Some((_, before)) = self.packages.insert(key.clone(), (version, at)) {
            self.by_age.remove(&(before, key.clone()));
        }
        self.by_age.insert((at, key.clone()));
        let wanted = self.wanted.get(key.name.as_str());
        for job in wanted.cloned().unwrap_or_default() {
            self.note_if_met(job);
        }
        if self.packages.len() <= PACKAGES_MAX {
            return None;
        }
        let (_, oldest) = self.by_age.pop_first()?;
        self.packages.remove(&oldest);
        Some(oldest)
    }

    fn note_if_met(&mut self, id: JobId) {
        let Some(Wait { job, relation }) = self.waits.get(&id) else {
            return;
        };
        let is_there = |name: &str, takes: &dyn Fn(&str) -> bool| {
            self.named(name).any(|(key, (version, at))| {
                *at > job.submitted
                    && key.suite == job.suite
                    && PackageFile::is_for(&key.architecture, &job.needs.architecture)
                    && key.owner.as_ref().is_none_or(|owner| *owner == job.owner)
                    && takes(version.as_str())
            })
        };
        let met = relation.as_ref().is_some_and(|relation| {
            relation.is_met(|wanted| is_there(&wanted.name, &|version| wanted.takes(version)))
        });
        if met {
            self.met.insert(id);
        }
    }

    fn named<'a>(
        &'a self,
        name: &'a str,
    ) -> impl Iterator<Item = (&'a PackageKey, &'a (Text<128>, Time))> {
        let first = PackageKey {
            name: Text::cut(name),
            ..PackageKey::default()
        };
        self.packages
            .range(first..)
            .take_while(move |(key, _)| key.name.as_str() == name)
    }
}

/// What the recipe said is missing, if that is how the job ended.
pub(crate) fn missing_of(job: &JobRecord) -> Option<&str> {
    match &job.state {
        JobState::Done(done) => match &done.verdict {
            Verdict::Failed {
                kind: FailureKind::DependencyWait,
                why,
            } => Some(why.as_str()),
            Verdict::Succeeded
            | Verdict::Failed { .. }
            | Verdict::Cancelled
            | Verdict::Superseded
            | Verdict::Infrastructure { .. } => None,
        },
        JobState::Waiting { .. } | JobState::Live(_) => None,
    }
}

impl Farm {
    /// A generation has its verdict: if dependencies were missing, the job
    /// waits for them from now on.
    pub(crate) fn await_dependencies(&mut self, job: JobRecord) {
        let id = job.id;
        let missing = missing_of(&job).unwrap_or_default();
        let line = format!("waits for {missing}");
        self.step.changes.push(Change::Waits(id));
        self.note(LedgerKind::JobWaits, About::job(id), line);
        self.dependencies.insert(job);
    }

    /// An attempt's outputs are stored: packages among them may be waited for.
    pub(crate) fn packages_stored(&mut self, job: JobId, outputs: &[Output]) {
        let Some(producer) = self.jobs.get(&job) else {
            return;
        };
        let owner = self.queue.owners.name(producer.owner);
        let owner = producer.private.then(|| owner.clone());
        let suite = Name::cut(&*producer.suite);
        let files: Vec<PackageFile> = outputs
            .iter()
            .filter_map(|output| PackageFile::of(output, &producer.version))
            .collect();
        for PackageFile {
            name,
            version,
            architecture,
        } in files
        {
            let key = PackageKey {
                name,
                architecture,
                suite: suite.clone(),
                owner: owner.clone(),
            };
            self.learn_package(key, version);
        }
    }

    /// Somebody tells that a package can be had from now on.
    pub(crate) fn provide(
        &mut self,
        by: &Text<128>,
        key: PackageKey,
        version: Text<128>,
    ) -> Result<Reply, Refused> {
        if !is_version(&version) || key.name.is_empty() || key.architecture.is_empty() {
            return Err(Refused {
                code: RefusedCode::Invalid,
                cause: format!("'{} {version}' is no Debian package", key.name),
                fix: "give its name, its whole version and its architecture".to_owned(),
            });
        }
        let line = format!("{} {version} ({}) can be had", key.name, key.architecture);
        self.note(LedgerKind::PackageProvided, About::default().by(by), line);
        self.learn_package(key, version);
        Ok(Reply::Done)
    }

    fn learn_package(&mut self, key: PackageKey, version: Text<128>) {
        let at = self.clock.now();
        let package = PackageRecord { key, version, at };
        let change = Change::Package(Box::new(package.clone()));
        self.step.changes.push(change);
        if let Some(forgotten) = self.dependencies.learn(package) {
            let change = Change::PackageForgotten(Box::new(forgotten));
            self.step.changes.push(change);
        }
    }

    /// Jobs for which everything is there run again, as many as a step may.
    pub(crate) fn wake_the_met(&mut self) {
        if self.meta.suspect.is_some() {
            return;
        }
        for _ in 0..WAKE_STEP {
            let Some(job) = self.dependencies.met.pop_first() else {
                return;
            };
            let all = "what it waits for is there";
            self.wake_job(&Text::default(), job, all);
        }
    }

    /// An operator knows better.
    pub(crate) fn wake_by_hand(
        &mut self,
        by: &Text<128>,
        job: JobId,
        why: &Text<256>,
    ) -> Result<Reply, Refused> {
        if self.meta.suspect.is_some() {
            return Err(crate::submit::suspect());
        }
        if self.wake_job(by, job, why) {
            return Ok(Reply::Done);
        }
        Err(Refused {
            code: RefusedCode::Conflict,
            cause: format!("job {job} waits for no dependency"),
            fix: format!("see farmbell job show {job}"),
        })
    }

    fn wake_job(&mut self, by: &Text<128>, id: JobId, why: &str) -> bool {
        let Some(job) = self.forget_wait(id) else {
            return false;
        };
        self.note(LedgerKind::JobWoken, About::job(id).by(by), why);
        if let Err(refused) = self.next_generation(by, &job, why) {
            self.note(LedgerKind::JobWoken, About::job(id), refused.cause);
        }
        true
    }

    /// Changes what the next generation of a job that waits begins with. The
    /// closure says whether it did.
    pub(crate) fn change_wait(
        &mut self,
        id: JobId,
        change: impl FnOnce(&mut JobRecord) -> bool,
    ) -> bool {
        let Some(wait) = self.dependencies.waits.get_mut(&id) else {
            return false;
        };
        if !change(&mut wait.job) {
            return false;
        }
        let record = Box::new(wait.job.clone());
        self.step.changes.push(Change::Job(record));
        true
    }

    /// The job waits for nothing any more.
    pub(crate) fn forget_wait(&mut self, id: JobId) -> Option<JobRecord> {
        let job = self.dependencies.remove(id)?;
        self.step.changes.push(Change::WaitOver(id));
        Some(job)
    }

    /// A job that waits is not wanted any more: its verdict stands, and the
    /// wish beside it.
    pub(crate) fn give_up_wait(&mut self, id: JobId, wish: CancelWish) -> bool {
        let Some(mut job) = self.forget_wait(id) else {
            return false;
        };
        let line = format!("it waits for its dependencies no more: {}", wish.why);
        self.note(
            LedgerKind::JobCancelWished,
            About::job(id).by(&wish.by),
            line,
        );
        job.cancel = Some(wish);
        self.step.changes.push(Change::Job(Box::new(job)));
        true
    }

    /// Why a finished job may still run again.
    pub(crate) fn explain_wait(&self, id: JobId) -> Option<Reply> {
        let job = self.dependencies.get(id)?;
        let missing = Reason::cut(missing_of(job)?);
        let held = Hold::Dependencies { missing };
        let then = if job.suspended { "; suspended" } else { "" };
        Some(Reply::Explained {
            job: Box::new(job.clone()),
            explanation: Some(Explanation {
                architecture: job.needs.architecture.clone(),
                summary: format!("{held}{then}"),
                held: Some(held),
                starts_in: None,
                builders: Vec::new(),
            }),
        })
    }
}
