//! Who is at fault, black holes, breaches, and what an explanation knows.

use super::*;
use crate::blame::{Judgement, judge};
use crate::record::OperatorMode;

/// Runs the job offered to this host for so long, to its verdict or return.
pub(super) fn take(
    world: &mut World,
    host: &mut Host,
    attempt: AttemptId,
    seconds: u64,
    outcome: Outcome,
) {
    world.accept(host, attempt);
    world.start(host, attempt);
    world.now = world.now + Duration::from_secs(seconds);
    world.end(host, attempt, outcome);
    world.seal(host, attempt);
    let order = world.reset_order();
    world.deliver(attempt);
    if let Some(nonce) = order.filter(|nonce| world.record(host).nonce == Some(*nonce)) {
        world.prove(host, nonce);
    }
}

#[test]
fn a_tie_blames_neither_and_more_strikes_are_guilty() {
    assert_eq!(judge(1, 1), Judgement::Neither);
    assert_eq!(judge(2, 1), Judgement::Builder);
    assert_eq!(judge(1, 2), Judgement::Job);
    assert_eq!(judge(5, 5), Judgement::Neither);
}

#[test]
fn a_job_that_fails_on_every_good_builder_has_failed() {
    let mut world = World::new();
    let mut hosts: Vec<Host> = (1..=3).map(|number| world.ready(number)).collect();
    let job = world.submit(spec("poison"));
    for _ in 0..3 {
        let JobState::Live(live) = world.store.jobs[&job].state.clone() else {
            panic!("it is on some builder");
        };
        let host = hosts
            .iter_mut()
            .find(|host| host.builders[0].name == live.builder_name)
            .unwrap();
        world.run(host, live.id, builder_problem());
        world.deliver(live.id);
    }
    let Some(Verdict::Failed { why, .. }) = world.verdict(job) else {
        panic!("{:?}", world.verdict(job));
    };
    assert!(why.contains("every builder"), "{why}");
    for host in &hosts[1..] {
        assert_eq!(world.record(host).strikes, 0, "they are cleared");
    }
}

#[test]
fn a_builder_that_fails_job_after_job_is_quarantined_and_the_jobs_go_on() {
    let mut world = World::new();
    let mut bad = world.ready(1);
    let mut jobs = Vec::new();
    for number in 0..5 {
        world.now = world.now + Duration::from_secs(60);
        let job = world.submit(spec(&format!("innocent{number}")));
        jobs.push(job);
        let attempt = world.offered(&bad);
        let good = world.ready(10 + number);
        take(&mut world, &mut bad, attempt, 40, builder_problem());
        let JobState::Live(live) = &world.store.jobs[&job].state else {
            panic!("another builder has it");
        };
        assert_eq!(live.builder_name, good.builders[0].name);
    }
    assert_eq!(world.record(&bad).mode, OperatorMode::Quarantined);
    assert!(jobs.iter().all(|job| world.verdict(*job).is_none()));
}

#[test]
fn a_black_hole_is_taken_out_after_three_jobs() {
    let mut world = World::new();
    let mut good = world.ready(1);
    for number in 0..4 {
        world.submit(spec(&format!("fine{number}")));
        let attempt = world.offered(&good);
        take(&mut world, &mut good, attempt, 300, Outcome::Succeeded);
    }
    operators::set(&mut world, &good, OperatorMode::Manual);
    let mut hole = world.ready(2);
    for number in 0..3 {
        assert_eq!(world.record(&hole).mode, OperatorMode::Enabled);
        world.submit(spec(&format!("eaten{number}")));
        let attempt = world.offered(&hole);
        take(&mut world, &mut hole, attempt, 2, failed());
    }
    let record = world.record(&hole);
    assert_eq!(record.mode, OperatorMode::Quarantined);
    assert!(
        record.mode_why.contains("3 fast failures"),
        "{}",
        record.mode_why
    );
}

#[test]
fn jobs_that_fail_everywhere_make_no_black_hole() {
    let mut world = World::new();
    let mut hosts = [world.ready(1), world.ready(2)];
    for number in 0..12 {
        world.submit(spec(&format!("broken{number}")));
        let offers = world.offers();
        let host = hosts
            .iter_mut()
            .find(|host| offers.iter().any(|(conn, _)| *conn == host.conn))
            .unwrap();
        take(&mut world, host, offers[0].1, 2, failed());
    }
    for host in &hosts {
        assert_eq!(world.record(host).mode, OperatorMode::Enabled);
    }
}

#[test]
fn a_clean_builder_that_turns_out_busy_is_taken_out_at_once() {
    let mut world = World::new();
    let over = world.submit(spec("over"));
    world.cancel(over).unwrap();
    let mut host = world.ready(1);
    let stray = AttemptId {
        job: over,
        generation: 1,
        number: 1,
        nonce: 5,
    };
    host.builders[0].occupied_by = Some(stray);
    world.hold(&mut host, stray, AttemptPhase::Running);
    world.hello(&mut host);
    assert!(matches!(world.standing(stray), Standing::Abandon { .. }));
    let record = world.record(&host);
    assert_eq!(record.mode, OperatorMode::Quarantined);
    assert!(
        record.mode_why.contains("isolation breach"),
        "{}",
        record.mode_why
    );
}

#[test]
fn an_explanation_says_when_a_builder_may_come_free() {
    let mut world = World::new();
    let mut host = world.ready(1);
    world.submit(spec("hello"));
    let attempt = world.offered(&host);
    take(&mut world, &mut host, attempt, 600, Outcome::Succeeded);
    let again = world.submit(spec("hello"));
    let attempt = world.offered(&host);
    assert_eq!(attempt.job, again);
    world.accept(&mut host, attempt);
    world.start(&mut host, attempt);
    world.now = world.now + Duration::from_secs(360);
    let waiting = world.submit(spec("other"));
    let Ok(Reply::Explained { explanation, .. }) = world.ask(Command::Explain { job: waiting })
    else {
        panic!("refused");
    };
    let summary = explanation.unwrap().summary;
    assert_eq!(summary, "1 builder matches; 1 busy (first free in ~4 min)");
}
