//! Reasons are true: what keeps a builder from a job is what is said, and
//! taking just that away starts the job.

use super::*;
use crate::effect::Why;
use crate::event::{AgentAct, JobAct};
use crate::record::OperatorMode;
use farmbell_protocol::agent_to_coordinator::{Condition, Fitness};

/// What an administrator changes about a builder.
type Cure = fn(&mut HelloBuilder);

/// What is said of the only builder.
pub(super) fn why(world: &mut World, job: JobId) -> Vec<Why> {
    match world.ask(Command::Explain { job }) {
        Ok(Reply::Explained { explanation, .. }) => {
            let builders = explanation.expect("it waits").builders;
            assert_eq!(builders.len(), 1);
            builders[0].2.clone()
        }
        other => panic!("{other:?}"),
    }
}

pub(super) fn fitness(world: &mut World, host: &mut Host, fitness: Fitness) {
    let seq = host.builders[0].last_seq.next();
    host.builders[0].last_seq = seq;
    world.report(
        host,
        AgentFrame::Condition(Condition {
            builder: BuilderIndex(0),
            seq,
            fitness,
            why: Text::default(),
        }),
    );
}

#[test]
fn a_misfit_names_each_thing_that_the_builder_would_have_to_offer() {
    let mut world = World::new();
    let mut host = world.host(1);
    host.builders[0].restricted_tags = List::new(vec![name("gpu")]).unwrap();
    world.hello(&mut host);
    world.clean(&mut host);
    let mut wanting = spec("demanding");
    wanting.recipe = name("kiwi");
    wanting.architecture = name("riscv64");
    wanting.virtualized = true;
    wanting.rung = Rung::Virtual;
    wanting.limits.memory_bytes = 2 << 30;
    wanting.limits.disk_bytes = 2 << 30;
    wanting.tags = List::new(vec![name("ssd")]).unwrap();
    let job = world.submit(wanting);
    let cures: [(Why, Cure); 8] = [
        (Why::WrongArchitecture, |b| {
            b.architectures = List::new(vec![name("riscv64")]).unwrap();
        }),
        (Why::WrongVirtualization, |b| b.virtualized = true),
        (Why::NoRecipe, |b| {
            b.recipes = List::new(vec![name("kiwi")]).unwrap()
        }),
        (Why::RungTooLow, |b| b.rung = Rung::Virtual),
        (Why::TooLittleMemory, |b| b.memory_bytes = 2 << 30),
        (Why::TooLittleDisk, |b| b.disk_bytes = 2 << 30),
        (Why::LacksTag(name("ssd")), |b| {
            b.open_tags = List::new(vec![name("ssd")]).unwrap();
        }),
        (Why::RestrictedTag(name("gpu")), |b| {
            b.restricted_tags = List::default()
        }),
    ];
    for (left, (reason, cure)) in cures.iter().enumerate() {
        let said = why(&mut world, job);
        assert_eq!(said.first(), Some(reason));
        assert_eq!(said.len(), cures.len() - left, "{said:?}");
        cure(&mut host.builders[0]);
        world.hello(&mut host);
    }
    assert_eq!(world.offered(&host).job, job);
}

#[test]
fn an_operators_hold_is_named_and_lifting_it_starts_the_job() {
    for (mode, reason) in [
        (OperatorMode::Manual, Why::Manual),
        (OperatorMode::Draining, Why::Draining),
    ] {
        let mut world = World::new();
        let host = world.ready(1);
        operators::set(&mut world, &host, mode);
        let job = world.submit(spec("hello"));
        assert_eq!(why(&mut world, job), [reason]);
        operators::set(&mut world, &host, OperatorMode::Enabled);
        assert_eq!(world.offered(&host).job, job);
    }
    for (mode, reason) in [
        (OperatorMode::Disabled, Why::Disabled),
        (OperatorMode::Quarantined, Why::Quarantined),
    ] {
        let mut world = World::new();
        let mut host = world.ready(1);
        operators::set(&mut world, &host, mode);
        let job = world.submit(spec("hello"));
        assert_eq!(why(&mut world, job), [reason]);
        operators::set(&mut world, &host, OperatorMode::Enabled);
        world.clean(&mut host);
        assert_eq!(world.offered(&host).job, job);
    }
}

