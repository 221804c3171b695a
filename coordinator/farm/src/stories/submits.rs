//! Submitting: what is accepted, what is refused and with which words.

use super::*;
use crate::effect::{RefusedCode, Why};
use crate::event::AgentAct;

fn submit(world: &mut World, spec: JobSpec) -> Result<Reply, Refused> {
    world.ask(Command::Submit(Submit {
        key: None,
        jobs: List::new(vec![spec]).unwrap(),
        allow_unmatched: false,
    }))
}

#[test]
fn a_job_that_no_builder_could_ever_take_is_refused_with_cause_and_fix() {
    let mut world = World::new();
    world.ready(1);
    let mut strange = spec("hello");
    strange.architecture = name("riscv64");
    let refused = submit(&mut world, strange).unwrap_err();
    assert_eq!(refused.code, RefusedCode::Unmatched);
    assert!(
        refused.cause.contains("of another architecture"),
        "{refused:?}"
    );
    assert!(refused.fix.contains("--allow-unmatched"), "{refused:?}");
    let mut unknown = spec("hello");
    unknown.recipe = name("brew");
    let refused = submit(&mut world, unknown).unwrap_err();
    assert!(refused.cause.contains("without the recipe"), "{refused:?}");
}

#[test]
fn submissions_and_their_jobs_are_numbered_from_one() {
    let mut world = World::new();
    for expected in 1..=2 {
        let reply = world.ask(Command::Submit(Submit {
            key: None,
            jobs: List::new(vec![spec("one"), spec("two")]).unwrap(),
            allow_unmatched: true,
        }));
        let Ok(Reply::Submitted {
            submission, jobs, ..
        }) = reply
        else {
            panic!("{reply:?}");
        };
        assert_eq!(submission, SubmissionId(expected));
        assert_eq!(jobs, [JobId(2 * expected - 1), JobId(2 * expected)]);
        let record = world.store.submissions.last().unwrap();
        assert_eq!((record.id, &record.jobs[..]), (submission, &jobs[..]));
    }
}

#[test]
fn a_known_builder_that_is_away_is_enough() {
    let mut world = World::new();
    let host = world.ready(1);
    world.handle(Event::Closed { conn: host.conn });
    submit(&mut world, spec("hello")).unwrap();
}

#[test]
fn a_revoked_agents_builders_are_no_reason_to_take_a_job() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let agent = world.record(&host).agent;
    let why = Text::new("stolen").unwrap();
    world
        .ask(Command::Agent {
            agent,
            act: AgentAct::Revoke,
            why,
        })
        .unwrap();
    let refused = submit(&mut world, spec("hello")).unwrap_err();
    assert_eq!(refused.code, RefusedCode::Unmatched);
    assert!(refused.cause.contains("of a revoked agent"), "{refused:?}");
    assert_eq!(world.hello(&mut host), Some(CloseCode::Revoked));
    world.ready(2);
    submit(&mut world, spec("hello")).unwrap();
}

#[test]
fn a_key_that_is_repeated_while_its_job_finishes_finds_that_job() {
    let mut world = World::new();
    let mut host = world.ready(1);
    let again = |world: &mut World| {
        let reply = world.ask(Command::Submit(Submit {
            key: Some(Text::new("nightly").unwrap()),
            jobs: List::new(vec![spec("hello")]).unwrap(),
            allow_unmatched: false,
        }));
        match reply {
            Ok(Reply::Submitted { jobs, existed, .. }) => (jobs[0], existed),
            other => panic!("{other:?}"),
        }
    };
    let (job, existed) = again(&mut world);
    assert!(!existed);
    let attempt = world.offered(&host);
    world.accept(&mut host, attempt);
    world.start(&mut host, attempt);
    assert_eq!(again(&mut world), (job, true));
    world.end(&mut host, attempt, Outcome::Succeeded);
    assert_eq!(again(&mut world), (job, true), "its outputs are counted");
    world.seal(&mut host, attempt);
    assert_eq!(again(&mut world), (job, true), "its outputs travel");
    world.deliver(attempt);
    assert_eq!(world.verdict(job), Some(Verdict::Succeeded));
    assert_eq!(again(&mut world), (job, true), "it has its verdict");
    assert_eq!(world.store.jobs.len(), 1);
}

#[test]
fn an_architecture_independent_job_runs_anywhere() {
    let mut world = World::new();
    let host = world.ready(1);
    let mut any = spec("docs");
    any.architecture = name("all");
    submit(&mut world, any).unwrap();
    assert_eq!(world.offered(&host).number, 1);
}

#[test]
fn the_limit_of_unfinished_jobs_is_named() {
    let mut settings = Settings::default();
    settings.limits.queued_jobs = 1;
    let mut world = World::with(settings);
    world.submit(spec("one"));
    let refused = world
        .ask(Command::Submit(Submit {
            key: None,
            jobs: List::new(vec![spec("two")]).unwrap(),
            allow_unmatched: true,
        }))
        .unwrap_err();
    assert_eq!(refused.code, RefusedCode::Limit);
    assert!(refused.cause.contains("limits.queued_jobs"), "{refused:?}");
}

