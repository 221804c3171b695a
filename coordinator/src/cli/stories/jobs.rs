//! Stories of jobs: finding, waiting, acting on one or many.

use super::*;

#[tokio::test]
async fn a_job_is_found_by_a_unique_beginning_only() {
    let world = World::start().await;
    let jobs: Vec<_> = (0..40).map(|n| job(&format!("job{n}"))).collect();
    let submitted = world.submit(jobs).await;
    let id = &submitted.jobs[7].id;
    assert_eq!(world.types(&["job", "show", id]).await, Ok(Exit::Ok));
    assert_eq!(world.types(&["job", "show", &id[..5]]).await, Ok(Exit::Ok));
    // 40 jobs in 32 letters: at least two begin alike.
    let first = |job: &http::wire::SubmittedJob| job.id.chars().next().unwrap();
    let alike = submitted
        .jobs
        .iter()
        .map(first)
        .find(|letter| {
            submitted
                .jobs
                .iter()
                .filter(|job| first(job) == *letter)
                .count()
                > 1
        })
        .unwrap();
    let refused = failure(world.types(&["job", "show", &alike.to_string()]).await);
    assert_eq!(refused.exit, Exit::Usage);
    assert!(refused.fix.contains("job"), "{}", refused.fix);
    let gone = failure(world.types(&["job", "show", "zzzzzzzz"]).await);
    assert_eq!(gone.exit, Exit::NotFound);
}

#[tokio::test]
async fn waiting_ends_with_the_verdict_or_with_the_time() {
    let world = World::start().await;
    let submitted = world.submit(vec![job("slow")]).await;
    let id = submitted.jobs[0].id.as_str();
    let late = failure(world.types(&["job", "wait", id, "--timeout", "1ms"]).await);
    assert_eq!(late.exit, Exit::TimedOut);
    let wait = ["job", "wait", id];
    let cancel = ["job", "cancel", id, "--reason", "enough"];
    let (waited, cancelled) = tokio::join!(world.types(&wait), world.types(&cancel));
    assert_eq!(cancelled, Ok(Exit::Ok));
    assert_eq!(waited, Ok(Exit::Failed));
    let path = format!("/api/v1/jobs/{id}");
    let detail: JobDetail = world.context.client.get(&path).await.unwrap();
    assert_eq!(detail.job.verdict.unwrap().verdict, "cancelled");
    assert_eq!(world.types(&["job", "retry", id]).await, Ok(Exit::Ok));
    assert_eq!(world.jobs("state=waiting").await, ["slow"]);
}

#[tokio::test]
async fn following_a_job_that_never_ran_ends_with_its_verdict() {
    let world = World::start().await;
    let submitted = world.submit(vec![job("never")]).await;
    let id = submitted.jobs[0].id.as_str();
    let (follow, cancel) = (["logs", "-f", id], ["job", "cancel", id]);
    let (followed, cancelled) = tokio::join!(world.types(&follow), world.types(&cancel));
    assert_eq!((followed, cancelled), (Ok(Exit::Ok), Ok(Exit::Ok)));
    let none = failure(world.types(&["logs", id]).await);
    assert_eq!(none.exit, Exit::NotFound);
}

#[tokio::test]
async fn many_jobs_are_cancelled_and_retried_by_a_filter() {
    let world = World::start().await;
    let mut jobs: Vec<_> = (0..40).map(|n| job(&format!("job{n}"))).collect();
    jobs[7].architecture = "arm64".into();
    world.submit(jobs).await;
    let nothing = failure(world.types(&["job", "cancel"]).await);
    assert_eq!(nothing.exit, Exit::Usage);
    let cancel = ["job", "cancel", "--state", "waiting", "--arch", "amd64"];
    assert_eq!(world.types(&cancel).await, Ok(Exit::Ok));
    assert_eq!(world.jobs("state=waiting").await, ["job7"]);
    let retry = ["job", "retry", "--state", "cancelled"];
    assert_eq!(world.types(&retry).await, Ok(Exit::Ok));
    assert_eq!(world.jobs("state=waiting").await.len(), 40);
    assert_eq!(world.types(&["queue"]).await, Ok(Exit::Ok));
}

