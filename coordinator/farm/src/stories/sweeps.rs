//! The look behind the events: what a bug would leave behind is found,
//! repaired and reported; without one nothing happens.

use super::*;
use crate::deadlines::Deadline;

/// Longer than between two sweeps.
const SWEEP: Duration = Duration::from_secs(5 * 60 + 1);

fn repairs(world: &World) -> Vec<&str> {
    let entries = world.store.ledger.iter();
    entries
        .filter(|entry| entry.kind == LedgerKind::Repaired)
        .map(|entry| entry.why.as_str())
        .collect()
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
    world.pass(SWEEP);
    assert!(world.waits(attempt.job), "it was given up in the end");
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
    let repaired = |effects: &[Effect]| {
        let is = |effect: &&Effect| matches!(effect, Effect::Change(Change::Ledger(entry)) if entry.kind == LedgerKind::Repaired);
        effects.iter().filter(is).count()
    };
    assert_eq!(repaired(&effects), 1000);
    let mut rest = 0;
    for _ in 0..2 {
        world.now = world.farm.next_deadline().unwrap();
        let effects = world.farm.handle(at(world.now), Event::Wake);
        rest += repaired(&effects);
    }
    assert_eq!(rest, 1500);
    world.farm.check_all().unwrap();
}
