//! The books: what the checks of the invariants notice, and what the ledger says
//! of whom.

use super::*;
use crate::deadlines::Deadline;
use crate::event::{AgentAct, BuilderAct, JobAct};
use crate::jobs::Job;
use crate::mutation::Mutation;
use crate::record::{CancelWish, Cleanliness, Occupation, OperatorMode, Stage};

/// A farm with one running job and one that waits, broken by hand.
fn broken(break_it: impl FnOnce(&mut Farm, AttemptId, JobId)) -> &'static str {
    let mut world = World::new();
    let mut host = world.ready(1);
    let attempt = world.running(&mut host, "runs");
    let waiting = world.submit(spec("waits"));
    break_it(&mut world.farm, attempt, waiting);
    match world.farm.check_all() {
        Ok(()) => "nothing",
        Err(breach) => breach.invariant,
    }
}

fn live(farm: &mut Farm, job: JobId) -> &mut AttemptRecord {
    let job: &mut Job = farm.jobs.get_mut(&job).unwrap();
    job.live_mut().unwrap()
}

fn wish() -> CancelWish {
    CancelWish {
        by: Text::default(),
        why: Text::default(),
        wished: Wall(0),
        superseded: false,
        deadline: Time(0),
    }
}

#[test]
fn books_that_contradict_themselves_are_noticed() {
    assert_eq!(broken(|_, _, _| {}), "nothing");
    assert_eq!(
        broken(|farm, attempt, _| live(farm, attempt.job).id.number = 2),
        "I2",
        "a number that was not given out"
    );
    assert_eq!(
        broken(|farm, attempt, _| live(farm, attempt.job).id.generation = 2),
        "I2"
    );
    assert_eq!(
        broken(|farm, _, waiting| farm.jobs.get_mut(&waiting).unwrap().refunded = 1),
        "I2",
        "more given back than spent"
    );
    assert_eq!(
        broken(|farm, _, waiting| farm.decided.note(waiting, 1, None)),
        "I3",
        "decided, and it waits"
    );
    assert_eq!(
        broken(|farm, attempt, _| farm.jobs.get_mut(&attempt.job).unwrap().ran = 2),
        "I1",
        "live although a later one ran"
    );
    assert_eq!(
        broken(|farm, _, _| farm.agents.values_mut().for_each(|a| a.live.clear())),
        "I9",
        "an attempt of no agent"
    );
    assert_eq!(
        broken(|farm, _, waiting| {
            let agent = farm.agents.values_mut().next().unwrap();
            agent.live.insert(waiting);
        }),
        "I1",
        "an agent with a job that is not its"
    );
    assert_eq!(
        broken(|farm, _, _| farm.agents.values_mut().for_each(|a| a.conn = None)),
        "I9",
        "unreachable without a deadline"
    );
    assert_eq!(
        broken(|farm, attempt, _| {
            let job = farm.jobs.get_mut(&attempt.job).unwrap();
            job.rare_mut().cancel = Some(wish());
        }),
        "I9",
        "a cancel without a deadline"
    );
    assert_eq!(
        broken(|farm, _, waiting| {
            let job = farm.jobs.get_mut(&waiting).unwrap();
            job.rare_mut().cancel = Some(wish());
        }),
        "I9",
        "cancelled, and it waits"
    );
}

#[test]
fn builders_that_contradict_the_books_are_noticed() {
    let builder = |change: fn(&mut BuilderRecord)| {
        broken(|farm, _, _| {
            change(&mut farm.builders.values_mut().next().unwrap().record);
        })
    };
    assert_eq!(builder(|record| record.occupation = Occupation::Free), "I1");
    assert_eq!(
        builder(|record| record.cleanliness = Cleanliness::Clean),
        "I8",
        "clean while it works"
    );
    assert_eq!(
        builder(|record| match &mut record.occupation {
            Occupation::Held { attempt } => attempt.nonce += 1,
            Occupation::Free => panic!("it works"),
        }),
        "I1"
    );
    assert_eq!(
        broken(|farm, attempt, _| {
            live(farm, attempt.job).stage = Stage::Finishing;
            let builder = farm.builders.values_mut().next().unwrap();
            builder.uploads.insert(attempt.job);
            farm.renew_progress(attempt.job);
        }),
        "I1",
        "held by what is sealed"
    );
    assert_eq!(
        broken(|farm, attempt, _| {
            live(farm, attempt.job).stage = Stage::Collecting;
        }),
        "I9",
        "nobody waits for its seal"
    );
}

#[test]
fn a_queue_that_forgets_or_keeps_too_much_is_noticed() {
    assert_eq!(broken(|farm, _, waiting| farm.unqueue(waiting)), "I9");
    assert_eq!(
        broken(|farm, _, waiting| farm.jobs.get_mut(&waiting).unwrap().suspended = true),
        "I9"
    );
    let mut world = World::new();
    let mut host = world.host(1);
    world.hello(&mut host);
    let id = world.record(&host).id;
    world.farm.deadlines.disarm(Deadline::Reset(id));
    let breach = world.farm.check_all().unwrap_err();
    assert_eq!(breach.invariant, "I9", "a reset without a deadline");
    let mut world = World::new();
    let job = world.submit(spec("hello"));
    let act = JobAct::Suspend;
    let why = Text::default();
    world.ask(Command::Job { job, act, why }).unwrap();
    world.ready(1);
    world.farm.jobs.get_mut(&job).unwrap().suspended = false;
    world.farm.enqueue(job);
    let breach = world.farm.check_all().unwrap_err();
    assert_eq!(
        breach.invariant, "I9",
        "it waits for a builder that is free"
    );
}