#[tokio::test]
async fn jobs_are_suspended_resumed_and_given_another_score() {
    let world = World::start().await;
    let submitted = world.submit(vec![job("one"), job("two")]).await;
    let id = submitted.jobs[0].id.as_str();
    let show = async |id: &str| -> JobDetail {
        let path = format!("/api/v1/jobs/{id}");
        world.context.client.get(&path).await.unwrap()
    };
    let owner = show(id).await.job.owner;
    assert_eq!(world.types(&["job", "suspend", id]).await, Ok(Exit::Ok));
    assert!(show(id).await.job.suspended);
    assert_eq!(
        world.types(&["job", "resume", "--owner", &owner]).await,
        Ok(Exit::Ok)
    );
    assert!(!show(id).await.job.suspended);
    let line = ["job", "set-priority", "-7", "--state", "waiting"];
    assert_eq!(world.types(&line).await, Ok(Exit::Ok));
    assert_eq!(show(id).await.job.priority, -7);
    assert_eq!(world.types(&["brake", "0"]).await, Ok(Exit::Ok));
    assert_eq!(world.types(&["job", "explain", id]).await, Ok(Exit::Ok));
    assert_eq!(world.types(&["brake", "--lift"]).await, Ok(Exit::Ok));
    let lifted = failure(world.types(&["brake", "--lift"]).await);
    assert_eq!(lifted.cause, "no brake is set");
    assert_eq!(world.types(&["job", "supersede", id]).await, Ok(Exit::Ok));
    assert_eq!(show(id).await.job.verdict.unwrap().verdict, "superseded");
    let done = failure(world.types(&["job", "suspend", id]).await);
    assert_eq!(done.exit, Exit::Refused, "{done}");
}

#[tokio::test]
async fn lists_are_filtered_and_come_in_pages() {
    let world = World::start().await;
    let mut jobs: Vec<_> = (0..5).map(|n| job(&format!("job{n}"))).collect();
    jobs[1].architecture = "arm64".into();
    let theirs = jobs.split_off(4);
    world.submit(jobs).await;
    world
        .submit(
            theirs
                .into_iter()
                .map(|spec| Spec {
                    owner: "kim".into(),
                    ..spec
                })
                .collect(),
        )
        .await;
    assert_eq!(world.jobs("arch=arm64").await, ["job1"]);
    assert_eq!(world.jobs("owner=kim&state=waiting").await, ["job4"]);
    assert_eq!(world.jobs("name=job4").await, ["job4"]);
    assert_eq!(world.jobs("state=succeeded").await, [""; 0]);
    let first: JobList = world
        .context
        .client
        .get("/api/v1/jobs?limit=2")
        .await
        .unwrap();
    let path = format!("/api/v1/jobs?limit=5&cursor={}", first.next.unwrap());
    let rest: JobList = world.context.client.get(&path).await.unwrap();
    assert_eq!((first.jobs.len(), rest.jobs.len(), rest.next), (2, 3, None));
    let refused = failure(world.types(&["jobs", "--state", "sleeping"]).await);
    assert_eq!(refused.exit, Exit::Usage);
}

/// What is left of the first step the farm finds in the store by itself.
#[tokio::test]
async fn more_jobs_than_a_step_takes_are_cancelled_and_retried() {
    let world = World::start().await;
    for part in 0..5 {
        let jobs = (0..256).map(|number| job(&format!("job{part}-{number}")));
        world.submit(jobs.collect()).await;
    }
    let client = &world.context.client;
    let mut told = client.stream("/api/v1/events?follow=1").await.unwrap();
    let mut seen = String::new();
    for (line, end) in [
        (
            ["job", "cancel", "--state", "waiting"],
            "1280 jobs cancelled",
        ),
        (["job", "retry", "--name", "job"], "1280 jobs retried"),
        (["job", "retry", "--state", "failed"], "0 jobs retried"),
    ] {
        assert_eq!(world.types(&line).await, Ok(Exit::Ok));
        while !seen.contains(end) {
            let piece = told.piece().await.unwrap().unwrap();
            seen.push_str(std::str::from_utf8(&piece).unwrap());
        }
    }
    assert!(world.jobs("state=cancelled").await.is_empty());
    let wrong = failure(world.types(&["job", "retry", "--state", "waiting"]).await);
    assert_eq!(wrong.cause, "'waiting' is no verdict of a job");
}
