//! Stories of command and service together: the real client over a real Unix
//! socket, the real farm on a real store. No agent takes part.

mod jobs;
mod operators;
mod readers;
mod submits;

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
use crate::search::{self, Searches};
use crate::specs::Specs;
use crate::store::Sqlite;

const TOKEN: &str = "the-api-token";

/// No agent is connected: nothing has to be performed but searches.
struct NoAgents(Searches);

impl Outbox for NoAgents {
    fn perform(&mut self, effect: Effect) {
        if let Effect::Search { operation, search } = effect {
            self.0.search(operation, search);
        }
    }
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
        let (searches, to_search) = search::orders();
        let parts = Parts {
            settings: Settings::default(),
            store,
            outbox: NoAgents(searches),
            specs: Specs::new(queries.clone()),
            guard: Guard::open(&path("guard")).unwrap(),
        };
        let mut driver = driver::start(lanes, parts).unwrap();
        driver.ready().await;
        let searching = search::run(
            to_search,
            queries.clone(),
            farm.clone(),
            std::future::pending(),
        );
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
            moved: Arc::default(),
        };
        let unix = http::bind_unix(&path("farmbell.sock")).unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = tcp.local_addr().unwrap().port();
        let mut serving = JoinSet::new();
        serving.spawn(async move { searching.await.unwrap() });
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
