//! Jobs that wait for packages, and what wakes them.

use std::sync::Arc;

use farmbell_protocol::spec::{FileName, Output};

use super::*;
use crate::effect::{Explanation, Hold, RefusedCode};
use crate::event::{Ending, Filter, JobAct, PackageKey};
use crate::record::PackageRecord;

fn missing(text: &str) -> Outcome {
    Outcome::Failed {
        kind: FailureKind::DependencyWait,
        why: Reason::cut(text),
    }
}

fn of_suite(text: &str, suite: &str) -> JobSpec {
    JobSpec {
        suite: name(suite),
        ..spec(text)
    }
}

/// Runs the job to its verdict: these packages are missing.
fn fails_for(world: &mut World, host: &mut Host, job: JobSpec, text: &str) -> JobId {
    let job = world.submit(job);
    let attempt = world.offered(host);
    blame::take(world, host, attempt, 1, missing(text));
    job
}

/// Brings an attempt to where its sealed outputs travel.
fn seals(world: &mut World, host: &mut Host, attempt: AttemptId, outcome: Outcome) {
    world.accept(host, attempt);
    world.start(host, attempt);
    world.end(host, attempt, outcome);
    world.seal(host, attempt);
}

fn stores(world: &mut World, attempt: AttemptId, files: &[&str]) {
    let outputs: Vec<Output> = files
        .iter()
        .map(|file| Output {
            name: FileName::new(*file).unwrap(),
            digest: Digest::of(file.as_bytes()),
            length: 1,
            executable: false,
        })
        .collect();
    world.handle(Event::Collected {
        attempt,
        outputs: Arc::from(outputs),
    });
}

/// Another host builds packages.
fn builds(world: &mut World, number: u8, job: JobSpec, outcome: Outcome, files: &[&str]) {
    let job = world.submit(job);
    let mut host = world.ready(number);
    let attempt = world.offered(&host);
    assert_eq!(attempt.job, job);
    seals(world, &mut host, attempt, outcome);
    stores(world, attempt, files);
}

fn package_key(name: &str, suite: &str) -> PackageKey {
    PackageKey {
        name: Text::new(name).unwrap(),
        architecture: super::name("amd64"),
        suite: super::name(suite),
        owner: None,
    }
}

fn provide(world: &mut World, name: &str, version: &str, suite: &str) {
    let package = package_key(name, suite);
    let version = Text::new(version).unwrap();
    world.ask(Command::Provide { package, version }).unwrap();
}

fn wake(world: &mut World, job: JobId) -> Result<Reply, Refused> {
    let why = Text::new("it is in the archive").unwrap();
    world.ask(Command::Wake { job, why })
}

fn explained(world: &mut World, job: JobId) -> Result<Option<Explanation>, Refused> {
    match world.ask(Command::Explain { job })? {
        Reply::Explained { explanation, .. } => Ok(explanation),
        other => panic!("{other:?}"),
    }
}

/// The only builder is away, so that what is woken is seen to wait.
fn asleep(text: &str) -> (World, JobId) {
    let mut world = World::new();
    let mut host = world.ready(1);
    let job = fails_for(&mut world, &mut host, of_suite("hello", "sid"), text);
    world.handle(Event::Closed { conn: host.conn });
    (world, job)
}

#[test]
fn missing_dependencies_are_a_verdict_in_the_recipes_words_and_a_reason() {
    let (mut world, job) = asleep("baz (>= 1.0.1)");
    let Some(Verdict::Failed { kind, why }) = world.verdict(job) else {
        panic!("{:?}", world.verdict(job));
    };
    assert_eq!(kind, FailureKind::DependencyWait);
    assert_eq!(why.as_str(), "baz (>= 1.0.1)");
    let explanation = explained(&mut world, job).unwrap().unwrap();
    assert_eq!(explanation.summary, "waits for baz (>= 1.0.1)");
    assert!(matches!(explanation.held, Some(Hold::Dependencies { .. })));
    assert!(world.store.kinds().contains(&LedgerKind::JobWaits));
}