#[test]
fn a_submission_without_jobs_is_refused() {
    let mut world = World::new();
    let refused = world
        .ask(Command::Submit(Submit {
            key: None,
            jobs: List::default(),
            allow_unmatched: true,
        }))
        .unwrap_err();
    assert_eq!(refused.code, RefusedCode::Invalid);
}

/// What is left out of a job.
type Lack = fn(&mut JobSpec);

#[test]
fn a_job_says_what_it_is_how_it_is_built_where_and_whose_it_is() {
    let mut world = World::new();
    world.ready(1);
    let lacks: [(&str, Lack); 4] = [
        ("name", |spec| spec.name = Text::default()),
        ("recipe", |spec| spec.recipe = Name::default()),
        ("architecture", |spec| spec.architecture = Name::default()),
        ("owner", |spec| spec.owner = Name::default()),
    ];
    for (what, lack) in lacks {
        let mut lacking = spec("hello");
        lack(&mut lacking);
        let refused = submit(&mut world, lacking).unwrap_err();
        assert_eq!(refused.code, RefusedCode::Invalid);
        assert_eq!(refused.fix, format!("give it a {what}"));
    }
    assert!(world.store.jobs.is_empty());
}

#[test]
fn a_submission_is_one_owners_and_taken_as_a_whole() {
    let mut world = World::new();
    world.ready(1);
    let other = JobSpec {
        owner: name("lee"),
        ..spec("other")
    };
    let unmatched = JobSpec {
        architecture: name("riscv64"),
        ..spec("unmatched")
    };
    for (second, code) in [
        (other, RefusedCode::Invalid),
        (unmatched, RefusedCode::Unmatched),
    ] {
        let refused = world.ask(Command::Submit(Submit {
            key: None,
            jobs: List::new(vec![spec("fine"), second]).unwrap(),
            allow_unmatched: false,
        }));
        assert_eq!(refused.unwrap_err().code, code);
    }
    assert!(world.store.jobs.is_empty());
}

#[test]
fn a_restricted_tag_keeps_other_jobs_away() {
    let mut world = World::new();
    let mut host = world.host(1);
    host.builders[0].restricted_tags = List::new(vec![name("gpu")]).unwrap();
    world.hello(&mut host);
    world.clean(&mut host);
    world.submit(spec("plain"));
    assert!(world.offers().is_empty());
    let mut tagged = spec("cuda");
    tagged.tags = List::new(vec![name("gpu")]).unwrap();
    world.submit(tagged);
    assert_eq!(world.offers().len(), 1);
}

#[test]
fn a_waiting_job_says_why() {
    let mut world = World::new();
    let host = world.ready(1);
    world.submit(spec("first"));
    let job = world.submit(spec("second"));
    let Ok(Reply::Explained { explanation, .. }) = world.ask(Command::Explain { job }) else {
        panic!("refused");
    };
    let explanation = explanation.expect("it waits");
    assert!(matches!(explanation.builders[0].2[..], [Why::Busy(_)]));
    assert!(
        explanation.summary.contains("1 busy"),
        "{}",
        explanation.summary
    );
    world.handle(Event::Closed { conn: host.conn });
    let Ok(Reply::Plan(plan)) = world.ask(Command::DryRun {
        jobs: vec![spec("third")],
    }) else {
        panic!("refused");
    };
    assert_eq!(plan[0].builders[0].2[0], Why::Unreachable);
}

#[test]
fn of_an_owners_jobs_the_higher_priority_goes_first() {
    let mut world = World::new();
    let mut host = world.host(1);
    world.hello(&mut host);
    let order = world.reset_order().unwrap();
    let low = world.submit(spec("low"));
    let mut urgent = spec("urgent");
    urgent.priority = 10;
    let urgent = world.submit(urgent);
    world.prove(&mut host, order);
    let attempt = world.offered(&host);
    assert_eq!(attempt.job, urgent);
    world.run(&mut host, attempt, Outcome::Succeeded);
    world.clean(&mut host);
    assert_eq!(world.offered(&host).job, low);
}

#[test]
fn owners_take_turns() {
    let mut world = World::new();
    let mut host = world.host(1);
    world.hello(&mut host);
    let order = world.reset_order().unwrap();
    for text in ["a1", "a2", "a3"] {
        world.submit(spec(text));
    }
    let mut other = spec("b1");
    other.owner = name("lee");
    let other = world.submit(other);
    world.prove(&mut host, order);
    let first = world.offered(&host);
    world.run(&mut host, first, Outcome::Succeeded);
    world.clean(&mut host);
    assert_eq!(
        world.offered(&host).job,
        other,
        "though three of kim's came first"
    );
}
