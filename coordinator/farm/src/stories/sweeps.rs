//! The look behind the events: what a bug would leave behind is found,
//! repaired and reported; without one nothing happens.

use super::*;
use crate::deadlines::Deadline;
use crate::event::JobAct;
use crate::record::{Cleanliness, Occupation, OperatorMode};

/// Longer than between two sweeps.
const SWEEP: Duration = Duration::from_secs(5 * 60 + 1);

fn repairs(world: &World) -> Vec<&str> {
    let entries = world.store.ledger.iter();
    entries
        .filter(|entry| entry.kind == LedgerKind::Repaired)
        .map(|entry| entry.why.as_str())
        .collect()
}

/// The repairs of a step that the store is not told of.
fn repaired(effects: &[Effect]) -> usize {
    let is = |effect: &&Effect| {
        matches!(effect, Effect::Change(Change::Ledger(entry))
            if entry.kind == LedgerKind::Repaired)
    };
    effects.iter().filter(is).count()
}

#[test]
fn a_farm_without_bugs_is_swept_without_a_word() {
    let mut world = World::new();
    let mut host = world.ready(1);
    world.running(&mut host, "runs");
    world.submit(spec("waits"));
    let ledger = world.store.ledger.len();
    world.pass(SWEEP * 3);
    assert_eq!(world.store.ledger.len(), ledger);
}

#[test]
fn a_job_that_fell_out_of_the_queue_is_found_and_started() {
    let mut world = World::new();
    let mut host = world.host(1);
    world.hello(&mut host);
    let order = world.reset_order().unwrap();
    let job = world.submit(spec("forgotten"));
    world.farm.unqueue(job);
    world.now = world.now + SWEEP;
    world.handle(Event::Wake);
    assert!(
        repairs(&world)[0].contains("in no queue"),
        "{:?}",
        repairs(&world)
    );
    world.prove(&mut host, order);
    assert_eq!(world.offered(&host).job, job);
}

#[test]
fn a_builder_that_the_index_forgot_gets_work_again() {
    let mut world = World::new();
    let host = world.ready(1);
    let builder = world.record(&host).id;
    world.farm.queue.unset_free(builder);
    // A step that does not look at the builder: only the sweep can find it.
    let effects = world.farm.handle(
        at(world.now),
        Event::Request {
            request: RequestId(7),
            by: Actor {
                name: Text::default(),
            },
            command: Command::Submit(Submit {
                key: None,
                jobs: List::new(vec![spec("starved")]).unwrap(),
                allow_unmatched: true,
            }),
        },
    );
    for effect in effects {
        if let Effect::Change(change) = effect {
            world.store.commit(change);
        }
    }
    world.pass(SWEEP);
    assert_eq!(repairs(&world).len(), 1, "{:?}", repairs(&world));
    let JobState::Live(live) = &world.store.jobs[&JobId(1)].state else {
        panic!("it was started");
    };
    assert_eq!(live.builder, builder);
}

#[test]
fn deadlines_that_were_forgotten_are_armed_again() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let attempt = world.running(&mut host, "lost");
    let agent = world.store.agents.values().next().unwrap().id;
    world.handle(Event::Closed { conn: host.conn });
    world.farm.deadlines.disarm(Deadline::Lost(agent));
    world.pass(SWEEP);
    assert_eq!(repairs(&world).len(), 1, "{:?}", repairs(&world));
    assert!(!world.waits(attempt.job), "its agent has its time");
    world.pass(SWEEP);
    assert!(world.waits(attempt.job), "it was given up in the end");
}

#[test]
fn a_cancel_that_nobody_waits_for_is_waited_for_again() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let attempt = world.running(&mut host, "unwanted");
    world.cancel(attempt.job).unwrap();
    world.farm.deadlines.disarm(Deadline::Cancel(attempt.job));
    world.pass(SWEEP);
    assert_eq!(repairs(&world).len(), 1, "{:?}", repairs(&world));
    assert_eq!(world.verdict(attempt.job), Some(Verdict::Cancelled));
}

