//! Many finished jobs are retried: in steps, each once, across a restart.

use super::*;
use crate::effect::{RefusedCode, Search};
use crate::event::{Ending, Filter, Found, JobAct};

/// Jobs that the store of these stories finds at a time.
const AT_A_TIME: usize = 2;

/// What the coordinator finds in the store.
fn find(world: &World, search: &Search) -> Found {
    let jobs = world.store.jobs.values();
    let meant = jobs.filter(|job| job.id > search.after && job.id <= search.last);
    let meant = meant.filter(|job| search.filter.means_finished(job));
    let jobs: Vec<JobRecord> = meant.take(AT_A_TIME).cloned().collect();
    Found {
        after: search.after,
        next: jobs.get(AT_A_TIME - 1).map(|job| job.id),
        jobs,
    }
}

/// What the store is to be searched for, by which operation.
fn asked(world: &World) -> Option<(u64, Search)> {
    world.said.iter().find_map(|effect| match effect {
        Effect::Search { operation, search } => Some((*operation, search.clone())),
        _ => None,
    })
}

fn answer(world: &mut World, (operation, search): (u64, Search)) {
    let found = find(world, &search);
    world.handle(Event::Found { operation, found });
}

/// Answers the search that was asked for just now.
fn answer_asked(world: &mut World) {
    let search = asked(world).expect("a search was asked for");
    answer(world, search);
}

/// How many are meant and retried with the first step, and whether it is the last.
pub(super) fn retry_all(world: &mut World, filter: Filter) -> Result<(u64, u64, bool), Refused> {
    let found = find(world, &Search::first(filter.clone()));
    let why = Text::new("the power is back").unwrap();
    match world.ask(Command::RetryAll { filter, found, why })? {
        Reply::Bulk {
            matched,
            changed,
            finished,
            ..
        } => Ok((matched, changed, finished)),
        other => panic!("{other:?}"),
    }
}

fn ended(verdict: Ending) -> Filter {
    Filter {
        verdict: Some(verdict),
        ..Filter::default()
    }
}

fn cancelled(world: &mut World, names: &[&str]) -> Vec<JobId> {
    let jobs = names.iter().map(|text| {
        let job = world.submit(spec(text));
        world.cancel(job).unwrap();
        job
    });
    jobs.collect()
}

/// How often it was retried.
fn retries(world: &World, job: JobId) -> usize {
    let entries = world.store.ledger.iter();
    let its = entries.filter(|entry| entry.job == Some(job));
    its.filter(|entry| entry.kind == LedgerKind::JobRetried)
        .count()
}

#[test]
fn finished_jobs_are_retried_in_steps_across_a_restart_each_once() {
    let mut world = World::new();
    let jobs = cancelled(&mut world, &["a", "b", "c", "d", "e"]);
    let running = world.submit(spec("waits"));
    assert_eq!(
        retry_all(&mut world, ended(Ending::Cancelled)),
        Ok((2, 2, false))
    );
    let begun = world.store.kinds();
    assert!(begun.contains(&LedgerKind::BulkBegun) && !begun.contains(&LedgerKind::BulkEnded));
    let first = asked(&world).expect("there is more");
    assert_eq!(first.1.after, jobs[1]);

    // The answer is on its way when the coordinator dies.
    world.restart();
    world.handle(Event::Wake);
    let again = asked(&world).expect("it goes on where it was");
    assert_eq!(again, first);
    let late = cancelled(&mut world, &["late"])[0];
    let (operation, search) = again;
    let found = find(&world, &search);
    let answer_again = Event::Found { operation, found };
    world.handle(answer_again.clone());
    let last = asked(&world).expect("one is left");
    // What was found from another cursor counts for nothing.
    world.handle(answer_again);
    assert_eq!(asked(&world), None);
    answer(&mut world, last);
    assert_eq!(asked(&world), None, "it is over");

    for job in &jobs {
        assert!(world.waits(*job));
        assert_eq!(world.store.jobs[job].generation, 2);
        assert_eq!(retries(&world, *job), 1);
    }
    assert_eq!(retries(&world, running), 0);
    assert_eq!(retries(&world, late), 0, "submitted after it had begun");
    let told = world.store.ledger.last().unwrap();
    assert_eq!(told.kind, LedgerKind::BulkEnded);
    assert_eq!(told.by.as_str(), "root");
    assert_eq!(told.why.as_str(), "5 jobs retried: the power is back");
    let entries = world.store.ledger.iter();
    let one = entries.rev().find(|entry| entry.job == Some(jobs[4]));
    assert_eq!(
        one.unwrap().why.as_str(),
        "generation 2: the power is back",
        "as a retry by itself"
    );
    assert!(world.store.bulk.is_empty());
    world.restart();
    world.handle(Event::Wake);
    assert_eq!(asked(&world), None);
}

#[test]
fn a_job_that_is_retried_by_hand_meanwhile_is_passed_over() {
    let mut world = World::new();
    let jobs = cancelled(&mut world, &["a", "b", "c", "d"]);
    let by_hand = |world: &mut World, job: JobId| {
        let job = Box::new(world.store.jobs[&job].clone());
        let why = Text::default();
        world.ask(Command::Retry { job, why }).unwrap();
    };
    retry_all(&mut world, ended(Ending::Cancelled)).unwrap();
    let (operation, search) = asked(&world).unwrap();
    let found = find(&world, &search);
    // Of what was found one is under way again, and one was and is over.
    by_hand(&mut world, jobs[2]);
    by_hand(&mut world, jobs[3]);
    world.cancel(jobs[3]).unwrap();
    world.handle(Event::Found { operation, found });
    answer_asked(&mut world);
    assert_eq!(retries(&world, jobs[2]), 1);
    assert_eq!(retries(&world, jobs[3]), 1);
    assert_eq!(world.verdict(jobs[3]), Some(Verdict::Cancelled));
    let told = world.store.ledger.last().unwrap();
    assert_eq!(told.why.as_str(), "2 of 4 jobs retried: the power is back");
}

