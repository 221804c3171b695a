//! Stories of command and service together: the real client over a real Unix
//! socket, the real farm on a real store. No agent takes part.

use std::sync::Arc;

use clap::Parser;
use farmbell_farm::Settings;
use farmbell_farm::effect::Effect;
use farmbell_protocol::digest::Digest;
use farmbell_protocol::id::KeyHash;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::client::Client;
use super::endpoint::Endpoint;
use super::exit::{Exit, Failure, Result};
use super::output::{Format, Output};
use super::{Cli, Context, dispatch};
use crate::blobs::Blobs;
use crate::driver::{self, Guard, Outbox, Parts};
use crate::http::wire::{
    EventView, JobDetail, JobList, OverviewView, Spec, SubmitRequest, Submitted, TokenCreate,
    TokenCreated,
};
use crate::http::{self, Api, JoinPoint};
use crate::logs::Logs;
use crate::specs::Specs;
use crate::store::Sqlite;

const TOKEN: &str = "the-api-token";

/// No agent is connected: nothing has to be performed.
struct NoAgents;

impl Outbox for NoAgents {
    fn perform(&mut self, _: Effect) {}
}

/// A coordinator without agents, and the command pointed at it.
struct World {
    context: Context,
    tcp: Context,
    directory: tempfile::TempDir,
    // Ends when the world does.
    _serving: JoinSet<()>,
    _driver: driver::Running,
}

impl World {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let store = Sqlite::open(&path("farm.db")).unwrap();
        let queries = Arc::new(store.reader());
        let (farm, lanes) = driver::lanes();
        let parts = Parts {
            settings: Settings::default(),
            store,
            outbox: NoAgents,
            specs: Specs::new(queries.clone()),
            guard: Guard::open(&path("guard")).unwrap(),
        };
        let mut driver = driver::start(lanes, parts).unwrap();
        driver.ready().await;
        let api = Api {
            farm,
            queries,
            blobs: Blobs::open(&path("blobs")).unwrap(),
            logs: Logs::open(&path("logs")).unwrap(),
            api_token: TOKEN.into(),
            join: Arc::new(JoinPoint {
                address: "127.0.0.1:8440".into(),
                key: KeyHash([7; 32]),
            }),
        };
        let unix = http::bind_unix(&path("farmbell.sock")).unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = tcp.local_addr().unwrap().port();
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            http::serve(api, unix, tcp, std::future::pending())
                .await
                .unwrap();
        });
        let over_tcp = Endpoint::Tcp {
            host: "127.0.0.1".into(),
            port,
            token: None,
        };
        Self {
            context: context(Endpoint::Unix(path("farmbell.sock"))),
            tcp: context(over_tcp),
            directory,
            _serving: serving,
            _driver: driver,
        }
    }

    /// Types a command.
    async fn types(&self, line: &[&str]) -> Result<Exit> {
        types(&self.context, line).await
    }

    fn file(&self, name: &str, content: &str) -> String {
        let path = self.directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    async fn submit(&self, jobs: Vec<Spec>) -> Submitted {
        let request = SubmitRequest {
            jobs,
            allow_unmatched: true,
        };
        self.context
            .client
            .post("/api/v1/submissions", &request)
            .await
            .unwrap()
    }

    async fn jobs(&self, query: &str) -> Vec<String> {
        let path = format!("/api/v1/jobs?{query}");
        let list: JobList = self.context.client.get(&path).await.unwrap();
        list.jobs.into_iter().map(|job| job.name).collect()
    }
}

fn context(endpoint: Endpoint) -> Context {
    Context {
        client: Client::new(endpoint),
        output: Output::new(Format::Ndjson),
    }
}

async fn types(context: &Context, line: &[&str]) -> Result<Exit> {
    let line = ["farmbell"].into_iter().chain(line.iter().copied());
    let cli = Cli::try_parse_from(line).unwrap();
    Box::pin(dispatch(context, cli.command)).await
}

fn job(name: &str) -> Spec {
    Spec::new(name, "command", "amd64")
}

fn failure<T: std::fmt::Debug>(result: Result<T>) -> Failure {
    result.expect_err("it is refused")
}

#[tokio::test]
async fn a_submit_with_its_key_repeated_makes_one_job() {
    let world = World::start().await;
    let line = [
        "submit",
        "--allow-unmatched",
        "--arch",
        "amd64",
        "--idempotency-key",
        "k",
        "--",
        "true",
    ];
    for _ in 0..3 {
        assert_eq!(world.types(&line).await, Ok(Exit::Ok));
    }
    assert_eq!(world.jobs("").await, ["true"]);
}

