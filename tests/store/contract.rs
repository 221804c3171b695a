//! What every store promises, told once and run on each.

use std::path::PathBuf;

use farmbell_coordinator::store::{CommitError, Sqlite, Store, StoreError};
use farmbell_farm::record::{BulkRecord, Change, JobRecord, JobState, Meta, Snapshot, Stage};
use farmbell_protocol::id::{AgentId, BuilderId, JobId, SubmissionId};
use farmbell_protocol::time::Time;
use farmbell_tests::sim::SimStore;

use crate::records::{
    agent, attempt, attempt_id, builder, bulk, done, duration, entry, live, outputs, package, spec,
    submission, submit, token, waiting,
};

/// A store that a farm can crash over.
trait Fixture {
    type Store: Store;
    fn make() -> Self;
    /// The store as the next process finds it.
    fn next_life(&mut self) -> &mut Self::Store;
}

struct InMemory(Committed);

/// The simulation's store behind the same trait.
#[derive(Default)]
struct Committed(SimStore);

impl Store for Committed {
    fn load(&mut self) -> Result<Snapshot, StoreError> {
        Ok(self.0.snapshot())
    }

    fn jobs(&mut self, give: &mut dyn FnMut(JobRecord)) -> Result<(), StoreError> {
        self.0.unfinished().for_each(give);
        Ok(())
    }

    fn commit(&mut self, changes: &[Change]) -> Result<(), CommitError> {
        changes
            .iter()
            .cloned()
            .for_each(|change| self.0.apply(change));
        Ok(())
    }
}

impl Fixture for InMemory {
    type Store = Committed;

    fn make() -> Self {
        Self(Committed::default())
    }

    fn next_life(&mut self) -> &mut Committed {
        &mut self.0
    }
}

struct OnDisk {
    _directory: tempfile::TempDir,
    path: PathBuf,
    life: Option<Sqlite>,
}

impl Fixture for OnDisk {
    type Store = Sqlite;

    fn make() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self {
            path: directory.path().join("farm.db"),
            _directory: directory,
            life: None,
        }
    }

    fn next_life(&mut self) -> &mut Sqlite {
        self.life = None;
        self.life.insert(Sqlite::open(&self.path).unwrap())
    }
}

/// The unfinished jobs that a store gives, in its order.
pub(crate) fn jobs_of(store: &mut impl Store) -> Vec<JobRecord> {
    let mut jobs = Vec::new();
    store.jobs(&mut |job| jobs.push(job)).unwrap();
    jobs
}

