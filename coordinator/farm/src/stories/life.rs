//! The life of a job when nothing goes wrong, and how each outcome ends it.

use super::*;
use crate::record::{Cleanliness, Occupation, OperatorMode};
use farmbell_protocol::agent_to_coordinator::Refusal;

#[test]
fn a_job_runs_from_submit_to_verdict() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let job = world.submit(spec("hello"));
    let attempt = world.offered(&host);
    assert_eq!((attempt.generation, attempt.number), (1, 1));
    assert_eq!(world.record(&host).cleanliness, Cleanliness::Dirty);
    world.run(&mut host, attempt, Outcome::Succeeded);
    assert_eq!(world.record(&host).occupation, Occupation::Free);
    assert_eq!(world.verdict(job), None, "its bytes still travel");
    world.deliver(attempt);
    assert_eq!(world.verdict(job), Some(Verdict::Succeeded));
    assert!(world.sent().iter().any(|frame| matches!(
        frame,
        CoordinatorFrame::Committed(order) if order.attempt == attempt
    )));
}

#[test]
fn reports_of_an_attempt_are_applied_once_and_in_order() {
    let mut world = World::new();
    let host = world.ready(1);
    world.submit(spec("hello"));
    let attempt = world.offered(&host);
    let says = |world: &mut World, frame| {
        world.report(&host, frame);
        let sent = world.sent().into_iter();
        let acks = sent.filter_map(|frame| match frame {
            CoordinatorFrame::Ack(ack) => Some(ack.seq.0),
            _ => None,
        });
        acks.collect::<Vec<_>>()
    };
    let accepted = || {
        let seq = Seq(1);
        AgentFrame::Accepted(Accepted { attempt, seq })
    };
    let started = || {
        let seq = Seq(2);
        AgentFrame::Started(Started { attempt, seq })
    };
    assert_eq!(says(&mut world, started()), [], "a gap is not answered");
    assert_eq!(says(&mut world, accepted()), [1]);
    assert_eq!(says(&mut world, accepted()), [1], "a repetition is");
    assert_eq!(says(&mut world, started()), [2]);
    assert_eq!(says(&mut world, accepted()), [2], "with all there is");
    let running = world.store.kinds().into_iter();
    let running = running.filter(|kind| *kind == LedgerKind::JobRunning);
    assert_eq!(running.count(), 1);
}

#[test]
fn a_builder_is_reset_while_its_outputs_travel_and_works_again() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let first = world.submit(spec("first"));
    let attempt = world.offered(&host);
    let second = world.submit(spec("second"));
    world.run(&mut host, attempt, Outcome::Succeeded);
    world.clean(&mut host);
    let next = world.offered(&host);
    assert_eq!(next.job, second);
    world.deliver(attempt);
    assert_eq!(world.verdict(first), Some(Verdict::Succeeded));
    assert_eq!(world.verdict(second), None);
}

#[test]
fn a_failed_build_is_the_jobs_verdict() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let job = world.submit(spec("hello"));
    let attempt = world.offered(&host);
    world.run(&mut host, attempt, failed());
    world.deliver(attempt);
    let verdict = world.verdict(job).unwrap();
    assert!(
        matches!(
            verdict,
            Verdict::Failed {
                kind: FailureKind::Build,
                ..
            }
        ),
        "{verdict:?}"
    );
}

#[test]
fn a_builders_problem_is_no_result_of_the_job() {
    let mut world = World::new();
    let mut bad = world.ready(1);
    let job = world.submit(spec("hello"));
    let attempt = world.offered(&bad);
    let good = world.ready(2);
    world.run(&mut bad, attempt, builder_problem());
    world.deliver(attempt);
    assert_eq!(world.verdict(job), None);
    assert_eq!(
        world.offered(&good).number,
        2,
        "another builder takes it at once"
    );
    assert_eq!(world.record(&bad).strikes, 1);
}

#[test]
fn attempts_are_capped_and_one_builder_alone_ends_a_poison_job() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let job = world.submit(spec("poison"));
    for number in 1..=3 {
        let attempt = world.offered(&host);
        assert_eq!(attempt.number, number);
        world.run(&mut host, attempt, builder_problem());
        let order = world.reset_order().unwrap();
        world.deliver(attempt);
        if number < 3 {
            world.prove(&mut host, order);
        }
    }
    assert!(matches!(
        world.verdict(job),
        Some(Verdict::Infrastructure { .. })
    ));
}