#[test]
fn a_package_that_the_farm_stores_wakes_the_job_in_the_same_step() {
    let (mut world, job) = asleep("baz (>= 1.0.1)");
    builds(
        &mut world,
        2,
        of_suite("baz", "sid"),
        Outcome::Succeeded,
        &["baz_1.0~rc1_amd64.deb"],
    );
    assert!(world.verdict(job).is_some(), "too old");
    builds(
        &mut world,
        3,
        of_suite("baz", "trixie"),
        Outcome::Succeeded,
        &["baz_1.1_amd64.deb"],
    );
    assert!(world.verdict(job).is_some(), "of another suite");
    builds(
        &mut world,
        4,
        of_suite("baz", "sid"),
        failed(),
        &["baz_1.1_amd64.deb"],
    );
    assert!(world.verdict(job).is_some(), "its build failed");
    builds(
        &mut world,
        5,
        of_suite("baz", "sid"),
        Outcome::Succeeded,
        &["qux_2_all.deb", "baz_1.0.1-1_amd64.deb"],
    );
    assert!(world.waits(job), "it waits to be run again");
    assert_eq!(world.store.jobs[&job].generation, 2);
    assert!(world.store.waits.is_empty());
}

#[test]
fn a_woken_job_starts_in_the_step_of_the_event() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let job = fails_for(&mut world, &mut host, of_suite("hello", "sid"), "baz");
    world.now = world.now + Duration::from_secs(1);
    provide(&mut world, "baz", "1", "sid");
    assert_eq!(world.offered(&host).job, job);
}

/// More jobs than a step wakes, all of them met by what the store holds.
#[test]
fn however_many_a_package_wakes_all_of_them_run_again_without_another_event() {
    const JOBS: u64 = 1_500;
    let (mut world, job) = asleep("baz");
    let (mut snapshot, jobs) = world.store.snapshot();
    let waits = snapshot.dependents.pop().unwrap();
    snapshot.dependents = (0..JOBS)
        .map(|more| JobRecord {
            id: JobId(job.0 + more),
            ..waits.clone()
        })
        .collect();
    snapshot.meta.as_mut().unwrap().job_floor = job.0 + JOBS;
    snapshot.packages.push(PackageRecord {
        key: package_key("baz", "sid"),
        version: Text::new("1").unwrap(),
        at: world.now,
    });
    world.restart_from((snapshot, jobs));
    world.pass(Duration::ZERO);
    let woken = (0..JOBS).filter(|more| world.waits(JobId(job.0 + more)));
    assert_eq!(woken.count(), usize::try_from(JOBS).unwrap());
}

#[test]
fn all_parts_have_to_be_there_and_a_restart_forgets_none() {
    let (mut world, job) = asleep("baz (>= 1:2), qux | quux");
    world.now = world.now + Duration::from_secs(1);
    provide(&mut world, "baz", "1:2.0-1", "sid");
    assert!(world.verdict(job).is_some());
    world.restart();
    assert!(world.verdict(job).is_some());
    provide(&mut world, "quux", "9", "sid");
    assert!(world.waits(job));
    world.restart();
    assert!(world.waits(job));
}

#[test]
fn a_package_that_came_while_the_attempt_ran_is_not_missed() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let job = world.submit(of_suite("hello", "sid"));
    let attempt = world.offered(&host);
    world.accept(&mut host, attempt);
    world.start(&mut host, attempt);
    world.now = world.now + Duration::from_secs(1);
    provide(&mut world, "baz", "1", "sid");
    world.restart();
    world.hello(&mut host);
    world.end(&mut host, attempt, missing("baz"));
    world.seal(&mut host, attempt);
    world.clean(&mut host);
    world.deliver(attempt);
    let again = world.offered(&host);
    assert_eq!(
        (again.job, again.generation),
        (job, 2),
        "it runs again at once"
    );
    blame::take(&mut world, &mut host, again, 1, missing("baz"));
    assert!(
        world.verdict(job).is_some(),
        "what did not help does not wake it again"
    );
}

