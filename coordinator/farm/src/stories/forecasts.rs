//! When a waiting job will start, and what a restart leaves of that.

use super::*;
use crate::effect::Explanation;
use crate::event::JobAct;
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
    let words = "; 1 for its builders before it, starts in ~18 min";
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
    // The attempt under way counts for a minute, so one of the other's is first.
    assert_eq!(starts(&mut world, first), Some(Duration::from_secs(200)));
    // And then one of its own and one more of the other's.
    assert_eq!(starts(&mut world, second), Some(Duration::from_secs(400)));
}

fn needs(memory_bytes: u64) -> JobSpec {
    let mut spec = spec("hello");
    spec.limits.memory_bytes = memory_bytes;
    spec
}

#[test]
fn jobs_of_other_classes_that_want_its_builder_are_before_it_too() {
    let mut world = World::new();
    let mut host = world.ready(1);
    builds(&mut world, &mut host, "hello", Duration::from_secs(100));
    world.running(&mut host, "hello");
    for _ in 0..10 {
        world.submit(spec("hello"));
    }
    world.submit(JobSpec {
        architecture: name("riscv64"),
        ..spec("hello")
    });
    let last = world.submit(needs(1 << 20));
    let told = explained(&mut world, last);
    assert_eq!(told.starts_in, Some(Duration::from_secs(1100)), "{told:?}");
    let words = "; 10 for its builders before it, starts in ~18 min";
    assert!(told.summary.ends_with(words), "{told:?}");
    scheduling::act(&mut world, last, JobAct::SetPriority(1));
    let told = explained(&mut world, last);
    assert_eq!(told.starts_in, Some(Duration::from_secs(100)), "{told:?}");
}

#[test]
fn jobs_that_others_can_take_as_well_are_shared_out() {
    let mut world = World::new();
    let mut large = world.host(1);
    large.builders[0].memory_bytes = 8 << 30;
    world.hello(&mut large);
    world.clean(&mut large);
    builds(&mut world, &mut large, "hello", Duration::from_secs(100));
    world.running(&mut large, "hello");
    for number in 2..=4 {
        let mut small = world.ready(number);
        world.running(&mut small, "hello");
    }
    let away = world.ready(5);
    operators::set(&mut world, &away, OperatorMode::Manual);
    for _ in 0..9 {
        world.submit(spec("hello"));
    }
    let last = world.submit(needs(8 << 30));
    // Of nine jobs for four builders a quarter comes to this one.
    let told = explained(&mut world, last);
    assert_eq!(told.starts_in, Some(Duration::from_secs(325)), "{told:?}");
}

#[test]
fn of_many_classes_those_that_are_not_looked_at_count_whole() {
    let mut world = World::new();
    let mut large = world.host(1);
    large.builders[0].memory_bytes = 8 << 30;
    world.hello(&mut large);
    world.clean(&mut large);
    builds(&mut world, &mut large, "hello", Duration::from_secs(100));
    world.running(&mut large, "hello");
    let mut small = world.ready(2);
    world.running(&mut small, "hello");
    for class in 1..=20 {
        world.submit(needs(class << 20));
    }
    let last = world.submit(needs(8 << 30));
    // Half of sixteen, and four.
    let told = explained(&mut world, last);
    assert_eq!(told.starts_in, Some(Duration::from_secs(1300)), "{told:?}");
}

#[test]
fn what_a_job_of_another_class_takes_is_not_made_up() {
    let mut world = World::new();
    let mut host = world.host(1);
    host.builders[0].architectures = List::new(["amd64", "i386"].map(name).to_vec()).unwrap();
    world.hello(&mut host);
    world.clean(&mut host);
    builds(&mut world, &mut host, "hello", Duration::from_secs(100));
    world.running(&mut host, "hello");
    world.submit(JobSpec {
        architecture: name("i386"),
        ..spec("new")
    });
    let last = world.submit(spec("hello"));
    let told = explained(&mut world, last);
    assert_eq!(told.starts_in, None, "{told:?}");
    let words = "; 1 for its builders before it, start unknown";
    assert!(told.summary.ends_with(words), "{told:?}");
}