#[tokio::test]
async fn inputs_are_uploaded_once_and_have_to_be_there() {
    let world = World::start().await;
    let input = world.file("input.txt", "some bytes");
    let line = [
        "submit",
        "--allow-unmatched",
        "--input",
        &input,
        "--",
        "cat",
    ];
    assert_eq!(world.types(&line).await, Ok(Exit::Ok));
    let digest = Digest::of(b"some bytes");
    assert!(world.context.client.has_blob(digest).await.unwrap());

    let mut missing = job("missing");
    missing.inputs.push(http::wire::InputSpec {
        name: "gone.txt".into(),
        digest: Digest::of(b"never sent").to_string(),
        length: 10,
        private: false,
    });
    let request = SubmitRequest {
        jobs: vec![missing],
        allow_unmatched: true,
    };
    let refused = world
        .context
        .client
        .post::<_, Submitted>("/api/v1/submissions", &request)
        .await;
    let refused = failure(refused);
    assert_eq!(refused.exit, Exit::Usage);
    assert!(refused.cause.contains("gone.txt"), "{}", refused.cause);
}

#[tokio::test]
async fn bytes_of_another_digest_are_refused() {
    let world = World::start().await;
    let path = world.file("a", "one thing");
    let other = Digest::of(b"another");
    let sent = world
        .context
        .client
        .put_blob(other, path.as_ref(), |_| {})
        .await;
    let refused = Failure::from(sent.unwrap_err());
    assert!(refused.cause.contains("BLAKE3"), "{}", refused.cause);
    assert!(!world.context.client.has_blob(other).await.unwrap());
}

#[tokio::test]
async fn what_nobody_can_build_is_refused_with_cause_and_fix() {
    let world = World::start().await;
    let refused = failure(
        world
            .types(&["submit", "--arch", "vax", "--", "true"])
            .await,
    );
    assert_eq!(refused.exit, Exit::Refused);
    assert!(!refused.cause.is_empty() && !refused.fix.is_empty());
    let line = ["submit", "--dry-run", "--arch", "vax", "--", "true"];
    assert_eq!(world.types(&line).await, Ok(Exit::Refused));
    assert_eq!(world.jobs("").await, [""; 0]);
}

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

#[tokio::test]
async fn over_tcp_everyone_reads_and_the_token_writes() {
    let world = World::start().await;
    world
        .submit(vec![
            job("open"),
            Spec {
                private: true,
                ..job("secret")
            },
        ])
        .await;
    let list: JobList = world.tcp.client.get("/api/v1/jobs").await.unwrap();
    assert_eq!(list.jobs.len(), 1, "private jobs do not exist for readers");
    let id = list.jobs[0].id.as_str();
    let refused = failure(types(&world.tcp, &["job", "cancel", id]).await);
    assert_eq!(refused.exit, Exit::NotAllowed);
    assert!(refused.fix.contains("api.token"), "{}", refused.fix);

    let with = |token: &str| match world.tcp.client.endpoint().clone() {
        Endpoint::Tcp { host, port, .. } => context(Endpoint::Tcp {
            host,
            port,
            token: Some(token.to_owned()),
        }),
        Endpoint::Unix(_) => unreachable!("the world's second context is TCP"),
    };
    let wrong = failure(types(&with("guess"), &["job", "cancel", id]).await);
    assert_eq!(wrong.exit, Exit::NotAllowed);
    let right = types(&with(TOKEN), &["job", "cancel", id]).await;
    assert_eq!(right, Ok(Exit::Ok));
}

#[tokio::test]
async fn a_token_is_shown_once_and_can_be_revoked() {
    let world = World::start().await;
    let request = TokenCreate {
        uses: 2,
        ttl_ms: 60_000,
        envelope: http::wire::EnvelopeView::default(),
    };
    let created: TokenCreated = world
        .context
        .client
        .post("/api/v1/tokens", &request)
        .await
        .unwrap();
    let token: farmbell_protocol::client::token::Token = created.token.parse().unwrap();
    assert_eq!(
        (token.id, token.coordinator),
        (created.view.id, KeyHash([7; 32]))
    );
    assert_eq!(world.types(&["token", "list"]).await, Ok(Exit::Ok));
    let id = created.view.id.to_string();
    assert_eq!(world.types(&["token", "revoke", &id]).await, Ok(Exit::Ok));
    let unknown = failure(world.types(&["token", "revoke", "1"]).await);
    assert_eq!(unknown.exit, Exit::NotFound);
    let over_tcp = failure(types(&world.tcp, &["token", "list"]).await);
    assert_eq!(over_tcp.exit, Exit::NotAllowed);
}

