//! Starts: epochs, restored backups, and what a snapshot has to bring back.

use super::*;
use crate::record::OperatorMode;

#[test]
fn the_epoch_rises_at_each_start() {
    let mut world = World::new();
    let first = world.farm.epoch();
    world.restart();
    let second = world.farm.epoch();
    assert_eq!(second.counter, first.counter + 1);
    assert_ne!(second.random, first.random);
}

#[test]
fn a_restored_backup_assigns_nothing_until_an_operator_accepts() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let backup = world.store.snapshot();
    world.restart();
    world.hello(&mut host);
    world.clean_if_ordered(&mut host);
    let known = world.running(&mut host, "built after the backup");
    world.store.jobs.clear();
    world.restart_from(backup);
    assert_eq!(world.hello(&mut host), Some(CloseCode::LowerEpoch));
    let entry = world.store.ledger.last().unwrap();
    assert_eq!(entry.kind, LedgerKind::RestoreSuspected);
    assert!(entry.why.contains(&known.to_string()), "{entry:?}");
    let meta = world.store.meta.as_ref().unwrap();
    assert_eq!(meta.job_seen, known.job.0);
    let refused = world.ask(Command::Submit(Submit {
        key: None,
        jobs: List::new(vec![spec("x")]).unwrap(),
        allow_unmatched: true,
    }));
    assert!(
        refused.is_err(),
        "its number could be one that was given out"
    );
    world
        .ask(Command::AcceptRestore {
            why: Text::default(),
        })
        .unwrap();
    assert!(world.farm.epoch().counter > host.hello.epoch.counter);
    assert_eq!(world.hello(&mut host), None);
    assert!(matches!(world.standing(known), Standing::Abandon { .. }));
    let fresh = world.submit(spec("fresh"));
    assert!(fresh.0 > known.job.0, "no number is given out twice");
}

#[test]
fn a_backup_of_the_same_epoch_is_noticed_by_what_agents_remember() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let mut idle = world.ready(2);
    let backup = world.store.snapshot();
    world.hello(&mut idle);
    let known = world.running(&mut host, "built after the backup");
    world.store.jobs.clear();
    world.restart_from(backup);
    assert!(
        world.farm.epoch() > host.hello.epoch,
        "the epochs tell nothing"
    );
    for _ in 0..2 {
        assert_eq!(world.hello(&mut host), Some(CloseCode::LowerEpoch));
    }
    world
        .ask(Command::AcceptRestore {
            why: Text::default(),
        })
        .unwrap();
    assert_eq!(world.hello(&mut host), None);
    assert!(matches!(world.standing(known), Standing::Abandon { .. }));
    assert_eq!(
        world.hello(&mut idle),
        None,
        "who comes later is not asked about again"
    );
    let fresh = world.submit(spec("fresh"));
    assert!(fresh.0 > known.job.0);
}

#[test]
fn no_number_of_the_lost_life_is_given_out_again() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let backup = world.store.snapshot();
    world.restart();
    world.hello(&mut host);
    world.clean_if_ordered(&mut host);
    // All of this is over and told to nobody who will speak of it again.
    let attempt = world.running(&mut host, "built and forgotten");
    world.end(&mut host, attempt, Outcome::Succeeded);
    world.seal(&mut host, attempt);
    world.deliver(attempt);
    host.held.clear();
    let waited = world.submit(spec("waited"));
    world.ready(2);
    let (submission, agent, builder) = newest(&world);

    world.store.jobs.clear();
    world.restart_from(backup);
    assert_eq!(world.hello(&mut host), Some(CloseCode::LowerEpoch));
    world
        .ask(Command::AcceptRestore {
            why: Text::default(),
        })
        .unwrap();
    let fresh = world.submit(spec("fresh"));
    assert!(fresh > waited, "{fresh:?} {waited:?}");
    world.ready(3);
    let (new_submission, new_agent, new_builder) = newest(&world);
    assert!(new_submission > submission);
    assert!(new_agent > agent);
    assert!(new_builder > builder);
}