#[test]
fn a_private_package_wakes_its_owners_jobs_only() {
    let (mut world, job) = asleep("baz");
    let private = |owner: &str| JobSpec {
        private: true,
        owner: name(owner),
        ..of_suite("baz", "sid")
    };
    builds(
        &mut world,
        2,
        private("lou"),
        Outcome::Succeeded,
        &["baz_1_amd64.deb"],
    );
    assert!(world.verdict(job).is_some());
    builds(
        &mut world,
        3,
        private("kim"),
        Outcome::Succeeded,
        &["baz_1_amd64.deb"],
    );
    assert!(world.waits(job));
}

#[test]
fn an_operator_wakes_a_job_whatever_it_waits_for() {
    let (mut world, job) = asleep("see the log; it is long");
    wake(&mut world, job).unwrap();
    assert!(world.waits(job));
    let refused = wake(&mut world, job).unwrap_err();
    assert_eq!(refused.code, RefusedCode::Conflict);
}

#[test]
fn a_job_that_was_suspended_is_woken_suspended_and_a_retry_lifts_it() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let job = world.submit(of_suite("hello", "sid"));
    let attempt = world.offered(&host);
    let act = |act| Command::Job {
        job,
        act,
        why: Text::new("the archive is half there").unwrap(),
    };
    world.ask(act(JobAct::Suspend)).unwrap();
    blame::take(&mut world, &mut host, attempt, 1, missing("baz"));
    world.now = world.now + Duration::from_secs(1);
    provide(&mut world, "baz", "1", "sid");
    assert!(world.waits(job) && world.offers().is_empty());
    let explanation = explained(&mut world, job).unwrap().unwrap();
    assert!(matches!(explanation.held, Some(Hold::Suspended)));
    world.ask(act(JobAct::Resume)).unwrap();
    let attempt = world.offered(&host);
    assert_eq!((attempt.generation, attempt.number), (2, 1));

    world.ask(act(JobAct::Suspend)).unwrap();
    blame::take(&mut world, &mut host, attempt, 1, missing("qux"));
    let stored = Box::new(world.store.jobs[&job].clone());
    let why = Text::default();
    world.ask(Command::Retry { job: stored, why }).unwrap();
    assert_eq!(world.offered(&host).generation, 3);
}

#[test]
fn a_job_that_waits_for_packages_is_suspended_and_its_next_generation_begins_so() {
    let (mut world, job) = asleep("baz");
    let mut host = world.host(2);
    let one = |act| Command::Job {
        job,
        act,
        why: Text::new("not now").unwrap(),
    };
    let all = |act| Command::Bulk {
        filter: Filter {
            name: Some(Text::new("hello").unwrap()),
            ..Filter::default()
        },
        act,
        why: Text::default(),
    };
    let changed = |reply| match reply {
        Ok(Reply::Bulk { changed, .. }) => changed,
        other => panic!("{other:?}"),
    };
    let refused = world.ask(one(JobAct::Resume)).unwrap_err();
    assert_eq!(refused.cause, format!("job {job} is not suspended"));
    assert_eq!(changed(world.ask(all(JobAct::Suspend))), 1);
    world.ask(one(JobAct::Suspend)).unwrap();
    assert_eq!(changed(world.ask(all(JobAct::Resume))), 1);
    world.ask(one(JobAct::Suspend)).unwrap();
    let explanation = explained(&mut world, job).unwrap().unwrap();
    assert_eq!(explanation.summary, "waits for baz; suspended");
    assert!(world.store.waits.contains(&job), "the wait stays");
    let told = world.store.kinds();
    let told = |kind| told.iter().filter(|told| **told == kind).count();
    assert_eq!(told(LedgerKind::JobSuspended), 2);
    assert_eq!(told(LedgerKind::JobResumed), 1);

    world.restart();
    world.now = world.now + Duration::from_secs(1);
    world.hello(&mut host);
    world.clean(&mut host);
    provide(&mut world, "baz", "1", "sid");
    assert!(world.waits(job) && world.offers().is_empty());
    let explanation = explained(&mut world, job).unwrap().unwrap();
    assert_eq!(explanation.held, Some(Hold::Suspended));
    world.ask(one(JobAct::Resume)).unwrap();
    assert_eq!(world.offered(&host).generation, 2);
}