#[test]
fn a_job_that_is_queued_although_it_is_held_back_is_taken_out() {
    let mut world = World::new();
    let job = world.submit(spec("suspended"));
    let why = Text::default();
    let act = JobAct::Suspend;
    world.ask(Command::Job { job, act, why }).unwrap();
    let (class, rank) = {
        let job = &world.farm.jobs[&job];
        (job.class, job.rank())
    };
    let owner = world.farm.jobs[&job].owner;
    world.farm.queue.push(job, owner, class, rank);
    world.now = world.now + SWEEP;
    world.handle(Event::Wake);
    let told = repairs(&world)[0];
    assert!(told.contains("queued although it is held back"), "{told}");
    world.ready(1);
    assert!(world.offers().is_empty());
}

#[test]
fn a_job_below_the_brake_is_none_that_was_forgotten() {
    let mut world = World::new();
    let at_the_brake = world.submit(JobSpec {
        priority: 10,
        ..spec("at the brake")
    });
    world.submit(spec("below"));
    world
        .ask(Command::Brake {
            architecture: None,
            least: Some(10),
            why: Text::default(),
        })
        .unwrap();
    world.pass(SWEEP);
    assert_eq!(repairs(&world), [""; 0]);
    let host = world.ready(1);
    assert_eq!(world.offered(&host).job, at_the_brake);
}

#[test]
fn a_builder_that_is_held_by_what_is_over_is_given_back() {
    let over = |attempt: AttemptId| -> [AttemptId; 2] {
        [
            AttemptId {
                nonce: attempt.nonce ^ 1,
                ..attempt
            },
            AttemptId {
                job: JobId(99),
                ..attempt
            },
        ]
    };
    for which in 0..2 {
        let mut world = World::new();
        let mut host = world.ready(1);
        let attempt = world.running(&mut host, "elsewhere");
        let idle = world.ready(2);
        let idle = world.record(&idle).id;
        let builder = world.farm.builders.get_mut(&idle).unwrap();
        let attempt = over(attempt)[which];
        builder.record.occupation = Occupation::Held { attempt };
        builder.record.soil();
        world.farm.queue.unset_free(idle);
        world.now = world.now + SWEEP;
        world.handle(Event::Wake);
        let told = repairs(&world)[0];
        assert!(told.contains("which is over"), "{told}");
        assert_eq!(world.store.builders[&idle.0].occupation, Occupation::Free);
        assert!(world.reset_order().is_some(), "and it is reset");
    }
}

#[test]
fn a_builder_that_is_held_by_anothers_attempt_is_given_back() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let attempt = world.running(&mut host, "elsewhere");
    let works = world.record(&host).id;
    let idle = world.ready(2);
    let idle = world.record(&idle).id;
    let builder = world.farm.builders.get_mut(&idle).unwrap();
    builder.record.occupation = Occupation::Held { attempt };
    builder.record.soil();
    world.farm.queue.unset_free(idle);
    world.now = world.now + SWEEP;
    world.handle(Event::Wake);
    assert_eq!(repairs(&world).len(), 1, "{:?}", repairs(&world));
    let occupation = |id: farmbell_protocol::id::BuilderId| world.store.builders[&id.0].occupation;
    assert_eq!(occupation(idle), Occupation::Free);
    assert_eq!(occupation(works), Occupation::Held { attempt });
}

#[test]
fn a_reset_that_nobody_waits_for_is_ordered_anew() {
    let mut world = World::new();
    let mut host = world.host(1);
    world.hello(&mut host);
    let order = world.reset_order();
    let id = world.record(&host).id;
    world.submit(spec("keeps the sweep awake"));
    world.farm.deadlines.disarm(Deadline::Reset(id));
    world.now = world.now + SWEEP;
    world.handle(Event::Wake);
    assert_eq!(repairs(&world).len(), 1, "{:?}", repairs(&world));
    let anew = world.reset_order();
    assert!(anew.is_some() && anew != order);
    world.pass(Settings::default().reset_after);
    assert_eq!(world.record(&host).strikes, 1, "and this one is waited for");
}

