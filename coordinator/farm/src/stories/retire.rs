//! Old history goes, in steps, and nothing that is not over.

use super::*;
use crate::effect::Look;
use crate::event::{Aged, AgedSubmission};

const KEPT: Duration = Duration::from_secs(1000);

fn world() -> World {
    World::with(Settings {
        retire_jobs_after: Some(KEPT),
        ..Settings::default()
    })
}

/// What the coordinator is asked to look for, once it is time.
fn look(world: &World) -> Option<Look> {
    world.said.iter().find_map(|effect| match effect {
        Effect::Look(look) => Some(*look),
        _ => None,
    })
}

fn next_look(world: &mut World) -> Look {
    for _ in 0..1000 {
        let due = world.farm.next_deadline().expect("a round will come");
        world.now = world.now.max(due);
        world.handle(Event::Wake);
        if let Some(look) = look(world) {
            return look;
        }
    }
    panic!("it never looks");
}

/// Everything that is finished, as a look at the store finds it.
fn all_done(world: &World, look: Look) -> Aged {
    let submissions = world.store.submissions.iter().map(|submission| {
        let jobs = submission.jobs.iter();
        AgedSubmission {
            id: submission.id,
            jobs: jobs.map(|job| (*job, 1)).collect(),
        }
    });
    Aged {
        round: look.round,
        submissions: submissions.collect(),
        ..Aged::default()
    }
}

#[test]
fn what_is_long_over_goes_and_what_is_not_stays() {
    let mut world = world();
    let mut host = world.ready(1);
    let over = world.running(&mut host, "over");
    world.end(&mut host, over, Outcome::Succeeded);
    world.seal(&mut host, over);
    world.clean_if_ordered(&mut host);
    world.deliver(over);
    assert!(world.verdict(over.job).is_some());
    let waits = world.submit(JobSpec {
        architecture: name("nobody"),
        ..spec("waits")
    });
    world.pass(KEPT * 2);
    let look = next_look(&mut world);
    assert!(look.jobs_before.unwrap() > Wall(0) && look.entries_before.is_some());

    let found = all_done(&world, look);
    let stored = world.store.jobs[&over.job].clone();
    world.handle(Event::Aged(found));
    assert!(!world.store.jobs.contains_key(&over.job));
    assert!(world.store.jobs.contains_key(&waits));
    let told = world.store.ledger.last().unwrap();
    assert_eq!(told.kind, LedgerKind::HistoryRetired);
    assert!(told.why.starts_with("1 jobs and 0 events"), "{told:?}");
    assert!(
        world
            .said
            .iter()
            .any(|effect| matches!(effect, Effect::Prune))
    );

    // Whoever read the record before cannot bring the job back without its spec.
    let job = Box::new(stored);
    let why = Text::default();
    let refused = world.ask(Command::Retry { job, why }).unwrap_err();
    assert!(refused.cause.contains("retired"), "{refused:?}");
}

#[test]
fn a_job_that_was_retried_meanwhile_stays() {
    let mut world = world();
    let mut host = world.ready(1);
    let over = world.running(&mut host, "over");
    world.end(&mut host, over, Outcome::Succeeded);
    world.seal(&mut host, over);
    world.deliver(over);
    let look = next_look(&mut world);
    let found = all_done(&world, look);
    let job = Box::new(world.store.jobs[&over.job].clone());
    let why = Text::default();
    world.ask(Command::Retry { job, why }).unwrap();
    world.handle(Event::Aged(found));
    assert!(world.store.jobs.contains_key(&over.job));
}

#[test]
fn a_round_goes_on_where_a_step_ended_and_a_late_answer_counts_for_nothing() {
    let mut world = world();
    let first = next_look(&mut world);
    let step = Aged {
        round: first.round,
        entries: 1,
        entries_up_to: 1,
        next: Some(SubmissionId(7)),
        ..Aged::default()
    };
    world.handle(Event::Aged(step.clone()));
    assert_eq!(look(&world).unwrap().after, SubmissionId(7));
    assert_ne!(world.store.ledger[0].seq, 1);
    let entries = world.store.ledger.len();
    next_look(&mut world);
    world.handle(Event::Aged(step));
    assert_eq!(look(&world), None, "of the round before");
    assert_eq!(world.store.ledger.len(), entries);
}

#[test]
fn rounds_are_a_tenth_of_the_shortest_age_apart() {
    let mut world = world();
    next_look(&mut world);
    let first = world.now;
    world.handle(Event::Wake);
    assert_eq!(look(&world), None, "it has just looked");
    next_look(&mut world);
    assert_eq!(world.now.since(first), KEPT / 10);
}

#[test]
fn a_look_that_found_nothing_writes_nothing() {
    let mut world = world();
    let look = next_look(&mut world);
    let nothing = Aged {
        round: look.round,
        ..Aged::default()
    };
    let effects = world.farm.handle(at(world.now), Event::Aged(nothing));
    assert!(matches!(effects[..], [Effect::Prune]), "{effects:?}");
}

#[test]
fn a_job_just_as_old_as_jobs_are_kept_is_still_there_to_be_retried() {
    let mut world = world();
    let mut host = world.ready(1);
    next_look(&mut world);
    let kept = world.running(&mut host, "kept");
    world.end(&mut host, kept, Outcome::Succeeded);
    world.seal(&mut host, kept);
    world.deliver(kept);
    let stored = world.store.jobs[&kept.job].clone();
    let JobState::Done(done) = &stored.state else {
        panic!("it is over");
    };
    let finished = done.at;
    while next_look(&mut world).jobs_before < Some(finished) {}
    let last = look(&world).unwrap();
    assert_eq!(last.jobs_before, Some(finished), "those before it are gone");
    let job = Box::new(stored);
    let why = Text::default();
    world.ask(Command::Retry { job, why }).unwrap();
}

#[test]
fn a_key_is_forgotten_with_its_submission() {
    let mut world = world();
    let submit = |world: &mut World| {
        world.ask(Command::Submit(Submit {
            key: Some(Text::new("key").unwrap()),
            jobs: List::new(vec![spec("once")]).unwrap(),
            allow_unmatched: true,
        }))
    };
    let Ok(Reply::Submitted { jobs, .. }) = submit(&mut world) else {
        panic!("it is taken")
    };
    world.cancel(jobs[0]).unwrap();
    let look = next_look(&mut world);
    let found = all_done(&world, look);
    world.handle(Event::Aged(found));
    let again = submit(&mut world).unwrap();
    assert!(matches!(again, Reply::Submitted { existed: false, .. }));
}

#[test]
fn a_farm_that_keeps_everything_never_looks() {
    let mut world = World::with(Settings {
        retire_jobs_after: None,
        retire_events_after: None,
        ..Settings::default()
    });
    world.pass(Duration::from_secs(1));
    assert_eq!(world.farm.next_deadline(), None);
}
