//! Who goes first, what is held back, and acts on many jobs.

use super::*;
use crate::Share;
use crate::effect::{Hold, Overview, RefusedCode};
use crate::event::{BuilderAct, Filter, JobAct};
use crate::record::{FormerBulk, FormerFilter, OperatorMode};

pub(super) fn act(world: &mut World, job: JobId, act: JobAct) {
    world
        .ask(Command::Job {
            job,
            act,
            why: Text::new("asked").unwrap(),
        })
        .unwrap();
}

/// How many jobs the first step has changed, and whether it was the last.
fn bulk(world: &mut World, filter: Filter, act: JobAct) -> (u64, bool) {
    let (_, changed, finished) = matched(world, filter, act);
    (changed, finished)
}

/// The same after how many were meant.
fn matched(world: &mut World, filter: Filter, act: JobAct) -> (u64, u64, bool) {
    let why = Text::new("asked").unwrap();
    match world.ask(Command::Bulk { filter, act, why }) {
        Ok(Reply::Bulk {
            matched,
            changed,
            finished,
            ..
        }) => (matched, changed, finished),
        other => panic!("{other:?}"),
    }
}

fn hold(world: &mut World, job: JobId) -> Option<Hold> {
    match world.ask(Command::Explain { job }) {
        Ok(Reply::Explained { explanation, .. }) => explanation.expect("it waits").held,
        other => panic!("{other:?}"),
    }
}

fn owned(text: &str, owner: &str) -> JobSpec {
    let mut spec = spec(text);
    spec.owner = name(owner);
    spec
}

#[test]
fn a_suspended_job_waits_until_it_is_resumed() {
    let mut world = World::new();
    let job = world.submit(spec("hello"));
    act(&mut world, job, JobAct::Suspend);
    let host = world.ready(1);
    assert!(world.offers().is_empty());
    assert_eq!(hold(&mut world, job), Some(Hold::Suspended));
    world.restart();
    assert_eq!(hold(&mut world, job), Some(Hold::Suspended));
    let mut host = host;
    world.hello(&mut host);
    world.clean_if_ordered(&mut host);
    act(&mut world, job, JobAct::Resume);
    assert_eq!(world.offered(&host).job, job);
}

#[test]
fn a_score_given_by_hand_changes_the_order() {
    let mut world = World::new();
    let mut host = world.host(1);
    world.hello(&mut host);
    let order = world.reset_order().unwrap();
    world.submit(spec("first"));
    let second = world.submit(spec("second"));
    act(&mut world, second, JobAct::SetPriority(5));
    world.prove(&mut host, order);
    assert_eq!(world.offered(&host).job, second);
    assert!(world.store.jobs[&second].priority_frozen);
}

#[test]
fn a_brake_holds_back_what_is_below_it() {
    let mut world = World::new();
    let low = world.submit(spec("low"));
    let brake = |least| Command::Brake {
        architecture: Some(name("amd64")),
        least,
        why: Text::default(),
    };
    world.ask(brake(Some(100))).unwrap();
    let mut urgent = spec("urgent");
    urgent.priority = 100;
    let urgent = world.submit(urgent);
    let mut host = world.ready(1);
    let attempt = world.offered(&host);
    assert_eq!(attempt.job, urgent);
    world.run(&mut host, attempt, Outcome::Succeeded);
    world.clean(&mut host);
    assert!(world.offers().is_empty());
    let held = Some(Hold::Brake {
        priority: 0,
        least: 100,
    });
    assert_eq!(hold(&mut world, low), held);
    world.restart();
    assert_eq!(hold(&mut world, low), held, "it survives a restart");
    world.hello(&mut host);
    world.ask(brake(None)).unwrap();
    assert_eq!(world.offered(&host).job, low);
}

#[test]
fn of_unfinished_jobs_a_filter_means_those_that_it_names() {
    let filters: [fn(&mut Filter); 4] = [
        |filter| filter.owner = Some(name("lee")),
        |filter| filter.architecture = Some(name("riscv64")),
        |filter| filter.submission = Some(SubmissionId(2)),
        |filter| filter.name = Some(Text::new("two").unwrap()),
    ];
    for narrow in filters {
        let mut world = World::new();
        let one = world.submit(spec("one"));
        let two = world.submit(JobSpec {
            architecture: name("riscv64"),
            ..owned("two", "lee")
        });
        let mut filter = Filter::default();
        narrow(&mut filter);
        assert_eq!(bulk(&mut world, filter, JobAct::Cancel), (1, true));
        assert!(world.waits(one) && world.verdict(two).is_some());
    }
}