#[test]
fn a_builder_that_the_index_thinks_free_is_given_nothing() {
    let mut world = World::new();
    let mut host = world.host(1);
    world.hello(&mut host);
    let id = world.record(&host).id;
    world.submit(JobSpec {
        architecture: name("riscv64"),
        ..spec("keeps the sweep awake")
    });
    let profile = world.farm.builders[&id].profile;
    world.farm.queue.set_free(id, profile);
    world.now = world.now + SWEEP;
    world.handle(Event::Wake);
    assert_eq!(repairs(&world).len(), 1, "{:?}", repairs(&world));
    let cleanliness = world.record(&host).cleanliness;
    assert!(matches!(cleanliness, Cleanliness::Resetting { .. }));
    world.submit(spec("hello"));
    assert!(world.offers().is_empty());
}

#[test]
fn a_free_builder_that_was_not_offered_a_queued_job_gets_it() {
    let mut world = World::new();
    let host = world.ready(1);
    operators::set(&mut world, &host, OperatorMode::Manual);
    let job = world.submit(spec("passed over"));
    let why = Text::default();
    let act = JobAct::Suspend;
    world.ask(Command::Job { job, act, why }).unwrap();
    operators::set(&mut world, &host, OperatorMode::Enabled);
    let passed_over = world.farm.jobs.get_mut(&job).unwrap();
    passed_over.suspended = false;
    let (owner, class, rank) = (passed_over.owner, passed_over.class, passed_over.rank());
    world.farm.queue.push(job, owner, class, rank);
    world.now = world.now + SWEEP;
    world.handle(Event::Wake);
    let told = repairs(&world)[0];
    assert!(told.contains("it was free while job"), "{told}");
    assert_eq!(world.offered(&host).job, job);
}

#[test]
fn a_sweep_begins_anew_when_it_has_seen_all_and_an_idle_farm_sleeps() {
    let mut world = World::new();
    let job = world.submit(spec("forgotten twice"));
    let other = world.submit(spec("not yet"));
    for found in 1..=2 {
        world.farm.unqueue(job);
        world.now = world.now + SWEEP;
        world.handle(Event::Wake);
        assert_eq!(repairs(&world).len(), found);
    }
    let due = |world: &World| world.farm.next_deadline().unwrap().since(world.now);
    assert!(due(&world) <= SWEEP);
    for job in [job, other] {
        world.cancel(job).unwrap();
    }
    assert!(due(&world) > SWEEP, "until the next look for old history");
}

#[test]
fn many_jobs_are_swept_in_parts() {
    let mut world = World::new();
    let jobs: Vec<JobId> = (0..2500)
        .map(|n| world.submit(spec(&format!("j{n}"))))
        .collect();
    for job in &jobs {
        world.farm.unqueue(*job);
    }
    world.now = world.now + SWEEP;
    let effects = world.farm.handle(at(world.now), Event::Wake);
    assert_eq!(repaired(&effects), 1000);
    let mut rest = 0;
    for _ in 0..2 {
        let due = world.farm.next_deadline().unwrap();
        assert!(due > world.now, "others have their turn between the parts");
        world.now = due;
        let effects = world.farm.handle(at(world.now), Event::Wake);
        rest += repaired(&effects);
    }
    assert_eq!(rest, 1500);
    world.farm.check_all().unwrap();
}

#[test]
fn many_builders_are_swept_to_the_last() {
    let mut world = World::new();
    let mut host = world.host(1);
    host.builders = (0..1001)
        .map(|number| HelloBuilder {
            index: BuilderIndex(number),
            ..builder(&format!("b{number}"))
        })
        .collect();
    world.hello(&mut host);
    world.submit(spec("keeps the sweep awake"));
    let last = *world.farm.builders.keys().last().unwrap();
    world.farm.deadlines.disarm(Deadline::Reset(last));
    let found = [SWEEP, SWEEP / 10].map(|pause| {
        world.now = world.now + pause;
        repaired(&world.farm.handle(at(world.now), Event::Wake))
    });
    assert_eq!(found, [0, 1], "in the second part");
}