#[tokio::test]
async fn events_go_on_where_a_reader_stopped() {
    let world = World::start().await;
    world.submit(vec![job("first")]).await;
    let mut answer = world
        .context
        .client
        .stream("/api/v1/events?follow=1")
        .await
        .unwrap();
    let mut text = String::new();
    while !text.contains("first") {
        let piece = answer.piece().await.unwrap().unwrap();
        text.push_str(std::str::from_utf8(&piece).unwrap());
    }
    world.submit(vec![job("second")]).await;
    while !text.contains("second") {
        let piece = answer.piece().await.unwrap().unwrap();
        text.push_str(std::str::from_utf8(&piece).unwrap());
    }
    let events: Vec<EventView> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let numbers: Vec<_> = events.iter().map(|event| event.seq).collect();
    let expected: Vec<_> = (1..=events.len() as u64).collect();
    assert_eq!(numbers, expected, "no gap, nothing twice");
    let after = numbers.len().to_string();
    assert_eq!(
        world.types(&["events", "--after", &after]).await,
        Ok(Exit::Ok)
    );
}

#[tokio::test]
async fn what_is_not_there_is_said_so() {
    let world = World::start().await;
    for line in [
        &["builder", "drain", "b1"][..],
        &["builder", "show", "b1"],
        &["agent", "revoke", "a1"],
        &["artifacts", "zzzzzzzz"],
    ] {
        let refused = failure(world.types(line).await);
        assert_eq!(refused.exit, Exit::NotFound, "{line:?}: {refused}");
        assert!(!refused.fix.is_empty(), "{line:?}");
    }
    let strange = world
        .context
        .client
        .get::<OverviewView>("/api/v1/nothing")
        .await;
    assert_eq!(failure(strange).exit, Exit::NotFound);
    assert_eq!(world.types(&["builders"]).await, Ok(Exit::Ok));
    assert_eq!(world.types(&["agents"]).await, Ok(Exit::Ok));
}

#[tokio::test]
async fn without_a_coordinator_the_error_says_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let alone = context(Endpoint::Unix(directory.path().join("no.sock")));
    let failure = failure(types(&alone, &["jobs"]).await);
    assert_eq!(failure.exit, Exit::Unreachable);
    assert!(failure.fix.contains("--socket") && failure.command.is_some());
}

#[tokio::test]
async fn the_page_is_whole_without_javascript_and_lives_with_it() {
    let world = World::start().await;
    world
        .submit(vec![job("<script>alert(1)</script>\u{202e}")])
        .await;
    let mut answer = world.tcp.client.stream("/").await.unwrap();
    let policy = answer.header("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"));
    let mut html = String::new();
    while let Some(piece) = answer.piece().await.unwrap() {
        html.push_str(std::str::from_utf8(&piece).unwrap());
    }
    assert!(html.contains("&#60;script&#62;alert(1)") || html.contains("&lt;script&gt;alert(1)"));
    assert!(!html.contains("<script>alert") && !html.contains('\u{202e}'));

    let mut live = world.tcp.client.stream("/live").await.unwrap();
    let mut seen = String::new();
    while !seen.contains("verdicts") {
        let piece = live.piece().await.unwrap().unwrap();
        seen.push_str(std::str::from_utf8(&piece).unwrap());
    }
    world.submit(vec![job("a-newcomer")]).await;
    while !seen.contains("a-newcomer") {
        let piece = live.piece().await.unwrap().unwrap();
        seen.push_str(std::str::from_utf8(&piece).unwrap());
    }
}

#[tokio::test]
async fn metrics_are_given_in_both_formats() {
    let world = World::start().await;
    world.submit(vec![job("waiting")]).await;
    let mut answer = world.tcp.client.stream("/metrics").await.unwrap();
    assert!(answer.header("content-type").unwrap().contains("0.0.4"));
    let mut text = String::new();
    while let Some(piece) = answer.piece().await.unwrap() {
        text.push_str(std::str::from_utf8(&piece).unwrap());
    }
    for line in [
        "farmbell_jobs{state=\"waiting\"} 1",
        "# TYPE farmbell_events_total counter",
        "# TYPE farmbell_store_commit_seconds histogram",
        "farmbell_verdicts_total{verdict=\"failed\"} 0",
        "farmbell_store_stalled 0",
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "{line} is not in:\n{text}"
        );
    }
}
