//! Stories of the API alone: requests as a stranger's program makes them, over
//! the real socket, to the real farm on a real store. No agent takes part; what
//! the `farmbell` command asks for is told in `cli/stories.rs`.

mod acts;
mod problems;
mod reading;

use std::path::PathBuf;

use axum::body::Bytes;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use farmbell_farm::Settings;
use farmbell_farm::effect::Effect;
use farmbell_farm::record::JobRecord;
use farmbell_protocol::id::JobId;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::net::{TcpListener, UnixStream};
use tokio::task::JoinSet;

use super::*;
use crate::driver::{self, Guard, Outbox, Parts};
use crate::specs::Specs;
use crate::store::Sqlite;
use wire::{BulkView, Code, ExplainView, JobList, Submitted};

/// No agent is connected: nothing has to be performed.
struct NoAgents;

impl Outbox for NoAgents {
    fn perform(&mut self, _: Effect) {}
}

/// A coordinator without agents.
struct World {
    api: Api,
    socket: PathBuf,
    // End when the world does.
    _serving: JoinSet<()>,
    _driver: driver::Running,
    _directory: tempfile::TempDir,
}

/// What a request was answered with.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
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
            api_token: "the-api-token".into(),
            join: Arc::new(JoinPoint {
                address: "127.0.0.1:8440".into(),
                key: KeyHash([7; 32]),
            }),
            moved: Arc::default(),
        };
        let socket = path("farmbell.sock");
        let unix = bind_unix(&socket).unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut serving = JoinSet::new();
        let served = api.clone();
        serving.spawn(async move {
            serve(served, unix, tcp, std::future::pending())
                .await
                .unwrap();
        });
        Self {
            api,
            socket,
            _serving: serving,
            _driver: driver,
            _directory: directory,
        }
    }

    async fn ask(&self, method: Method, path: &str, body: impl ToString) -> Answer {
        let stream = UnixStream::connect(&self.socket).await.unwrap();
        let io = TokioIo::new(stream);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "farmbell")
            .body(Full::new(Bytes::from(body.to_string())))
            .unwrap();
        let mut connections = JoinSet::new();
        connections.spawn(connection);
        let answer = sender.send_request(request).await.unwrap();
        Answer {
            status: answer.status(),
            headers: answer.headers().clone(),
            body: answer.into_body().collect().await.unwrap().to_bytes(),
        }
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> T {
        self.ask(Method::GET, path, "").await.json()
    }

    async fn post(&self, path: &str, body: Value) -> Answer {
        self.ask(Method::POST, path, body).await
    }

    async fn submit(&self, name: &str) -> JobId {
        let job = json!({ "name": name, "recipe": "command", "architecture": "amd64" });
        let body = json!({ "jobs": [job], "allow_unmatched": true });
        let submitted: Submitted = self.post("/api/v1/submissions", body).await.json();
        submitted.jobs[0].id.parse().unwrap()
    }

    async fn act(&self, job: JobId, act: &str) {
        let path = format!("/api/v1/jobs/{job}/act");
        let answer = self.post(&path, json!({ "act": act })).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    }

    async fn stored(&self, job: JobId) -> JobRecord {
        let record = self.api.read(move |queries| queries.job(job)).await;
        record.unwrap().expect("it was submitted")
    }

    /// The names of the jobs that a query lists.
    async fn jobs(&self, query: &str) -> Vec<String> {
        let list: JobList = self.get(&format!("/api/v1/jobs?{query}")).await;
        list.jobs.into_iter().map(|job| job.name).collect()
    }
}

impl Answer {
    fn json<T: DeserializeOwned>(&self) -> T {
        assert!(self.status.is_success(), "{self:?}");
        serde_json::from_slice(&self.body).unwrap()
    }

    /// A refusal, whole as [`Problem`] promises it.
    fn problem(&self) -> Problem {
        assert!(!self.status.is_success(), "{self:?}");
        let problem: Problem = serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("it is refused without a problem ({e}): {self:?}"));
        assert_eq!(self.headers["content-type"], "application/problem+json");
        assert!(!problem.cause.is_empty() && !problem.fix.is_empty());
        problem
    }

    fn is_invalid(&self, words: &[&str]) {
        let problem = self.problem();
        assert_eq!(problem.code, Code::Invalid, "{problem:?}");
        let said = format!("{} {}", problem.cause, problem.fix);
        for word in words {
            assert!(said.contains(word), "{word} is not in: {said}");
        }
    }
}
