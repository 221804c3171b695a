//! What people may ask beside the writer.

use std::slice;

use farmbell_coordinator::store::{JobFilter, JobStanding, Queries, Sqlite, Store};
use farmbell_farm::effect::{Look, Search};
use farmbell_farm::event::{AgedSubmission, Ending, Filter};
use farmbell_farm::record::{AttemptEnd, Change, JobState};
use farmbell_protocol::bounded::Reason;
use farmbell_protocol::id::{IdPrefix, JobId, Seq, SubmissionId};
use farmbell_protocol::outcome::{FailureKind, Verdict};
use farmbell_protocol::time::Wall;

use crate::records::{
    attempt, attempt_id, done, entry, live, outputs, spec, submission, submit, text, waiting,
};

fn filled() -> (tempfile::TempDir, Sqlite) {
    let directory = tempfile::tempdir().unwrap();
    let mut store = Sqlite::open(&directory.path().join("farm.db")).unwrap();
    for job in 1..=6 {
        store.commit(&submit(job)).unwrap();
    }
    store
        .commit(&[
            Change::Job(Box::new(live(2))),
            Change::Job(Box::new(done(3))),
            Change::Attempt(Box::new(attempt(3, Some(AttemptEnd::Verdict)))),
            Change::Artifacts {
                attempt: attempt_id(3),
                outputs: outputs(3),
            },
            Change::Submission(submission(5, None, &[5, 6])),
        ])
        .unwrap();
    (directory, store)
}

/// Two rows, of which a report writes only the small one.
#[test]
fn a_job_that_is_worked_on_is_one_record_at_every_step() {
    let (directory, mut store) = filled();
    let path = directory.path().join("farm.db");
    let mut job = live(2);
    job.suspended = true;
    job.attempt_number = 7;
    for acked in 1..4 {
        let JobState::Live(attempt) = &mut job.state else {
            unreachable!("it is live");
        };
        attempt.acked = Seq(acked);
        store.commit(&[Change::Job(Box::new(job.clone()))]).unwrap();
        assert_eq!(store.reader().job(JobId(2)).unwrap().as_ref(), Some(&job));
        let live = JobFilter {
            standing: Some(JobStanding::Live),
            ..JobFilter::default()
        };
        assert_eq!(
            store.reader().jobs(&live, 9).unwrap(),
            slice::from_ref(&job)
        );
        let mut restored = Vec::new();
        store.jobs(&mut |job| restored.push(job)).unwrap();
        assert!(restored.contains(&job), "step {acked}");
    }
    let ends = attempt(2, None).assigned;
    let oldest = store.reader().mentions().unwrap().oldest_attempt;
    assert_eq!(oldest, Some(ends));
    for over in [waiting(2), live(2), done(2)] {
        store
            .commit(&[Change::Job(Box::new(over.clone()))])
            .unwrap();
        assert_eq!(store.reader().job(JobId(2)).unwrap(), Some(over));
    }
    assert_eq!(store.reader().audit().unwrap().problems, [""; 0]);
    let raw = rusqlite::Connection::open(path).unwrap();
    raw.execute("INSERT INTO live SELECT 2, x'00'", []).unwrap();
    let problems = store.reader().audit().unwrap().problems;
    assert_eq!(problems.len(), 2, "damaged, and of a job that is over");
}

fn ids(store: &Sqlite, filter: &JobFilter, limit: u32) -> Vec<u64> {
    let jobs = store.reader().jobs(filter, limit).unwrap();
    jobs.iter().map(|job| job.id.0).collect()
}