#[test]
fn a_score_given_to_a_job_that_waits_for_packages_is_its_next_generations() {
    let (mut world, job) = asleep("baz");
    let why = Text::default;
    let before = Box::new(world.store.jobs[&job].clone());
    world
        .ask(Command::Job {
            job,
            act: JobAct::SetPriority(7),
            why: why(),
        })
        .unwrap();
    let told = world.store.ledger.last().unwrap();
    assert_eq!(told.kind, LedgerKind::JobPriority);
    assert!(told.why.starts_with("0 -> 7"), "{told:?}");
    assert!(world.verdict(job).is_some(), "its verdict stands");
    world.restart();
    // Whoever asks for a retry may have read the record a moment before.
    world
        .ask(Command::Retry {
            job: before,
            why: why(),
        })
        .unwrap();
    let stored = &world.store.jobs[&job];
    assert_eq!((stored.priority, stored.priority_frozen), (7, true));
    assert_eq!(stored.generation, 2);
}

#[test]
fn a_retry_and_a_cancel_end_the_wait() {
    let (mut world, job) = asleep("baz");
    let stored = Box::new(world.store.jobs[&job].clone());
    let why = Text::default();
    world.ask(Command::Retry { job: stored, why }).unwrap();
    assert!(world.waits(job) && world.store.waits.is_empty());

    let (mut world, job) = asleep("baz");
    world.cancel(job).unwrap();
    world.now = world.now + Duration::from_secs(1);
    provide(&mut world, "baz", "1", "sid");
    assert!(
        matches!(world.verdict(job), Some(Verdict::Failed { .. })),
        "its verdict stands"
    );
    assert!(explained(&mut world, job).is_err());
    assert!(
        world.cancel(job).is_err(),
        "there is nothing left to cancel"
    );
}

#[test]
fn a_superseded_job_is_not_woken() {
    let (mut world, job) = asleep("baz");
    let reply = world.ask(Command::Bulk {
        filter: Filter {
            name: Some(Text::new("hello").unwrap()),
            ..Default::default()
        },
        act: JobAct::Supersede,
        why: Text::new("hello 2 is in").unwrap(),
    });
    assert!(
        matches!(reply, Ok(Reply::Bulk { changed: 1, .. })),
        "{reply:?}"
    );
    world.now = world.now + Duration::from_secs(1);
    provide(&mut world, "baz", "1", "sid");
    assert!(world.verdict(job).is_some());
    // Its verdict says that it lacked packages; that is not the whole of it.
    let filter = Filter {
        verdict: Some(Ending::FailedAs(FailureKind::DependencyWait)),
        ..Filter::default()
    };
    assert_eq!(retries::retry_all(&mut world, filter), Ok((1, 0, true)));
    let stored = Box::new(world.store.jobs[&job].clone());
    let why = Text::default();
    world.ask(Command::Retry { job: stored, why }).unwrap();
    assert!(world.waits(job), "whoever means it by name gets it");
}

#[test]
fn nonsense_is_no_package() {
    let mut world = World::new();
    for (text, version, architecture) in [
        ("", "1", "amd64"),
        ("baz", "", "amd64"),
        ("baz", "1 or 2", "amd64"),
        ("baz", "1", ""),
    ] {
        let package = PackageKey {
            name: Text::new(text).unwrap(),
            architecture: name(architecture),
            ..PackageKey::default()
        };
        let version = Text::new(version).unwrap();
        let refused = world.ask(Command::Provide { package, version });
        assert_eq!(refused.unwrap_err().code, RefusedCode::Invalid);
    }
}