#[test]
fn a_second_wish_for_the_same_is_no_error_and_changes_nothing() {
    let mut world = World::new();
    let job = world.submit(spec("hello"));
    for _ in 0..2 {
        act(&mut world, job, JobAct::Suspend);
        assert_eq!(hold(&mut world, job), Some(Hold::Suspended));
    }
    let entries = world.store.kinds();
    let suspended = entries.iter().filter(|k| **k == LedgerKind::JobSuspended);
    assert_eq!(suspended.count(), 1);
}

#[test]
fn a_job_that_is_not_suspended_is_not_resumed_and_of_many_passed_over() {
    let mut world = World::new();
    let [job, other] = ["hello", "other"].map(|text| world.submit(spec(text)));
    let resume = |job| Command::Job {
        job,
        act: JobAct::Resume,
        why: Text::default(),
    };
    let refused = world.ask(resume(job)).unwrap_err();
    assert_eq!(refused.code, RefusedCode::Conflict);
    assert_eq!(refused.cause, format!("job {job} is not suspended"));
    act(&mut world, other, JobAct::Suspend);
    assert_eq!(
        bulk(&mut world, Filter::default(), JobAct::Resume),
        (1, true)
    );
}

/// The least score that starts there now, and how many jobs are held or let go.
fn brake(
    world: &mut World,
    architecture: Option<&str>,
    least: Option<i32>,
) -> Result<(Option<i32>, u64), Refused> {
    let reply = world.ask(Command::Brake {
        architecture: architecture.map(name),
        least,
        why: Text::default(),
    })?;
    match reply {
        Reply::Braked { effective, changed } => Ok((effective, changed)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn of_two_brakes_one_is_lifted_and_each_says_what_starts_and_how_many_it_holds_or_lets_go() {
    let mut world = World::new();
    let job = world.submit(spec("hello"));
    world.submit(JobSpec {
        architecture: name("riscv64"),
        priority: 60,
        ..spec("other")
    });
    let mut brake = |architecture, least| {
        let told = brake(&mut world, architecture, least).unwrap();
        (told, hold(&mut world, job))
    };
    let held = |least| Some(Hold::Brake { priority: 0, least });
    let (amd64, riscv64) = (Some("amd64"), Some("riscv64"));
    assert_eq!(brake(None, Some(50)), ((Some(50), 1), held(50)));
    assert_eq!(brake(amd64, Some(100)), ((Some(100), 0), held(100)));
    assert_eq!(brake(riscv64, Some(100)), ((Some(100), 1), held(100)));
    assert_eq!(brake(riscv64, Some(10)), ((Some(50), 1), held(100)));
    assert_eq!(brake(amd64, None), ((Some(50), 0), held(50)));
}

/// Whoever lifts the brake wants everything to start, and not to look for the
/// architecture whose brake is still set.
#[test]
fn lifted_for_no_architecture_every_brake_is_lifted_and_none_that_is_not_set() {
    let mut world = World::new();
    let job = world.submit(spec("hello"));
    for architecture in [None, Some("amd64"), Some("riscv64")] {
        brake(&mut world, architecture, Some(50)).unwrap();
    }
    let entries = world.store.ledger.len();
    let refused = brake(&mut world, Some("s390x"), None).unwrap_err();
    assert_eq!(refused.code, RefusedCode::Conflict);
    assert_eq!(refused.cause, "no brake is set on s390x");
    assert!(refused.fix.contains("below 50"), "{refused:?}");
    assert_eq!(world.store.ledger.len(), entries);
    assert_eq!(brake(&mut world, None, None), Ok((None, 1)));
    assert_eq!(hold(&mut world, job), None);
    world.restart();
    assert_eq!(hold(&mut world, job), None);
    let refused = brake(&mut world, None, None).unwrap_err();
    assert_eq!(refused.cause, "no brake is set");
}

#[test]
fn a_score_that_reaches_the_brake_starts_also_after_a_restart() {
    let mut world = World::new();
    let brake = Command::Brake {
        architecture: None,
        least: Some(100),
        why: Text::default(),
    };
    world.ask(brake).unwrap();
    let mut urgent = spec("urgent");
    urgent.priority = 100;
    let job = world.submit(urgent);
    assert_eq!(hold(&mut world, job), None);
    world.restart();
    assert_eq!(hold(&mut world, job), None);
    let host = world.ready(1);
    assert_eq!(world.offered(&host).job, job);
}

#[test]
fn many_jobs_are_cancelled_by_filter_in_steps_across_a_restart() {
    let mut world = World::new();
    let mut jobs = Vec::new();
    for number in 0..1500 {
        jobs.push(world.submit(owned(&format!("j{number}"), "mass")));
    }
    let other = world.submit(owned("other", "kim"));
    let filter = Filter {
        owner: Some(name("mass")),
        ..Filter::default()
    };
    let (changed, finished) = bulk(&mut world, filter, JobAct::Cancel);
    assert!(changed < 1500 && !finished, "one step is bounded");
    world.restart();
    let late = world.submit(owned("late", "mass"));
    world.pass(Duration::from_secs(1));
    assert!(
        jobs.iter()
            .all(|job| world.verdict(*job) == Some(Verdict::Cancelled))
    );
    assert!(world.waits(other) && world.waits(late), "neither was meant");
    let end = world
        .store
        .ledger
        .iter()
        .rev()
        .find(|entry| entry.kind == LedgerKind::BulkEnded);
    assert!(
        end.unwrap().why.starts_with("1500 jobs cancelled"),
        "{end:?}"
    );
}

#[test]
fn an_operation_too_many_is_refused_before_anything_is_told_or_changed() {
    let mut world = World::new();
    let jobs: Vec<JobId> = (0..1001)
        .map(|number| world.submit(spec(&format!("j{number}"))))
        .collect();
    for score in 1..=16 {
        let more = bulk(&mut world, Filter::default(), JobAct::SetPriority(score));
        assert_eq!(more, (1000, false), "it is under way");
    }
    let entries = world.store.ledger.len();
    let why = Text::default;
    let too_many = [
        Command::Bulk {
            filter: Filter::default(),
            act: JobAct::Cancel,
            why: why(),
        },
        Command::Brake {
            architecture: None,
            least: Some(50),
            why: why(),
        },
    ];
    for command in too_many {
        let refused = world.ask(command).unwrap_err();
        assert_eq!(refused.code, RefusedCode::Limit);
    }
    assert_eq!(world.store.ledger.len(), entries, "nothing is told");
    world.pass(Duration::from_secs(1));
    assert_eq!(hold(&mut world, jobs[0]), None, "no brake is set");
    assert_eq!(
        bulk(&mut world, Filter::default(), JobAct::Cancel),
        (1000, false)
    );
}

#[test]
fn that_no_job_is_meant_is_told_from_that_all_are_so_already() {
    let mut world = World::new();
    let one = world.submit(spec("one"));
    world.submit(spec("two"));
    act(&mut world, one, JobAct::Suspend);
    let mut suspend = |filter| matched(&mut world, filter, JobAct::Suspend);
    let begins = |text| Filter {
        begins: Some(Text::new(text).unwrap()),
        ..Filter::default()
    };
    assert_eq!(suspend(begins("x")), (0, 0, true), "none is meant");
    assert_eq!(suspend(begins("o")), (1, 0, true), "it is suspended");
    assert_eq!(suspend(Filter::default()), (2, 1, true));
    let ended = world.store.ledger.last().unwrap();
    assert_eq!(ended.why.as_str(), "1 of 2 jobs suspended: asked");
}

/// Schema 2 had it among the farm's own numbers.
#[test]
fn an_operation_that_an_older_store_tells_of_goes_on() {
    let mut world = World::new();
    let jobs = ["one", "two", "three"].map(|text| world.submit(spec(text)));
    let why = Text::new("not these").unwrap();
    let meta = world.store.meta.as_mut().unwrap();
    meta.bulk = List::new(vec![FormerBulk {
        id: 1,
        filter: FormerFilter {
            owner: Some(name("kim")),
            ..FormerFilter::default()
        },
        act: JobAct::Cancel,
        by: Text::new("root").unwrap(),
        why,
        cursor: jobs[0],
        last: jobs[1],
        changed: 7,
    }])
    .unwrap();
    world.restart();
    assert!(world.store.meta.as_ref().unwrap().bulk.is_empty());
    assert_eq!(world.store.bulk.len(), 1, "it is a record of its own");
    world.restart();
    world.pass(Duration::from_secs(1));
    let ended = jobs.map(|job| world.verdict(job).is_some());
    assert_eq!(ended, [false, true, false]);
    let told = world.store.ledger.last().unwrap();
    assert_eq!(told.why.as_str(), "8 jobs cancelled: not these");
    assert!(world.store.bulk.is_empty());
}

#[test]
fn a_superseded_job_never_starts_and_its_late_result_is_dropped() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let attempt = world.running(&mut host, "old");
    let waiting = world.submit(spec("older"));
    act(&mut world, waiting, JobAct::Supersede);
    assert_eq!(world.verdict(waiting), Some(Verdict::Superseded));
    act(&mut world, attempt.job, JobAct::Supersede);
    world.end(&mut host, attempt, Outcome::Succeeded);
    world.seal(&mut host, attempt);
    world.deliver(attempt);
    assert_eq!(world.verdict(attempt.job), Some(Verdict::Superseded));
}

#[test]
fn a_superseded_job_that_is_retried_runs_again_and_not_by_its_late_result() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let late = world.running(&mut host, "old");
    let job = late.job;
    act(&mut world, job, JobAct::Supersede);
    let retry = |world: &mut World| {
        let stored = Box::new(world.store.jobs[&job].clone());
        let why = Text::new("the new one is broken").unwrap();
        world.ask(Command::Retry { job: stored, why })
    };
    assert!(retry(&mut world).is_err(), "its attempt is under way");
    world.end(&mut host, late, Outcome::Succeeded);
    world.seal(&mut host, late);
    world.clean_if_ordered(&mut host);
    world.deliver(late);
    assert_eq!(world.verdict(job), Some(Verdict::Superseded));
    retry(&mut world).unwrap();
    let next = world.offered(&host);
    assert_eq!((next.job, next.generation, next.number), (job, 2, 1));
    world.run(&mut host, next, Outcome::Succeeded);
    world.deliver(late);
    assert_eq!(world.verdict(job), None, "what came late is not its result");
    world.deliver(next);
    assert_eq!(world.verdict(job), Some(Verdict::Succeeded));
}

#[test]
fn an_owner_has_no_more_attempts_than_its_limit() {
    let mut settings = Settings::default();
    settings.shares.insert(
        name("kim"),
        Share {
            weight: 1,
            running_max: Some(1),
            bonus: 0,
        },
    );
    let mut world = World::with(settings);
    let mut one = world.ready(1);
    let two = world.ready(2);
    let first = world.submit(spec("first"));
    let second = world.submit(spec("second"));
    let held = Some(Hold::OwnerLimit {
        running: 1,
        most: 1,
    });
    assert_eq!(hold(&mut world, second), held);
    let attempt = world.store.jobs[&first].clone();
    let JobState::Live(live) = attempt.state else {
        panic!("the first runs");
    };
    world.run(&mut one, live.id, Outcome::Succeeded);
    world.deliver(live.id);
    assert_eq!(world.offered(&two).job, second, "in the same step");
}

#[test]
fn an_owner_of_twice_the_weight_gets_twice_as_much() {
    let mut settings = Settings::default();
    let share = Share {
        weight: 2,
        running_max: None,
        bonus: 0,
    };
    settings.shares.insert(name("big"), share);
    let mut world = World::with(settings);
    let mut host = world.host(1);
    world.hello(&mut host);
    let mut order = world.reset_order().unwrap();
    for number in 0..9 {
        world.submit(owned(&format!("b{number}"), "big"));
        world.submit(owned(&format!("s{number}"), "small"));
    }
    let mut big = 0;
    for _ in 0..9 {
        world.prove(&mut host, order);
        let attempt = world.offered(&host);
        big += usize::from(world.store.jobs[&attempt.job].owner == name("big"));
        world.accept(&mut host, attempt);
        world.start(&mut host, attempt);
        world.now = world.now + Duration::from_secs(60);
        world.end(&mut host, attempt, Outcome::Succeeded);
        world.seal(&mut host, attempt);
        order = world.reset_order().unwrap();
        world.deliver(attempt);
    }
    assert_eq!(big, 6);
}

#[test]
fn an_owner_pays_for_as_long_as_its_attempts_had_a_builder() {
    let mut world = World::new();
    let mut host = world.host(1);
    world.hello(&mut host);
    let mut order = world.reset_order().unwrap();
    for number in 0..6 {
        world.submit(owned(&format!("l{number}"), "long"));
        world.submit(owned(&format!("s{number}"), "short"));
    }
    let mut turns = String::new();
    for _ in 0..7 {
        world.prove(&mut host, order);
        let attempt = world.offered(&host);
        let is_long = world.store.jobs[&attempt.job].owner == name("long");
        turns.push(if is_long { 'l' } else { 's' });
        world.accept(&mut host, attempt);
        world.start(&mut host, attempt);
        let seconds = if is_long { 300 } else { 100 };
        world.now = world.now + Duration::from_secs(seconds);
        world.end(&mut host, attempt, Outcome::Succeeded);
        world.seal(&mut host, attempt);
        order = world.reset_order().unwrap();
        world.deliver(attempt);
    }
    assert_eq!(turns, "lssslss");
}

#[test]
fn an_attempt_under_way_costs_a_minute_until_it_is_over() {
    let mut world = World::new();
    world.ready(1);
    world.submit(owned("b1", "b"));
    assert_eq!(world.offers().len(), 1);
    let mut free = world.ready(2);
    let [done, _] = ["a1", "b2"].map(|text| world.submit(owned(text, &text[..1])));
    let JobState::Live(live) = world.store.jobs[&done].state.clone() else {
        panic!("a builder was free");
    };
    world.accept(&mut free, live.id);
    world.start(&mut free, live.id);
    world.ready(3);
    assert_eq!(world.offers().len(), 1, "b has two under way");
    world.now = world.now + Duration::from_secs(100);
    world.end(&mut free, live.id, Outcome::Succeeded);
    world.seal(&mut free, live.id);
    let order = world.reset_order().unwrap();
    world.deliver(live.id);
    let next = world.submit(owned("a2", "a"));
    world.submit(owned("b3", "b"));
    world.prove(&mut free, order);
    assert_eq!(
        world.offered(&free).job,
        next,
        "100 s are less than two minutes"
    );
}

#[test]
fn a_drain_has_a_deadline_that_survives_a_restart() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let attempt = world.running(&mut host, "hello");
    let builder = world.record(&host).id;
    world
        .ask(Command::Builder {
            builder,
            act: BuilderAct::Drain { within_ms: 600_000 },
            why: Text::new("new disk").unwrap(),
        })
        .unwrap();
    world.restart();
    world.hello(&mut host);
    world.pass(Duration::from_secs(599));
    assert!(!world.waits(attempt.job));
    world.pass(Duration::from_secs(2));
    assert!(world.waits(attempt.job));
    let record = world.record(&host);
    assert_eq!((record.mode, record.strikes), (OperatorMode::Draining, 0));
}