#[test]
fn a_proof_that_a_backup_waited_for_proves_nothing() {
    let mut world = World::new();
    let mut host = world.host(1);
    world.hello(&mut host);
    let ordered = world.reset_order().expect("a reset was ordered");
    let backup = world.store.snapshot();
    world.prove(&mut host, ordered);
    world.restart();
    world.hello(&mut host);
    let attempt = world.running(&mut host, "it was clean, and is not any more");
    world.end(&mut host, attempt, Outcome::Succeeded);
    world.seal(&mut host, attempt);
    world.deliver(attempt);
    host.held.clear();

    world.store.jobs.clear();
    world.restart_from(backup);
    assert_eq!(world.hello(&mut host), Some(CloseCode::LowerEpoch));
    world
        .ask(Command::AcceptRestore {
            why: Text::default(),
        })
        .unwrap();
    world.submit(spec("fresh"));
    assert_eq!(world.hello(&mut host), None);
    let anew = world.reset_order().expect("another reset was ordered");
    assert_ne!(anew, ordered);
    // It says again what the store does not know: its old proof first.
    world.prove(&mut host, ordered);
    assert!(world.offers().is_empty(), "proved by a life that is over");
    world.prove(&mut host, anew);
    world.offered(&host);
}

/// The newest submission, agent and builder.
fn newest(world: &World) -> (u64, u32, u32) {
    let records = &world.store;
    (
        records.submissions.last().unwrap().id.0,
        *records.agents.keys().last().unwrap(),
        *records.builders.keys().last().unwrap(),
    )
}

#[test]
fn a_copy_of_the_store_at_the_same_count_is_suspect_too() {
    let mut world = World::new();
    let (copy, _) = world.store.snapshot();
    world.restart();
    let mut host = world.ready(1);
    let (agents, builders) = (world.store.agents.clone(), world.store.builders.clone());
    let before = world.farm.epoch();
    let copy = Snapshot {
        agents: agents.into_values().collect(),
        builders: builders.into_values().collect(),
        ..copy
    };
    world.restart_from((copy, Vec::new()));
    assert_eq!(world.farm.epoch().counter, before.counter);
    assert_eq!(world.hello(&mut host), Some(CloseCode::LowerEpoch));
}

#[test]
fn an_attempt_of_the_generation_before_costs_a_retried_job_nothing() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let over = world.running(&mut host, "hello");
    world.end(&mut host, over, failed());
    world.seal(&mut host, over);
    world.deliver(over);
    operators::set(&mut world, &host, OperatorMode::Manual);
    let job = Box::new(world.store.jobs[&over.job].clone());
    let why = Text::default();
    world.ask(Command::Retry { job, why }).unwrap();
    let backup = world.store.snapshot();
    world.restart();
    world.hello(&mut host);
    world.restart_from(backup);
    assert_eq!(world.hello(&mut host), Some(CloseCode::LowerEpoch));
    let job = &world.farm.jobs[&over.job];
    assert_eq!((job.generation, job.number, job.refunded), (2, 0, 0));
}

#[test]
fn nobodys_silence_costs_a_build_while_a_restore_is_suspected() {
    let lost_after = Settings::default().lost_after;
    let mut world = World::new();
    let mut host = world.ready(1);
    let attempt = world.running(&mut host, "hello");
    let mut witness = world.ready(2);
    let backup = world.store.snapshot();
    world.restart();
    world.hello(&mut witness);
    world.restart_from(backup);
    assert_eq!(world.hello(&mut witness), Some(CloseCode::LowerEpoch));
    world.now = world.now + lost_after;
    world.handle(Event::Wake);
    assert!(
        !world.waits(attempt.job),
        "agents stay away from this store"
    );
    assert!(
        world.farm.next_deadline() > Some(world.now),
        "all in its time"
    );
    let why = Text::default();
    world.ask(Command::AcceptRestore { why }).unwrap();
    world.pass(lost_after);
    assert!(world.waits(attempt.job), "from now on silence counts again");
}

#[test]
fn an_agent_that_makes_an_epoch_up_stops_nobody_but_itself() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let honest = world.ready(2);
    host.hello.epoch.counter += 1;
    assert_eq!(world.hello(&mut host), Some(CloseCode::BadHello));
    let frozen = &world.store.agents.values().next().unwrap();
    assert_eq!(frozen.standing, crate::record::AgentStanding::Frozen);
    let job = world.submit(spec("hello"));
    assert_eq!(world.offered(&honest).job, job, "the farm goes on");
}

#[test]
fn attempts_that_an_agent_makes_up_are_no_sign_of_a_lost_life() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let honest = world.ready(2);
    let made_up = AttemptId {
        job: JobId(u64::MAX),
        generation: 1,
        number: 1,
        nonce: 5,
    };
    world.hold(&mut host, made_up, AttemptPhase::Running);
    assert_eq!(world.hello(&mut host), None);
    assert!(matches!(world.standing(made_up), Standing::Abandon { .. }));
    world.submit(spec("first"));
    let second = world.submit(spec("second"));
    assert!(second.0 < 10, "and no number is skipped for it");
    drop(honest);
}