#[test]
fn a_quarantine_is_named_with_its_hour() {
    let mut world = World::new();
    let host = world.ready(1);
    world.now = Time(0) + Duration::from_secs((38 * 60 + 2) * 60);
    operators::set(&mut world, &host, OperatorMode::Quarantined);
    let job = world.submit(spec("hello"));
    let Ok(Reply::Explained { explanation, .. }) = world.ask(Command::Explain { job }) else {
        panic!("refused");
    };
    assert_eq!(
        explanation.unwrap().summary,
        "1 builder matches; 1 quarantined (maintenance since 14:02 UTC)"
    );
}

#[test]
fn an_unfit_an_unreachable_and_a_dirty_builder_are_named() {
    let mut world = World::new();
    let mut host = world.ready(1);
    fitness(&mut world, &mut host, Fitness::DiskLow);
    let job = world.submit(spec("hello"));
    assert_eq!(why(&mut world, job), [Why::Unfit(Fitness::DiskLow)]);
    world.handle(Event::Closed { conn: host.conn });
    assert_eq!(
        why(&mut world, job),
        [Why::Unreachable, Why::Unfit(Fitness::DiskLow)]
    );
    world.pass(Duration::from_secs(301));
    assert_eq!(
        why(&mut world, job),
        [Why::Offline, Why::Unfit(Fitness::DiskLow)]
    );
    host.hello.boot = BootId([44; 16]);
    world.hello(&mut host);
    let order = world.reset_order().unwrap();
    assert_eq!(
        why(&mut world, job),
        [Why::Unfit(Fitness::DiskLow), Why::Resetting]
    );
    fitness(&mut world, &mut host, Fitness::Throttled);
    let both = [Why::Unfit(Fitness::Throttled), Why::Resetting];
    assert_eq!(why(&mut world, job), both);
    world.prove(&mut host, order);
    assert!(world.offers().is_empty(), "too hot");
    fitness(&mut world, &mut host, Fitness::Fit);
    assert_eq!(world.offered(&host).job, job);
}

#[test]
fn a_failing_reset_and_unsent_outputs_are_named() {
    let mut world = World::new();
    let mut host = world.host(1);
    host.builders[0].spool_survives_reset = false;
    world.hello(&mut host);
    let nonce = world.reset_order().unwrap();
    let job = world.submit(spec("hello"));
    world.fail_reset(&mut host, nonce);
    assert_eq!(why(&mut world, job), [Why::ResetFailing]);
    world.pass(Duration::from_secs(10));
    let nonce = world.record(&host).nonce.unwrap();
    world.prove(&mut host, nonce);
    let attempt = world.offered(&host);
    let next = world.submit(spec("next"));
    assert_eq!(why(&mut world, next), [Why::Busy(attempt)]);
    world.run(&mut host, attempt, Outcome::Succeeded);
    assert_eq!(why(&mut world, next), [Why::AwaitsUpload]);
    world.deliver(attempt);
    world.clean(&mut host);
    assert_eq!(world.offered(&host).job, next);
}

#[test]
fn a_frozen_and_a_revoked_agent_are_told_apart_by_what_helps() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let agent = world.record(&host).agent;
    let act = |world: &mut World, act| {
        let why = Text::new("odd").unwrap();
        world.ask(Command::Agent { agent, act, why })
    };
    world.handle(Event::Parked {
        key: host.key,
        what: Text::new("a poison report").unwrap(),
    });
    let job = world.submit(spec("hello"));
    assert_eq!(why(&mut world, job), [Why::AgentFrozen]);
    act(&mut world, AgentAct::Approve).unwrap();
    world.hello(&mut host);
    assert_eq!(world.offered(&host).job, job);
    act(&mut world, AgentAct::Revoke).unwrap();
    assert_eq!(why(&mut world, job), [Why::AgentRevoked]);
    assert!(act(&mut world, AgentAct::Approve).is_err());
    act(&mut world, AgentAct::Remove).unwrap();
    let host = world.ready(2);
    assert_eq!(world.offered(&host).job, job);
}

#[test]
fn a_job_nobody_hinders_has_started() {
    let mut world = World::new();
    let host = world.ready(1);
    let job = world.submit(spec("hello"));
    world
        .ask(Command::Job {
            job,
            act: JobAct::Suspend,
            why: Text::default(),
        })
        .unwrap();
    let attempt = match world.store.jobs[&job].state.clone() {
        JobState::Live(live) => live.id,
        other => panic!("it started at once, {other:?}"),
    };
    assert_eq!(attempt.job, job, "what runs is not stopped by suspending");
    operators::set(&mut world, &host, OperatorMode::Disabled);
    assert!(world.waits(job));
    assert!(world.offers().is_empty(), "and now it is held");
}