#[test]
fn a_superseded_job_is_retried_only_where_it_is_named_so() {
    let mut world = World::new();
    let done = cancelled(&mut world, &["a"])[0];
    let old = world.submit(spec("old"));
    world
        .ask(Command::Job {
            job: old,
            act: JobAct::Supersede,
            why: Text::default(),
        })
        .unwrap();
    let kims = Filter {
        owner: Some(name("kim")),
        ..Filter::default()
    };
    assert_eq!(retry_all(&mut world, kims), Ok((2, 1, false)));
    answer_asked(&mut world);
    assert!(world.waits(done));
    assert_eq!(world.verdict(old), Some(Verdict::Superseded));
    assert_eq!(
        retry_all(&mut world, ended(Ending::Superseded)),
        Ok((1, 1, true))
    );
    assert!(world.waits(old));
}

#[test]
fn a_search_that_is_not_answered_is_asked_for_again() {
    let mut world = World::new();
    let jobs = cancelled(&mut world, &["a", "b", "c"]);
    retry_all(&mut world, ended(Ending::Cancelled)).unwrap();
    let first = asked(&world).unwrap();
    world.now = world.now + Duration::from_secs(29);
    world.handle(Event::Wake);
    assert_eq!(asked(&world), None, "it may still be answered");
    let due = world.farm.next_deadline().unwrap();
    assert_eq!(due, world.now + Duration::from_secs(1));
    world.now = due;
    world.handle(Event::Wake);
    assert_eq!(asked(&world).as_ref(), Some(&first));
    answer(&mut world, first);
    assert!(world.waits(jobs[2]) && world.store.bulk.is_empty());
}

#[test]
fn a_filter_means_finished_jobs_by_how_they_ended() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let lost = world.running(&mut host, "lost");
    world.end(&mut host, lost, failed());
    world.seal(&mut host, lost);
    world.clean(&mut host);
    world.deliver(lost);
    world.handle(Event::Closed { conn: host.conn });
    cancelled(&mut world, &["cancelled"]);
    let meant = |ending| find(&world, &Search::first(ended(ending))).jobs.len();
    for (ending, count) in [
        (Ending::Failed, 1),
        (Ending::FailedAs(FailureKind::Build), 1),
        (Ending::FailedAs(FailureKind::DependencyWait), 0),
        (Ending::Cancelled, 1),
        (Ending::Infrastructure, 0),
        (Ending::Succeeded, 0),
        (Ending::Superseded, 0),
    ] {
        assert_eq!(meant(ending), count, "{ending:?}");
    }
    let wait = Filter {
        waiting: true,
        ..Filter::default()
    };
    assert!(find(&world, &Search::first(wait)).jobs.is_empty());
    // What is done to unfinished jobs is done to none that ended so.
    world.submit(spec("waits"));
    let reply = world.ask(Command::Bulk {
        filter: ended(Ending::Failed),
        act: JobAct::Cancel,
        why: Text::default(),
    });
    assert!(matches!(reply, Ok(Reply::Bulk { matched: 0, .. })));
}

#[test]
fn a_retry_of_many_is_an_operation_like_others_and_there_are_not_too_many() {
    let mut world = World::new();
    let job = cancelled(&mut world, &["a"])[0];
    let retry = || Command::RetryAll {
        filter: Filter::default(),
        found: Found {
            after: JobId(0),
            jobs: Vec::new(),
            next: Some(job),
        },
        why: Text::default(),
    };
    for _ in 0..16 {
        world.ask(retry()).unwrap();
    }
    let entries = world.store.ledger.len();
    let refused = world.ask(retry()).unwrap_err();
    assert_eq!(refused.code, RefusedCode::Limit);
    assert_eq!(world.store.ledger.len(), entries, "nothing is told");
}

#[test]
fn retries_of_many_are_refused_where_one_is() {
    let mut settings = Settings::default();
    settings.limits.queued_jobs = 1;
    let mut world = World::with(settings);
    let jobs = cancelled(&mut world, &["a", "b"]);
    let reply = retry_all(&mut world, ended(Ending::Cancelled));
    assert_eq!(reply, Ok((2, 1, false)), "there is room for one");
    answer_asked(&mut world);
    assert!(world.waits(jobs[0]) && !world.waits(jobs[1]));

    let mut world = World::new();
    cancelled(&mut world, &["a", "b", "c"]);
    retry_all(&mut world, ended(Ending::Cancelled)).unwrap();
    let search = asked(&world).unwrap();
    let mut host = world.host(1);
    host.hello.epoch = world.settings.seal.epoch(99, 1);
    assert_eq!(world.hello(&mut host), Some(CloseCode::LowerEpoch));
    let refused = retry_all(&mut world, ended(Ending::Cancelled)).unwrap_err();
    assert_eq!(refused.code, RefusedCode::Suspect);
    answer(&mut world, search);
    assert_eq!(world.store.bulk.len(), 1, "it waits until somebody accepts");
    let why = Text::default();
    world.ask(Command::AcceptRestore { why }).unwrap();
    world.pass(Duration::from_secs(31));
    answer_asked(&mut world);
    assert!(world.store.bulk.is_empty());
}