#[test]
fn a_filter_means_only_waiting_jobs_where_it_says_so() {
    let mut world = World::new();
    let mut host = world.ready(1);
    world.running(&mut host, "runs");
    world.submit(spec("waits"));
    let filter = |waiting| Filter {
        waiting,
        ..Filter::default()
    };
    let only_waiting = bulk(&mut world, filter(true), JobAct::SetPriority(1));
    assert_eq!(only_waiting, (1, true));
    assert_eq!(
        bulk(&mut world, filter(false), JobAct::SetPriority(2)),
        (2, true)
    );
}

#[test]
fn an_owners_bonus_is_part_of_the_score_and_a_score_by_hand_is_not_computed_again() {
    let mut settings = Settings::default();
    let share = Share {
        bonus: 70,
        ..Share::default()
    };
    settings.shares.insert(name("kim"), share);
    let mut world = World::with(settings);
    let job = world.submit(owned("hello", "kim"));
    assert_eq!(world.store.jobs[&job].priority, 70);
    act(&mut world, job, JobAct::SetPriority(5));
    world.cancel(job).unwrap();
    let stored = Box::new(world.store.jobs[&job].clone());
    let why = Text::default();
    world.ask(Command::Retry { job: stored, why }).unwrap();
    let retried = &world.store.jobs[&job];
    assert_eq!((retried.priority, retried.priority_frozen), (5, true));
}