#[test]
fn what_the_last_step_touched_is_checked_by_itself() {
    let mut world = World::new();
    let mut host = world.host(1);
    world.hello(&mut host);
    let builder = world.record(&host).id;
    world.farm.deadlines.disarm(Deadline::Reset(builder));
    assert_eq!(world.farm.check_touched().unwrap_err().invariant, "I9");
    let mut world = World::new();
    let job = world.submit(spec("hello"));
    assert_eq!(world.farm.check_touched(), Ok(()));
    world.farm.unqueue(job);
    assert_eq!(world.farm.check_touched().unwrap_err().invariant, "I9");
}

#[test]
fn an_assignment_is_one_transaction_with_the_builders_dirt() {
    let mut world = World::new();
    let host = world.ready(1);
    world.submit(spec("hello"));
    let attempt = world.offered(&host);
    let record = world.record(&host);
    assert_eq!(record.occupation, Occupation::Held { attempt });
    assert_eq!(record.cleanliness, Cleanliness::Dirty);
    assert_eq!(record.nonce, None, "its proof is used up");
}

#[test]
fn the_ledger_says_of_which_attempt_and_where() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let attempt = world.running(&mut host, "hello");
    let (builder, agent) = (world.record(&host).id, world.record(&host).agent);
    for kind in [LedgerKind::JobAssigned, LedgerKind::JobRunning] {
        let entry = world.store.ledger.iter().find(|entry| entry.kind == kind);
        let entry = entry.unwrap();
        assert_eq!(
            (entry.job, entry.attempt),
            (Some(attempt.job), Some(attempt))
        );
        assert_eq!((entry.builder, entry.agent), (Some(builder), Some(agent)));
    }
}

#[test]
fn the_ledger_says_of_whom_and_by_whom() {
    let mut world = World::new();
    let host = world.ready(1);
    let (builder, agent) = (world.record(&host).id, world.record(&host).agent);
    let entry = |world: &World, kind: LedgerKind| {
        let mut all = world.store.ledger.iter();
        all.find(|entry| entry.kind == kind).unwrap().clone()
    };
    assert_eq!(entry(&world, LedgerKind::AgentJoined).agent, Some(agent));
    let added = entry(&world, LedgerKind::BuilderAdded);
    assert_eq!((added.builder, added.agent), (Some(builder), Some(agent)));
    operators::set(&mut world, &host, OperatorMode::Manual);
    let mode = entry(&world, LedgerKind::BuilderMode);
    assert_eq!(mode.builder, Some(builder));
    assert_eq!(mode.by.as_str(), "root");
    assert_eq!(mode.why.as_str(), "enabled -> manual: maintenance");
    for (mode, word) in [
        (OperatorMode::Draining, "draining"),
        (OperatorMode::Quarantined, "quarantined"),
        (OperatorMode::Disabled, "disabled"),
    ] {
        operators::set(&mut world, &host, mode);
        let last = world.store.ledger.iter().rev();
        let mut last = last.filter(|entry| entry.kind == LedgerKind::BuilderMode);
        let words = last.next().unwrap().why.clone();
        assert!(
            words.ends_with(&format!("-> {word}: maintenance")),
            "{words}"
        );
    }
    let job = world.submit(spec("hello"));
    world.cancel(job).unwrap();
    let wished = entry(&world, LedgerKind::JobCancelWished);
    assert_eq!((wished.job, wished.by.as_str()), (Some(job), "root"));
    world
        .ask(Command::Builder {
            builder,
            act: BuilderAct::Remove { abandon: false },
            why: Text::default(),
        })
        .unwrap();
    let removed = entry(&world, LedgerKind::BuilderRemoved);
    assert_eq!(removed.builder, Some(builder));
    let act = AgentAct::Remove;
    let why = Text::default();
    world.ask(Command::Agent { agent, act, why }).unwrap();
    let removed = entry(&world, LedgerKind::AgentRemoved);
    assert_eq!((removed.agent, removed.by.as_str()), (Some(agent), "root"));
    let numbers: Vec<u64> = world.store.ledger.iter().map(|entry| entry.seq).collect();
    let first = numbers[0];
    let counted: Vec<u64> = (first..).take(numbers.len()).collect();
    assert_eq!(numbers, counted, "numbered without gaps");
}

#[test]
fn a_protection_that_was_taken_away_is_missed() {
    let mut world = World::new();
    let mut host = world.host(1);
    world.hello(&mut host);
    let order = world.reset_order().unwrap();
    world.submit(spec("hello"));
    world.farm.plant(Mutation::ProofNotConsumed);
    let frame = AgentFrame::Clean(Clean {
        builder: BuilderIndex(0),
        seq: host.builders[0].last_seq.next(),
        nonce: order,
        reset_ms: 1,
        probe_ms: 1,
    });
    let report = Event::Report {
        conn: host.conn,
        frame,
    };
    world.farm.handle(at(world.now), report);
    let breach = world.farm.check_touched().unwrap_err();
    assert_eq!(breach.invariant, "I8");
    assert_eq!(world.farm.check_all().unwrap_err(), breach);
}

#[test]
fn two_builders_that_claim_one_attempt_are_noticed() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let attempt = world.running(&mut host, "here");
    let idle = world.ready(2);
    let idle = world.record(&idle).id;
    let builder = world.farm.builders.get_mut(&idle).unwrap();
    builder.record.occupation = Occupation::Held { attempt };
    let breach = world.farm.check_all().unwrap_err();
    assert_eq!(breach.invariant, "I1");
}