#[test]
fn jobs_are_listed_newest_first_and_narrowed_by_every_filter() {
    let (_directory, store) = filled();
    let all = JobFilter::default();
    assert_eq!(ids(&store, &all, 10), [6, 5, 4, 3, 2, 1]);
    assert_eq!(ids(&store, &all, 2), [6, 5]);
    let standing = |standing| JobFilter {
        standing: Some(standing),
        ..JobFilter::default()
    };
    assert_eq!(
        ids(&store, &standing(JobStanding::Waiting), 10),
        [6, 5, 4, 1]
    );
    assert_eq!(ids(&store, &standing(JobStanding::Live), 10), [2]);
    assert_eq!(ids(&store, &standing(JobStanding::Done), 10), [3]);
    let next_page_of_kim = JobFilter {
        owner: Some(text("kim")),
        before: Some(JobId(6)),
        ..JobFilter::default()
    };
    assert_eq!(ids(&store, &next_page_of_kim, 10), [4, 2]);
    let of_submission = JobFilter {
        submission: Some(SubmissionId(5)),
        ..JobFilter::default()
    };
    assert_eq!(ids(&store, &of_submission, 10), [6, 5]);
}

#[test]
fn one_job_is_found_by_its_id_and_by_the_beginning_of_it() {
    let (_directory, store) = filled();
    let reader = store.reader();
    assert_eq!(reader.job(JobId(1)).unwrap(), Some(waiting(1)));
    assert_eq!(reader.job(JobId(99)).unwrap(), None);
    let shown = JobId(4).to_string();
    for letters in [4, 8] {
        let prefix = IdPrefix::parse(&shown[..letters]).unwrap();
        assert_eq!(reader.jobs_by_prefix(prefix, 2).unwrap(), [JobId(4)]);
    }
    let nobody = IdPrefix::parse(&JobId(99).to_string()).unwrap();
    assert!(reader.jobs_by_prefix(nobody, 2).unwrap().is_empty());
}

#[test]
fn what_belongs_to_a_job_is_found_by_it() {
    let (_directory, store) = filled();
    let reader = store.reader();
    let over = attempt(3, Some(AttemptEnd::Verdict));
    assert_eq!(reader.attempts(JobId(3)).unwrap(), [over]);
    assert!(reader.attempts(JobId(2)).unwrap().is_empty(), "it is live");
    assert_eq!(
        reader.artifacts(attempt_id(3)).unwrap().unwrap(),
        *outputs(3)
    );
    assert!(reader.artifacts(attempt_id(1)).unwrap().is_none());
    assert_eq!(reader.spec(JobId(6)).unwrap(), Some(spec(6)));
    let found = reader.submission(SubmissionId(5)).unwrap();
    assert_eq!(found, Some(submission(5, None, &[5, 6])));
}

#[test]
fn the_ledger_is_read_on_from_any_number() {
    let (_directory, store) = filled();
    let reader = store.reader();
    assert_eq!(reader.ledger_end().unwrap(), 6);
    assert_eq!(reader.ledger(4, 10).unwrap(), [entry(5), entry(6)]);
    assert_eq!(reader.ledger(0, 1).unwrap(), [entry(1)]);
}

#[test]
fn a_reader_sees_each_commit_and_never_half_of_one() {
    let (_directory, mut store) = filled();
    let reader = store.reader();
    for job in 7..50 {
        store.commit(&submit(job)).unwrap();
        assert_eq!(reader.ledger_end().unwrap(), job);
        assert!(reader.spec(JobId(job)).unwrap().is_some());
    }
}

#[test]
fn what_has_grown_old_is_found_a_step_at_a_time() {
    let (_directory, mut store) = filled();
    for job in [1, 4] {
        store.commit(&[Change::Job(Box::new(done(job)))]).unwrap();
    }
    let look = |after, most| Look {
        round: 5,
        jobs_before: Some(Wall(10)),
        after: SubmissionId(after),
        entries_before: Some(Wall(3)),
        most,
    };
    // A verdict of the fixture's is at 9; submission 5 has two jobs that wait.
    let reader = store.reader();
    let all = reader.aged(&look(0, 100)).unwrap();
    let old = |id| AgedSubmission {
        id: SubmissionId(id),
        jobs: vec![(JobId(id), 1)],
    };
    assert_eq!(all.submissions, [old(1), old(3), old(4)]);
    assert_eq!((all.round, all.next), (5, None));
    assert_eq!((all.entries, all.entries_up_to), (2, 2));
    let step = reader.aged(&look(0, 1)).unwrap();
    assert_eq!(step.submissions, [old(1)]);
    assert_eq!(step.next, Some(SubmissionId(1)));
    assert_eq!((step.entries, step.entries_up_to), (1, 1));
    assert_eq!(reader.aged(&look(1, 1)).unwrap().submissions, []);
    let young = Look {
        jobs_before: Some(Wall(9)),
        entries_before: None,
        ..look(0, 100)
    };
    assert_eq!(reader.aged(&young).unwrap().submissions, []);
}