#[test]
fn a_retry_is_a_new_generation_and_keeps_the_history() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let job = world.submit(spec("hello"));
    let attempt = world.offered(&host);
    operators::refuse(&mut world, &mut host, attempt, Refusal::Backlog);
    world.clean(&mut host);
    world.pass(Duration::from_secs(61));
    let attempt = match &world.store.jobs[&job].state {
        JobState::Live(live) if live.id.number == 2 => live.id,
        other => panic!("{other:?}"),
    };
    world.run(&mut host, attempt, failed());
    world.clean(&mut host);
    world.deliver(attempt);
    let stored = world.store.jobs[&job].clone();
    assert_eq!(stored.refunded, 1);
    let retry = || Command::Retry {
        job: Box::new(stored.clone()),
        why: Text::default(),
    };
    world.ask(retry()).unwrap();
    let again = world.offered(&host);
    assert_eq!((again.generation, again.number), (2, 1));
    assert_eq!(world.store.jobs[&job].refunded, 0, "it counts from nothing");
    assert!(world.store.attempts.contains_key(&attempt));
    assert!(world.ask(retry()).is_err(), "it is not finished now");
    world.run(&mut host, again, Outcome::Succeeded);
    world.deliver(again);
    assert!(
        world.ask(retry()).is_err(),
        "that record is of an older generation"
    );
}

#[test]
fn the_ledger_tells_how_each_attempt_and_each_generation_ended() {
    let why = || Reason::cut("so it is");
    let kind = FailureKind::Limit;
    for (outcome, attempt_line, verdict_line) in [
        (
            Outcome::Succeeded,
            "succeeded",
            Some("succeeded: its attempt succeeded"),
        ),
        (
            Outcome::Failed { kind, why: why() },
            "failed (limit): so it is",
            Some("failed: limit: so it is"),
        ),
        (
            Outcome::BuilderProblem { why: why() },
            "the builder's problem: so it is",
            None,
        ),
        (
            Outcome::GivenBack { why: why() },
            "given back: so it is",
            None,
        ),
        (Outcome::Aborted, "aborted on its host", None),
        (
            Outcome::SupervisorLost { why: why() },
            "its supervisor died: so it is",
            None,
        ),
    ] {
        let mut world = World::new();
        let mut host = world.ready(1);
        let attempt = world.running(&mut host, "hello");
        operators::set(&mut world, &host, OperatorMode::Draining);
        world.end(&mut host, attempt, outcome);
        world.seal(&mut host, attempt);
        world.deliver(attempt);
        let line = |kind: LedgerKind| {
            let mut entries = world.store.ledger.iter();
            let entry = entries.find(|entry| entry.kind == kind);
            entry.map(|entry| entry.why.as_str())
        };
        assert_eq!(line(LedgerKind::JobCollecting), Some(attempt_line));
        assert_eq!(line(LedgerKind::JobVerdict), verdict_line);
        let returned = format!("1 of 3 attempts used; {attempt_line}");
        let returned = verdict_line.is_none().then_some(returned);
        assert_eq!(line(LedgerKind::JobReturned), returned.as_deref());
    }
}

#[test]
fn a_retry_starts_without_the_strikes_and_the_waiting_of_the_generation_before() {
    let mut world = World::new();
    let mut bad = world.ready(1);
    let job = world.submit(spec("hello"));
    let attempt = world.offered(&bad);
    let mut good = world.ready(2);
    world.run(&mut bad, attempt, builder_problem());
    world.deliver(attempt);
    let attempt = world.offered(&good);
    assert_eq!(world.store.jobs[&job].strikes, 1);
    world.run(&mut good, attempt, failed());
    world.deliver(attempt);
    world.pass(Duration::from_secs(60));
    let stored = Box::new(world.store.jobs[&job].clone());
    let why = Text::default();
    world.ask(Command::Retry { job: stored, why }).unwrap();
    let retried = &world.store.jobs[&job];
    assert_eq!((retried.generation, retried.strikes), (2, 0));
    let since = at(world.now).wall;
    assert_eq!(retried.state, JobState::Waiting { since });
}