#[test]
fn more_sessions_than_the_store_knows_are_believed_of_two_agents() {
    let mut world = World::new();
    let (mut one, mut two) = (world.ready(1), world.ready(2));
    let later = |host: &mut Host| {
        host.hello.previous_session = Some(farmbell_protocol::id::SessionId(99));
    };
    later(&mut one);
    assert_eq!(world.hello(&mut one), None, "one agent's word");
    later(&mut two);
    assert_eq!(world.hello(&mut two), Some(CloseCode::LowerEpoch));
}

#[test]
fn a_repeated_submit_finds_its_job_across_a_restart() {
    let mut world = World::new();
    let submit = || {
        Command::Submit(Submit {
            key: Some(Text::new("monday").unwrap()),
            jobs: List::new(vec![spec("hello")]).unwrap(),
            allow_unmatched: true,
        })
    };
    let Ok(Reply::Submitted { jobs, existed, .. }) = world.ask(submit()) else {
        panic!("refused");
    };
    assert!(!existed);
    world.restart();
    let Ok(Reply::Submitted {
        jobs: again,
        existed,
        ..
    }) = world.ask(submit())
    else {
        panic!("refused");
    };
    assert!(existed);
    assert_eq!(jobs, again);
    assert_eq!(world.store.jobs.len(), 1);
}

#[test]
fn whoever_held_work_has_its_time_to_come_back_and_nobody_waits_for_the_others() {
    let lost_after = Settings::default().lost_after;
    let mut world = World::new();
    let mut host = world.ready(1);
    let attempt = world.running(&mut host, "hello");
    let idle = world.ready(2);
    world.restart();
    let lost_at = |world: &World, host: &Host| {
        let agent = world.record(host).agent;
        world.store.agents[&agent.0].lost_at
    };
    assert!(lost_at(&world, &host).is_some());
    assert_eq!(lost_at(&world, &idle), None);
    world.pass(lost_after - Duration::from_secs(1));
    assert!(!world.waits(attempt.job));
    world.pass(Duration::from_secs(1));
    assert!(world.waits(attempt.job));
}

#[test]
fn everything_goes_on_where_it_was() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let attempt = world.running(&mut host, "one");
    let waiting = world.submit(spec("two"));
    world.restart();
    world.hello(&mut host);
    world.end(&mut host, attempt, Outcome::Succeeded);
    world.seal(&mut host, attempt);
    world.clean(&mut host);
    assert_eq!(world.offered(&host).job, waiting);
    let third = world.submit(spec("three"));
    assert!(third > waiting);
}

#[test]
fn the_clock_is_checkpointed_while_a_deadline_is_armed() {
    let mut world = World::new();
    let host = world.ready(1);
    world.handle(Event::Closed { conn: host.conn });
    let before = world.store.meta.clone().unwrap().clock;
    world.pass(Duration::from_secs(30));
    let after = world.store.meta.clone().unwrap().clock;
    assert!(after.since(before) >= Duration::from_secs(29));
    world.pass(Duration::from_secs(600));
    let idle = world.farm.next_deadline().unwrap().since(world.now);
    let hours = Duration::from_secs(23 * 3600);
    assert!(
        idle > hours,
        "until the next look for old history: {idle:?}"
    );
}

#[test]
fn a_job_that_is_behind_what_its_agent_holds_is_a_backup_too() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let first = world.running(&mut host, "hello");
    let mut backup = world.store.snapshot();
    host.held.clear();
    host.hello.boot = BootId([77; 16]);
    host.hello.incarnation += 1;
    world.hello(&mut host);
    world.clean(&mut host);
    let second = world.offered(&host);
    world.accept(&mut host, second);
    // Sessions tell nothing: only the job itself is behind.
    backup.0.agents = world.store.snapshot().0.agents;
    world.store.jobs.clear();
    world.restart_from(backup);
    assert_eq!(world.hello(&mut host), Some(CloseCode::LowerEpoch));
    // What it was seen to hold is not given out again, and cost no attempt.
    let job = &world.store.jobs[&first.job];
    assert_eq!((job.attempt_number, job.refunded), (2, 1));
}