macro_rules! each_store {
    ($($story:ident)*) => {
        mod simulated { $(#[test] fn $story() { super::$story::<super::InMemory>(); })* }
        mod sqlite { $(#[test] fn $story() { super::$story::<super::OnDisk>(); })* }
    };
}

each_store! {
    a_new_store_is_empty
    every_kind_of_record_comes_back_as_it_was
    the_newest_of_several_versions_counts
    a_live_job_comes_back_with_all_that_changed_beside_its_attempt
    what_is_over_is_not_loaded
    what_was_removed_is_gone
    jobs_that_wait_and_packages_come_back_until_it_is_over
    the_newest_duration_of_a_name_comes_back
    an_operation_comes_back_as_far_as_it_was_until_it_is_over
    what_was_retired_is_gone_and_nothing_else
}

fn a_new_store_is_empty<F: Fixture>() {
    let mut fixture = F::make();
    let store = fixture.next_life();
    let snapshot = store.load().unwrap();
    assert!(snapshot.meta.is_none());
    assert!(jobs_of(store).is_empty() && snapshot.submissions.is_empty());
    assert!(snapshot.builders.is_empty() && snapshot.agents.is_empty());
    assert!(snapshot.tokens.is_empty());
}

fn every_kind_of_record_comes_back_as_it_was<F: Fixture>() {
    let mut fixture = F::make();
    let meta = Meta {
        clock: Time(u64::MAX),
        job_floor: 3,
        ..Meta::default()
    };
    let mut changes = vec![
        Change::Meta(meta.clone()),
        Change::Job(Box::new(live(2))),
        Change::Attempt(Box::new(attempt(2, None))),
        Change::Artifacts {
            attempt: attempt_id(2),
            outputs: outputs(2),
        },
        Change::Builder(Box::new(builder(1))),
        Change::Agent(Box::new(agent(1))),
        Change::Token(token(u64::MAX, 0)),
    ];
    changes.extend(submit(1));
    changes.push(Change::Submission(submission(7, Some("key"), &[1])));
    fixture.next_life().commit(&changes).unwrap();
    let store = fixture.next_life();
    let snapshot = store.load().unwrap();
    assert_eq!(snapshot.meta, Some(meta));
    assert_eq!(jobs_of(store), [waiting(1), live(2)]);
    assert_eq!(snapshot.submissions, [submission(7, Some("key"), &[1])]);
    assert_eq!(snapshot.builders, [builder(1)]);
    assert_eq!(snapshot.agents, [agent(1)]);
    assert_eq!(snapshot.tokens, [token(u64::MAX, 0)]);
}

fn the_newest_of_several_versions_counts<F: Fixture>() {
    let mut fixture = F::make();
    let meta = |clock| {
        Change::Meta(Meta {
            clock: Time(clock),
            ..Meta::default()
        })
    };
    let store = fixture.next_life();
    store
        .commit(&[
            meta(1),
            Change::Job(Box::new(waiting(1))),
            Change::Job(Box::new(live(1))),
            meta(2),
        ])
        .unwrap();
    store.commit(&[Change::Token(token(1, 0))]).unwrap();
    store
        .commit(&[Change::Token(token(1, 1)), meta(3)])
        .unwrap();
    let store = fixture.next_life();
    let snapshot = store.load().unwrap();
    assert_eq!(snapshot.meta.unwrap().clock, Time(3));
    assert_eq!(jobs_of(store), [live(1)]);
    assert_eq!(snapshot.tokens, [token(1, 1)]);
}

fn a_live_job_comes_back_with_all_that_changed_beside_its_attempt<F: Fixture>() {
    let mut fixture = F::make();
    let at_stage = |priority, stage| {
        let mut job = live(1);
        job.priority = priority;
        if let JobState::Live(attempt) = &mut job.state {
            attempt.stage = stage;
        }
        job
    };
    let steps = [
        waiting(1),
        at_stage(1, Stage::Assigned),
        at_stage(1, Stage::Running),
        at_stage(2, Stage::Running),
        at_stage(2, Stage::Collecting),
        waiting(1),
        at_stage(2, Stage::Assigned),
        at_stage(2, Stage::Accepted),
    ];
    // Each step in the life that took the one before, and in a new one.
    for crash in [false, true] {
        let mut store = fixture.next_life();
        for step in &steps {
            if crash {
                store = fixture.next_life();
            }
            store
                .commit(&[Change::Job(Box::new(step.clone()))])
                .unwrap();
            assert_eq!(jobs_of(store).as_slice(), std::slice::from_ref(step));
        }
        store.commit(&[Change::Job(Box::new(done(1)))]).unwrap();
        assert!(jobs_of(fixture.next_life()).is_empty());
    }
}

/// A number of the history given out twice fails in the midst of a commit.
#[test]
fn what_a_failed_commit_wrote_of_a_live_job_is_not_taken_for_written() {
    let mut fixture = OnDisk::make();
    let store = fixture.next_life();
    store
        .commit(&[Change::Job(Box::new(live(1))), Change::Ledger(entry(1))])
        .unwrap();
    let mut risen = live(1);
    risen.priority += 1;
    let rise = [
        Change::Job(Box::new(risen.clone())),
        Change::Ledger(entry(1)),
    ];
    store.commit(&rise).unwrap_err();
    assert_eq!(jobs_of(store), [live(1)]);
    store.commit(&rise[..1]).unwrap();
    assert_eq!(jobs_of(store), [risen]);
}

fn what_is_over_is_not_loaded<F: Fixture>() {
    let mut fixture = F::make();
    let store = fixture.next_life();
    for job in 1..=4 {
        store.commit(&submit(job)).unwrap();
    }
    store
        .commit(&[
            Change::Job(Box::new(done(1))),
            Change::Job(Box::new(done(2))),
            Change::Submission(submission(2, Some("key"), &[2])),
            Change::Job(Box::new(live(3))),
            Change::Job(Box::new(done(4))),
        ])
        .unwrap();
    // A retry brings a finished job back.
    store.commit(&[Change::Job(Box::new(waiting(4)))]).unwrap();
    let store = fixture.next_life();
    let snapshot = store.load().unwrap();
    let jobs: Vec<_> = jobs_of(store).iter().map(|job| job.id).collect();
    assert_eq!(jobs, [JobId(3), JobId(4)]);
    // A submission without a key is nothing that a repeated submit could mean.
    let submissions: Vec<_> = snapshot.submissions.iter().map(|one| one.id).collect();
    assert_eq!(submissions, [SubmissionId(2)]);
}

fn what_was_removed_is_gone<F: Fixture>() {
    let mut fixture = F::make();
    let store = fixture.next_life();
    store
        .commit(&[
            Change::Builder(Box::new(builder(1))),
            Change::Builder(Box::new(builder(2))),
            Change::Agent(Box::new(agent(1))),
            Change::Spec {
                job: JobId(1),
                spec: spec(1),
            },
            Change::Ledger(entry(1)),
        ])
        .unwrap();
    store
        .commit(&[
            Change::BuilderRemoved(BuilderId(1)),
            Change::AgentRemoved(AgentId(1)),
            Change::BuilderRemoved(BuilderId(2)),
            Change::Builder(Box::new(builder(2))),
        ])
        .unwrap();
    let snapshot = fixture.next_life().load().unwrap();
    assert!(snapshot.agents.is_empty());
    assert_eq!(snapshot.builders, [builder(2)]);
}

fn jobs_that_wait_and_packages_come_back_until_it_is_over<F: Fixture>() {
    let mut fixture = F::make();
    let store = fixture.next_life();
    let tell = |name, owner, at| Change::Package(Box::new(package(name, owner, at)));
    store
        .commit(&[
            Change::Job(Box::new(done(1))),
            Change::Job(Box::new(done(2))),
            Change::Job(Box::new(done(3))),
            Change::Waits(JobId(1)),
            Change::Waits(JobId(3)),
            tell("baz", None, 1),
            tell("baz", Some("kim"), 2),
            tell("qux", None, 3),
        ])
        .unwrap();
    let forgotten = Box::new(package("qux", None, 3).key);
    store
        .commit(&[
            Change::WaitOver(JobId(3)),
            Change::Waits(JobId(1)),
            tell("baz", None, 4),
            Change::PackageForgotten(forgotten),
        ])
        .unwrap();
    let snapshot = fixture.next_life().load().unwrap();
    assert_eq!(snapshot.dependents, [done(1)]);
    let packages = [package("baz", None, 4), package("baz", Some("kim"), 2)];
    assert_eq!(snapshot.packages, packages);
}

fn the_newest_duration_of_a_name_comes_back<F: Fixture>() {
    let mut fixture = F::make();
    let store = fixture.next_life();
    let took = |name, seconds| Change::Duration(Box::new(duration(name, seconds)));
    store
        .commit(&[took("hello", 90), took("gcc", 4000)])
        .unwrap();
    store
        .commit(&[took("hello", 70), took("hello", 80)])
        .unwrap();
    let snapshot = fixture.next_life().load().unwrap();
    let newest = [duration("gcc", 4000), duration("hello", 80)];
    assert_eq!(snapshot.durations, newest);
}

fn what_was_retired_is_gone_and_nothing_else<F: Fixture>() {
    let mut fixture = F::make();
    let store = fixture.next_life();
    for job in 1..=2 {
        store.commit(&submit(job)).unwrap();
        let keyed = submission(job, Some("key"), &[job]);
        store.commit(&[Change::Submission(keyed)]).unwrap();
    }
    let retired = Change::SubmissionRetired {
        submission: SubmissionId(1),
        jobs: vec![JobId(1)],
    };
    store
        .commit(&[retired, Change::LedgerRetired { up_to: 1 }])
        .unwrap();
    let store = fixture.next_life();
    assert_eq!(jobs_of(store), [waiting(2)]);
    let keyed = submission(2, Some("key"), &[2]);
    assert_eq!(store.load().unwrap().submissions, [keyed]);
}

fn an_operation_comes_back_as_far_as_it_was_until_it_is_over<F: Fixture>() {
    let mut fixture = F::make();
    let further = BulkRecord {
        cursor: JobId(2),
        ..bulk()
    };
    let other = BulkRecord { id: 9, ..bulk() };
    let steps = [bulk(), other.clone(), further.clone()].map(|bulk| Change::Bulk(Box::new(bulk)));
    fixture.next_life().commit(&steps).unwrap();
    let store = fixture.next_life();
    assert_eq!(store.load().unwrap().bulk, [further.clone(), other]);
    store.commit(&[Change::BulkOver(9)]).unwrap();
    assert_eq!(fixture.next_life().load().unwrap().bulk, [further]);
}