fn overview(world: &mut World) -> Overview {
    match world.ask(Command::Overview) {
        Ok(Reply::Overview(overview)) => *overview,
        other => panic!("{other:?}"),
    }
}

/// What the queue lists, by name.
fn listed(world: &mut World) -> Vec<String> {
    let queue = overview(world).queue;
    queue.iter().map(|job| job.name.to_string()).collect()
}

fn name_of(world: &World, attempt: AttemptId) -> String {
    world.store.jobs[&attempt.job].name.to_string()
}

/// A dirty builder and the order that cleans it.
fn dirty(world: &mut World) -> (Host, CleanNonce) {
    let mut host = world.host(1);
    world.hello(&mut host);
    let order = world.reset_order().unwrap();
    (host, order)
}

/// What this builder starts next, which takes so long.
fn next(world: &mut World, (host, order): &mut (Host, CleanNonce), span: Duration) -> String {
    world.prove(host, *order);
    let attempt = world.offered(host);
    world.accept(host, attempt);
    world.start(host, attempt);
    world.now = world.now + span;
    world.end(host, attempt, Outcome::Succeeded);
    world.seal(host, attempt);
    *order = world.reset_order().unwrap();
    world.deliver(attempt);
    name_of(world, attempt)
}

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn the_queue_lists_jobs_in_the_order_they_start_and_hides_no_owner() {
    let mut world = World::new();
    let mut host = dirty(&mut world);
    for number in 0..120 {
        world.submit(owned(&format!("k{number}"), "kim"));
    }
    for number in 0..3 {
        world.submit(owned(&format!("l{number}"), "lee"));
    }
    let listed = listed(&mut world);
    assert_eq!(listed[..7], ["k0", "l0", "k1", "l1", "k2", "l2", "k3"]);
    assert_eq!(listed.len(), 100);
    let started = [(); 7].map(|()| next(&mut world, &mut host, MINUTE));
    assert_eq!(started, listed[..7]);
}

