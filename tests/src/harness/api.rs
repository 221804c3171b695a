//! The HTTP API over the Unix socket, one connection, for measurements that
//! the start of a command would drown. Stories use the command instead.

use std::path::Path;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::UnixStream;
use tokio::runtime::Runtime;

/// One connection to a coordinator.
#[derive(Debug)]
pub struct Api {
    runtime: Runtime,
    sender: SendRequest<Full<Bytes>>,
}

impl Api {
    /// # Errors
    /// If nobody listens at the socket.
    pub fn connect(socket: &Path) -> anyhow::Result<Self> {
        // A thread of its own drives the connection while a caller computes.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let sender = runtime.block_on(async {
            let stream = UnixStream::connect(socket).await?;
            let (sender, connection) = handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            anyhow::Ok(sender)
        })?;
        Ok(Self { runtime, sender })
    }

    /// # Errors
    /// If the coordinator is gone or answers with a problem.
    pub fn get(&mut self, path: &str) -> anyhow::Result<Value> {
        self.call("GET", path, None)
    }

    /// # Errors
    /// As [`get`](Self::get).
    pub fn post(&mut self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.call("POST", path, Some(body))
    }

    /// Submits jobs that run these commands, all in one submission; their ids.
    ///
    /// # Errors
    /// If they are refused.
    pub fn submit(
        &mut self,
        architecture: &str,
        commands: &[Vec<String>],
    ) -> anyhow::Result<Vec<String>> {
        let jobs: Vec<Value> = commands
            .iter()
            .map(|argv| {
                let parameters: Vec<Value> = argv
                    .iter()
                    .map(|word| json!({ "key": "argv", "value": word }))
                    .collect();
                json!({
                    "name": "measured", "recipe": "command", "architecture": architecture,
                    "parameters": parameters,
                })
            })
            .collect();
        let submitted = self.post("/api/v1/submissions", &json!({ "jobs": jobs }))?;
        let jobs = submitted["jobs"]
            .as_array()
            .context("a submission has jobs")?;
        jobs.iter()
            .map(|job| Ok(job["id"].as_str().context("a job has an id")?.to_owned()))
            .collect()
    }

    /// Waits until the job has a verdict, and gives the job.
    ///
    /// # Errors
    /// If it did not succeed.
    pub fn wait(&mut self, job: &str) -> anyhow::Result<Value> {
        let mut answer = self.get(&format!("/api/v1/jobs/{job}/wait"))?;
        let verdict = &answer["job"]["verdict"]["verdict"];
        if verdict != "succeeded" {
            bail!("a measured job did not succeed: {answer:#}");
        }
        Ok(answer["job"].take())
    }

    /// A figure of `/metrics`, by its whole name with labels.
    ///
    /// # Errors
    /// If there is none, or it is no whole number.
    pub fn metric(&mut self, name: &str) -> anyhow::Result<u64> {
        let bytes = self.send("GET", "/metrics", None)?;
        let text = String::from_utf8_lossy(&bytes);
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
            .with_context(|| format!("no {name} in:\n{text}"))?;
        value.parse().with_context(|| format!("{name} is {value}"))
    }

    fn call(&mut self, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let bytes = self.send(method, path, body)?;
        serde_json::from_slice(&bytes).with_context(|| format!("{method} {path}: no JSON"))
    }

    fn send(&mut self, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Bytes> {
        let bytes = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "farmbell")
            .header("content-type", "application/json")
            .body(Full::new(bytes))?;
        let sender = &mut self.sender;
        let (status, bytes) = self.runtime.block_on(async {
            sender.ready().await?;
            let answer = sender.send_request(request).await?;
            let status = answer.status();
            anyhow::Ok((status, answer.into_body().collect().await?.to_bytes()))
        })?;
        if !status.is_success() {
            bail!(
                "{method} {path}: {status}: {}",
                String::from_utf8_lossy(&bytes)
            );
        }
        Ok(bytes)
    }
}
