//! When a waiting job will start, and what a restart leaves of that.

use super::*;
use crate::effect::Explanation;
use crate::record::OperatorMode;

fn explained(world: &mut World, job: JobId) -> Explanation {
    match world.ask(Command::Explain { job }) {
        Ok(Reply::Explained { explanation, .. }) => explanation.unwrap(),
        other => panic!("not explained: {other:?}"),
    }
}

/// A builder that builds this name for so long.
fn builds(world: &mut World, host: &mut Host, text: &str, span: Duration) {
    world.submit(spec(text));
    let attempt = world.offered(host);
    world.accept(host, attempt);
    world.start(host, attempt);
    world.pass(span);
    world.end(host, attempt, Outcome::Succeeded);
    world.seal(host, attempt);
    world.clean_if_ordered(host);
    world.deliver(attempt);
}

#[test]
fn a_waiting_job_knows_its_start_once_its_like_have_run_also_after_a_restart() {
    let mut world = World::new();
    let mut host = world.ready(1);
    builds(&mut world, &mut host, "hello", Duration::from_secs(600));
    world.restart();
    world.hello(&mut host);
    world.clean_if_ordered(&mut host);
    world.running(&mut host, "hello");
    let next = world.submit(spec("gcc"));
    let later = world.submit(spec("gcc"));
    world.pass(Duration::from_secs(120));
    let told = explained(&mut world, next);
    assert_eq!(told.starts_in, Some(Duration::from_secs(480)), "{told:?}");
    let told = explained(&mut world, later);
    assert_eq!(told.starts_in, Some(Duration::from_secs(1080)), "{told:?}");
    let words = "; 1 of its class before it, starts in ~18 min";
    assert!(told.summary.ends_with(words), "{told:?}");
}

#[test]
fn builders_that_work_share_what_waits_and_others_do_not_count() {
    let mut world = World::new();
    let mut host = world.ready(1);
    builds(&mut world, &mut host, "hello", Duration::from_secs(100));
    world.running(&mut host, "hello");
    let mut other = world.ready(2);
    world.running(&mut other, "hello");
    let idle = world.ready(3);
    operators::set(&mut world, &idle, OperatorMode::Manual);
    let jobs = [0; 3].map(|_| world.submit(spec("hello")));
    let starts = jobs.map(|job| explained(&mut world, job).starts_in);
    assert_eq!(
        starts,
        [100, 150, 200].map(|s| Some(Duration::from_secs(s)))
    );
}

#[test]
fn what_nobody_can_know_is_not_told() {
    let mut world = World::new();
    let mut host = world.ready(1);
    world.running(&mut host, "hello");
    let next = world.submit(spec("hello"));
    let told = explained(&mut world, next);
    assert_eq!(told.starts_in, None, "{told:?}");
    assert!(told.summary.contains("first free: unknown"), "{told:?}");
}

#[test]
fn each_owners_turn_counts_by_its_weight() {
    let mut world = World::new();
    let mut host = world.ready(1);
    builds(&mut world, &mut host, "hello", Duration::from_secs(100));
    world.running(&mut host, "hello");
    for _ in 0..4 {
        let mut other = spec("hello");
        other.owner = name("other");
        world.submit(other);
    }
    let first = world.submit(spec("hello"));
    let second = world.submit(spec("hello"));
    let starts = |world: &mut World, job| explained(world, job).starts_in;
    assert_eq!(starts(&mut world, first), Some(Duration::from_secs(100)));
    // One of its own and one of the other's come before it.
    assert_eq!(starts(&mut world, second), Some(Duration::from_secs(300)));
}