#[test]
fn a_turn_in_the_list_is_what_an_assignment_costs() {
    let mut world = World::new();
    let mut host = dirty(&mut world);
    for number in 0..4 {
        world.submit(owned(&format!("k{number}"), "kim"));
        world.submit(owned(&format!("l{number}"), "lee"));
    }
    assert_eq!(next(&mut world, &mut host, Duration::from_secs(210)), "k0");
    let listed = listed(&mut world);
    assert_eq!(listed[..5], ["l0", "l1", "l2", "l3", "k1"]);
    let started = [2, 3, 4, 5, 6].map(|number| {
        let host = world.ready(number);
        let attempt = world.offered(&host);
        name_of(&world, attempt)
    });
    assert_eq!(started, listed[..5]);
}

#[test]
fn what_is_held_back_is_counted_and_who_is_at_the_limit_is_listed_last() {
    let mut settings = Settings::default();
    let share = Share {
        running_max: Some(1),
        ..Share::default()
    };
    settings.shares.insert(name("kim"), share);
    let mut world = World::with(settings);
    let mut host = world.ready(1);
    world.running(&mut host, "runs");
    let suspended = world.submit(owned("suspended", "lee"));
    act(&mut world, suspended, JobAct::Suspend);
    let told = overview(&mut world);
    assert_eq!((told.waiting, told.held, told.queue.len()), (1, 1, 0));
    world.submit(owned("limited", "kim"));
    world.submit(owned("in turn", "lee"));
    let brake = Command::Brake {
        architecture: Some(name("riscv64")),
        least: Some(1),
        why: Text::default(),
    };
    world.ask(brake).unwrap();
    world.submit(JobSpec {
        architecture: name("riscv64"),
        ..owned("braked", "lee")
    });
    for _ in 0..2 {
        let told = overview(&mut world);
        assert_eq!((told.waiting, told.held, told.running.len()), (4, 2, 1));
        assert_eq!(listed(&mut world), ["in turn", "limited"]);
        world.restart();
    }
    act(&mut world, suspended, JobAct::Resume);
    let told = overview(&mut world);
    assert_eq!((told.waiting, told.held, told.queue.len()), (4, 1, 3));
}

#[test]
fn who_comes_to_an_empty_queue_has_saved_up_nothing() {
    let mut world = World::new();
    let mut host = dirty(&mut world);
    for _ in 0..20 {
        world.submit(owned("early", "kim"));
        next(&mut world, &mut host, Duration::from_secs(3600));
    }
    for number in 0..5 {
        world.submit(owned(&format!("l{number}"), "lee"));
    }
    for number in 0..2 {
        world.submit(owned(&format!("k{number}"), "kim"));
    }
    let turns = [(); 5].map(|()| next(&mut world, &mut host, MINUTE));
    assert_eq!(turns, ["k0", "l0", "k1", "l1", "l2"]);
}