#[test]
fn a_package_for_another_architecture_wakes_nobody() {
    let (mut world, job) = asleep("baz");
    world.now = world.now + Duration::from_secs(1);
    for (architecture, helps) in [("riscv64", false), ("amd64", true)] {
        let package = PackageKey {
            name: Text::new("baz").unwrap(),
            architecture: name(architecture),
            suite: name("sid"),
            owner: None,
        };
        let version = Text::new("1").unwrap();
        world.ask(Command::Provide { package, version }).unwrap();
        assert_eq!(world.waits(job), helps, "{architecture}");
    }
}

#[test]
fn a_package_of_a_cancelled_build_wakes_nobody() {
    let (mut world, job) = asleep("baz");
    world.now = world.now + Duration::from_secs(1);
    let producer = world.submit(of_suite("baz", "sid"));
    let mut host = world.ready(2);
    let attempt = world.offered(&host);
    seals(&mut world, &mut host, attempt, Outcome::Succeeded);
    world.cancel(producer).unwrap();
    stores(&mut world, attempt, &["baz_1_amd64.deb"]);
    assert!(world.verdict(job).is_some(), "it waits on");
}

#[test]
fn a_job_that_waits_for_packages_is_counted_as_unfinished() {
    let mut settings = Settings::default();
    settings.limits.queued_jobs = 1;
    let mut world = World::with(settings);
    let mut host = world.ready(1);
    let job = fails_for(&mut world, &mut host, of_suite("hello", "sid"), "baz");
    let Ok(Reply::Overview(overview)) = world.ask(Command::Overview) else {
        panic!("refused");
    };
    assert_eq!((overview.waiting, overview.dependents), (0, 1));
    let more = || {
        Command::Submit(Submit {
            key: None,
            jobs: List::new(vec![spec("more")]).unwrap(),
            allow_unmatched: true,
        })
    };
    assert_eq!(world.ask(more()).unwrap_err().code, RefusedCode::Limit);
    world.cancel(job).unwrap();
    world.ask(more()).unwrap();
}

#[test]
fn of_jobs_that_wait_for_packages_a_filter_means_those_that_it_names() {
    let filters: [fn(&mut Filter); 5] = [
        |filter| filter.begins = Some(Text::new("tw").unwrap()),
        |filter| filter.owner = Some(name("lee")),
        |filter| filter.architecture = Some(name("riscv64")),
        |filter| filter.submission = Some(SubmissionId(2)),
        |filter| filter.name = Some(Text::new("two").unwrap()),
    ];
    for narrow in filters {
        let mut world = World::new();
        let mut host = world.host(1);
        host.builders[0].architectures = List::new(vec![name("amd64"), name("riscv64")]).unwrap();
        world.hello(&mut host);
        world.clean(&mut host);
        let one = fails_for(&mut world, &mut host, of_suite("one", "sid"), "baz");
        let other = JobSpec {
            owner: name("lee"),
            architecture: name("riscv64"),
            ..of_suite("two", "sid")
        };
        let two = fails_for(&mut world, &mut host, other, "baz");
        let mut cancel = |waiting| {
            let mut filter = Filter {
                waiting,
                ..Filter::default()
            };
            narrow(&mut filter);
            let (act, why) = (JobAct::Cancel, Text::default());
            match world.ask(Command::Bulk { filter, act, why }) {
                Ok(Reply::Bulk { changed, .. }) => changed,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(cancel(true), 0, "they have their verdicts");
        assert_eq!(cancel(false), 1);
        let left: Vec<JobId> = world.store.waits.iter().copied().collect();
        assert_eq!(left, [one], "{two} was meant");
    }
}