#[test]
fn files_are_spoken_of_by_specs_artifacts_and_attempts() {
    let (_directory, store) = filled();
    let mentions = store.reader().mentions().unwrap();
    assert!(mentions.blobs.contains(&outputs(3)[0].digest));
    // Job 2 is live: what came since it was assigned may be its.
    assert_eq!(mentions.oldest_attempt, Some(Wall(2)));
}

/// Of six jobs the third has succeeded, the fifth waits for a package, and the
/// fourth and the last were cancelled.
fn finished() -> (tempfile::TempDir, Sqlite) {
    let (directory, mut store) = filled();
    let missing = Verdict::Failed {
        kind: FailureKind::DependencyWait,
        why: Reason::cut("baz"),
    };
    for (job, verdict) in [
        (4, Verdict::Cancelled),
        (5, missing),
        (6, Verdict::Cancelled),
    ] {
        let mut record = done(job);
        let JobState::Done(done) = &mut record.state else {
            unreachable!("it is done");
        };
        done.verdict = verdict;
        if job == 6 {
            record.submission = SubmissionId(5);
        }
        store.commit(&[Change::Job(Box::new(record))]).unwrap();
    }
    (directory, store)
}

fn search(store: &Sqlite, search: &Search) -> (Vec<u64>, Option<u64>) {
    let found = store.reader().search(search).unwrap();
    assert_eq!(found.after, search.after);
    let ids = found.jobs.iter().map(|job| job.id.0).collect();
    (ids, found.next.map(|next| next.0))
}

#[test]
fn finished_jobs_are_found_a_step_at_a_time() {
    let (_directory, store) = finished();
    let part = |after, last, most| {
        let filter = Filter::default();
        let (after, last) = (JobId(after), JobId(last));
        let part = Search {
            filter,
            after,
            last,
            most,
        };
        search(&store, &part)
    };
    assert_eq!(part(0, u64::MAX, 9), (vec![3, 4, 5, 6], None));
    assert_eq!(part(0, 6, 2), (vec![3, 4], Some(4)));
    assert_eq!(part(4, 6, 2), (vec![5, 6], Some(6)));
    assert_eq!(part(6, 6, 2), (vec![], None));
    assert_eq!(part(3, 5, 9), (vec![4, 5], None));
}

#[test]
fn finished_jobs_are_found_that_match_all_of_a_filter() {
    let (_directory, store) = finished();
    let found = |narrow: fn(&mut Filter)| {
        let mut filter = Filter::default();
        narrow(&mut filter);
        search(&store, &Search::first(filter))
    };
    let waits = |filter: &mut Filter| {
        filter.verdict = Some(Ending::FailedAs(FailureKind::DependencyWait));
    };
    assert_eq!(found(waits), (vec![5], None));
    let cancelled = |filter: &mut Filter| filter.verdict = Some(Ending::Cancelled);
    assert_eq!(found(cancelled), (vec![4, 6], None));
    let kims = |filter: &mut Filter| filter.owner = Some(text("kim"));
    assert_eq!(found(kims), (vec![4, 6], None));
    let begins = |filter: &mut Filter| filter.begins = Some(text("hex"));
    assert_eq!(found(begins), (vec![], None));
    let of_five = |filter: &mut Filter| filter.submission = Some(SubmissionId(5));
    assert_eq!(found(of_five), (vec![5, 6], None));
}
