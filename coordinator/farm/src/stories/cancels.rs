//! Cancelling, in every state, and its races.

use super::*;
use crate::effect::RefusedCode;
use crate::record::{Cleanliness, Occupation};

const CANCEL_AFTER: Duration = Duration::from_secs(3 * 60);

#[test]
fn a_waiting_job_is_cancelled_at_once() {
    let mut world = World::new();
    let job = world.submit(spec("hello"));
    world.cancel(job).unwrap();
    assert_eq!(world.verdict(job), Some(Verdict::Cancelled));
    let refused = world.cancel(job).unwrap_err();
    assert!(refused.cause.contains("has its verdict"), "{refused:?}");
}

#[test]
fn a_running_job_is_cancelled_when_its_agent_has_answered() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let attempt = world.running(&mut host, "hello");
    world.cancel(attempt.job).unwrap();
    assert_eq!(world.aborts(), 1);
    assert_eq!(world.verdict(attempt.job), None);
    world.cancel(attempt.job).unwrap();
    assert_eq!(world.aborts(), 0, "a second wish is the first one");
    world.end(&mut host, attempt, Outcome::Aborted);
    world.seal(&mut host, attempt);
    assert_eq!(world.verdict(attempt.job), None, "its log is still wanted");
    world.handle(Event::LogClosed {
        attempt,
        bytes: 100,
    });
    assert_eq!(world.verdict(attempt.job), Some(Verdict::Cancelled));
}

#[test]
fn a_wish_outlives_a_silent_agent_and_its_deadline_a_restart() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let attempt = world.running(&mut host, "hello");
    world.cancel(attempt.job).unwrap();
    world.pass(CANCEL_AFTER - Duration::from_secs(60));
    assert_eq!(world.verdict(attempt.job), None);
    world.restart();
    assert_eq!(world.hello(&mut host), None);
    assert_eq!(world.aborts(), 1, "said again at the Welcome");
    world.pass(Duration::from_secs(119));
    assert_eq!(world.verdict(attempt.job), None, "it has its grace");
    world.pass(Duration::from_secs(2));
    assert_eq!(world.verdict(attempt.job), Some(Verdict::Cancelled));
    assert_eq!(world.record(&host).occupation, Occupation::Free);
    let cleanliness = world.record(&host).cleanliness;
    let resets = matches!(cleanliness, Cleanliness::Resetting { .. });
    assert!(resets, "escalated to the reset");
}

#[test]
fn crashes_shorter_than_a_deadline_do_not_move_it_for_ever() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let attempt = world.running(&mut host, "hello");
    world.cancel(attempt.job).unwrap();
    let mut lives = 0;
    while world.verdict(attempt.job).is_none() {
        world.pass(Duration::from_secs(5));
        world.restart();
        lives += 1;
        assert!(lives < 400, "the deadline never comes");
    }
}

#[test]
fn a_start_after_a_long_life_gives_agents_their_grace() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let attempt = world.running(&mut host, "hello");
    world.pass(Duration::from_secs(3600));
    world.cancel(attempt.job).unwrap();
    world.pass(CANCEL_AFTER - Duration::from_secs(1));
    world.restart();
    world.pass(Duration::from_secs(119));
    assert_eq!(
        world.verdict(attempt.job),
        None,
        "it may be on its way back"
    );
    world.pass(Duration::from_secs(2));
    assert_eq!(world.verdict(attempt.job), Some(Verdict::Cancelled));
}

#[test]
fn a_wish_wins_over_a_success_that_comes_after_it() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let attempt = world.running(&mut host, "hello");
    world.cancel(attempt.job).unwrap();
    world.end(&mut host, attempt, Outcome::Succeeded);
    world.seal(&mut host, attempt);
    world.deliver(attempt);
    assert_eq!(world.verdict(attempt.job), Some(Verdict::Cancelled));
}

#[test]
fn a_job_is_cancelled_while_its_outputs_travel() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let attempt = world.running(&mut host, "hello");
    world.end(&mut host, attempt, Outcome::Succeeded);
    world.seal(&mut host, attempt);
    world.handle(Event::LogClosed {
        attempt,
        bytes: 100,
    });
    world.cancel(attempt.job).unwrap();
    assert_eq!(world.verdict(attempt.job), Some(Verdict::Cancelled));
}

#[test]
fn what_has_ended_is_not_aborted() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let attempt = world.running(&mut host, "hello");
    world.end(&mut host, attempt, Outcome::Succeeded);
    world.cancel(attempt.job).unwrap();
    assert_eq!(world.aborts(), 0);
    world.hello(&mut host);
    assert_eq!(world.aborts(), 0, "nor at the next Welcome");
    world.seal(&mut host, attempt);
    world.deliver(attempt);
    assert_eq!(world.verdict(attempt.job), Some(Verdict::Cancelled));
}

#[test]
fn a_job_that_never_was_is_told_from_one_that_is_over() {
    let mut world = World::new();
    let job = world.submit(spec("hello"));
    world.cancel(job).unwrap();
    for (job, code) in [
        (job, RefusedCode::Conflict),
        (JobId(job.0 + 1), RefusedCode::NotFound),
        (JobId(0), RefusedCode::NotFound),
    ] {
        assert_eq!(world.cancel(job).unwrap_err().code, code, "{job}");
    }
}

#[test]
fn a_cancelled_jobs_lost_attempt_cancels_it() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let attempt = world.running(&mut host, "hello");
    world.cancel(attempt.job).unwrap();
    host.held.clear();
    world.hello(&mut host);
    assert_eq!(world.standing(attempt), Standing::Lost);
    assert_eq!(world.verdict(attempt.job), Some(Verdict::Cancelled));
}

#[test]
fn a_cancelled_job_on_a_disabled_builder_is_cancelled() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let attempt = world.running(&mut host, "hello");
    world.cancel(attempt.job).unwrap();
    operators::set(&mut world, &host, crate::record::OperatorMode::Disabled);
    assert_eq!(world.verdict(attempt.job), Some(Verdict::Cancelled));
}
