//! The HTTP client of the command. Owns one connection per request and the
//! reading of answers; knows no endpoint of the API.
//!
//! Invariant: a failure to connect, a cut and a refusal are told apart, since
//! only the first two may be tried again.

use std::path::Path;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use farmbell_protocol::digest::Digest;
use futures_util::TryStreamExt;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;

use super::endpoint::Endpoint;
use super::exit::{Exit, Failure, Result};
use super::output;
use crate::http::wire::{Code, Problem};

/// Bytes read from a file at a time for an upload.
const UPLOAD_PIECE: usize = 256 << 10;

/// An answer larger than this is not JSON of ours (a page of jobs with long
/// reasons stays far below).
const JSON_MAX: usize = 64 << 20;

/// Pauses between tries after the connection was lost: a restart of the
/// coordinator takes a second or two, an upgrade less than a minute.
const RETRY_PAUSES_MS: [u64; 9] = [100, 200, 500, 1000, 2000, 4000, 8000, 15000, 30000];

type Body = BoxBody<Bytes, std::io::Error>;

/// Speaks to one coordinator.
#[derive(Clone, Debug)]
pub(super) struct Client {
    endpoint: Endpoint,
}

/// A name or id as one segment of a path, or as the value of a query.
pub(super) fn segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// What came of a request that did not succeed.
#[derive(Debug)]
pub(super) enum Trouble {
    /// No connection, or it was cut: trying again may help.
    Cut(Failure),
    Answer(Failure),
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Cut(failure) | Trouble::Answer(failure) => failure,
        }
    }
}

/// A successful answer whose body is still to be read.
#[derive(Debug)]
pub(super) struct Answer {
    client: Client,
    response: hyper::Response<Incoming>,
    connection: JoinHandle<()>,
}

/// The pauses of one series of tries.
#[derive(Debug, Default)]
pub(super) struct Retries {
    tried: usize,
}

impl Retries {
    /// Waits before the next try; gives the failure back when it was the last.
    pub(super) async fn pause(&mut self, failure: Failure) -> Result<()> {
        let Some(ms) = RETRY_PAUSES_MS.get(self.tried) else {
            return Err(failure);
        };
        if self.tried == 0 {
            output::remark(&format!("{}; trying again", failure.cause));
        }
        self.tried += 1;
        tokio::time::sleep(Duration::from_millis(*ms)).await;
        Ok(())
    }

    /// Something arrived: the next cut starts a new series.
    pub(super) fn reset(&mut self) {
        self.tried = 0;
    }
}

impl Client {
    pub(super) const fn new(endpoint: Endpoint) -> Self {
        Self { endpoint }
    }

    #[cfg(test)]
    pub(super) const fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        Ok(self.try_get(path).await?)
    }

    pub(super) async fn try_get<T: DeserializeOwned>(
        &self,
        path: &str,
    ) -> std::result::Result<T, Trouble> {
        self.stream(path).await?.json().await
    }

    /// A GET whose body is read piece by piece.
    pub(super) async fn stream(&self, path: &str) -> std::result::Result<Answer, Trouble> {
        self.send(Method::GET, path, &[], empty()).await
    }

    pub(super) async fn post<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T> {
        Ok(self.try_post(path, body, &[]).await?)
    }

    pub(super) async fn try_post<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
        headers: &[(&str, &str)],
    ) -> std::result::Result<T, Trouble> {
        let json = serde_json::to_vec(body).expect("our shapes have string keys only");
        let mut headers = headers.to_vec();
        headers.push(("content-type", "application/json"));
        let answer = self.send(Method::POST, path, &headers, full(json)).await?;
        answer.json().await
    }

    /// Whether the coordinator has these bytes.
    pub(super) async fn has_blob(&self, digest: Digest) -> std::result::Result<bool, Trouble> {
        let path = format!("/api/v1/blobs/{digest}");
        match self.send(Method::HEAD, &path, &[], empty()).await {
            Ok(_) => Ok(true),
            Err(Trouble::Answer(failure)) if failure.exit == Exit::NotFound => Ok(false),
            Err(trouble) => Err(trouble),
        }
    }

    /// Uploads a file under its digest; `progress` hears of bytes as they go.
    pub(super) async fn put_blob(
        &self,
        digest: Digest,
        path: &Path,
        progress: impl Fn(u64) + Send + Sync + 'static,
    ) -> std::result::Result<(), Trouble> {
        let wrong = |e: &std::io::Error| Trouble::Answer(Failure::file(path, e));
        let file = tokio::fs::File::open(path).await.map_err(|e| wrong(&e))?;
        let length = file.metadata().await.map_err(|e| wrong(&e))?.len();
        let pieces = futures_util::stream::try_unfold(file, |mut file| async move {
            let mut piece = BytesMut::with_capacity(UPLOAD_PIECE);
            let read = file.read_buf(&mut piece).await?;
            Ok((read > 0).then(|| (piece.freeze(), file)))
        })
        .inspect_ok(move |piece: &Bytes| progress(piece.len() as u64));
        let body = BodyExt::boxed(StreamBody::new(pieces.map_ok(Frame::data)));
        let length = length.to_string();
        let headers = [("content-length", length.as_str())];
        let path = format!("/api/v1/blobs/{digest}");
        self.send(Method::PUT, &path, &headers, body).await?;
        Ok(())
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Body,
    ) -> std::result::Result<Answer, Trouble> {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = match &self.endpoint {
            Endpoint::Unix(path) => {
                let stream = UnixStream::connect(path).await;
                let stream = stream.map_err(|e| self.unreachable(&e))?;
                let request = request.header("host", "farmbell");
                self.exchange(TokioIo::new(stream), request.body(body))
                    .await?
            }
            Endpoint::Tcp { host, port, token } => {
                let bare = host.trim_start_matches('[').trim_end_matches(']');
                let stream = TcpStream::connect((bare, *port)).await;
                let stream = stream.map_err(|e| self.unreachable(&e))?;
                let mut request = request.header("host", format!("{host}:{port}"));
                if let Some(token) = token {
                    request = request.header("authorization", format!("Bearer {token}"));
                }
                self.exchange(TokioIo::new(stream), request.body(body))
                    .await?
            }
        };
        if answer.response.status().is_success() {
            return Ok(answer);
        }
        Err(answer.refusal().await)
    }

    async fn exchange<S>(
        &self,
        stream: S,
        request: std::result::Result<Request<Body>, hyper::http::Error>,
    ) -> std::result::Result<Answer, Trouble>
    where
        S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        let request = request.map_err(|e| {
            Trouble::Answer(Failure::usage(
                format!("a name or id cannot stand in a request: {e}"),
                "Check what you typed.",
            ))
        })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream)
            .await
            .map_err(|e| self.cut(&e))?;
        // Its error is also the request's or the body's, where it is told.
        let connection = tokio::spawn(async { drop(connection.await) });
        match sender.send_request(request).await {
            Ok(response) => Ok(Answer {
                client: self.clone(),
                response,
                connection,
            }),
            Err(e) => {
                connection.abort();
                Err(self.cut(&e))
            }
        }
    }

    fn unreachable(&self, e: &std::io::Error) -> Trouble {
        let endpoint = &self.endpoint;
        if e.kind() == std::io::ErrorKind::PermissionDenied {
            return Trouble::Answer(
                Failure::new(
                    Exit::NotAllowed,
                    format!("{endpoint} may not be opened by you: {e}"),
                    "Join the group farmbell, or be root.",
                )
                .try_this("sudo usermod -aG farmbell $USER"),
            );
        }
        let failure = Failure::new(
            Exit::Unreachable,
            format!("no coordinator answers at {endpoint}: {e}"),
            "Start the coordinator, or say where it is with --socket PATH or --url URL.",
        );
        Trouble::Cut(failure.try_this("systemctl status farmbell-coordinator"))
    }

    fn cut(&self, e: &hyper::Error) -> Trouble {
        Trouble::Cut(Failure::new(
            Exit::Unreachable,
            format!("the connection to {} was lost: {e}", self.endpoint),
            "Try again when the coordinator is back.",
        ))
    }
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// The next piece of the body; none at its proper end.
    pub(super) async fn piece(&mut self) -> std::result::Result<Option<Bytes>, Trouble> {
        loop {
            match self.response.body_mut().frame().await {
                None => return Ok(None),
                Some(Err(e)) => return Err(self.client.cut(&e)),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    async fn bytes(&mut self) -> std::result::Result<BytesMut, Trouble> {
        let mut all = BytesMut::new();
        while let Some(piece) = self.piece().await? {
            if all.len() + piece.len() > JSON_MAX {
                return Err(Trouble::Answer(strange("the answer is too long")));
            }
            all.extend_from_slice(&piece);
        }
        Ok(all)
    }

    async fn json<T: DeserializeOwned>(mut self) -> std::result::Result<T, Trouble> {
        let bytes = self.bytes().await?;
        serde_json::from_slice(&bytes).map_err(|e| Trouble::Answer(strange(&e.to_string())))
    }

    async fn refusal(mut self) -> Trouble {
        let status = self.response.status();
        let bytes = match self.bytes().await {
            Ok(bytes) => bytes,
            Err(trouble) => return trouble,
        };
        let Ok(problem) = serde_json::from_slice::<Problem>(&bytes) else {
            if status == StatusCode::NOT_FOUND {
                return Trouble::Answer(Failure::new(Exit::NotFound, "there is no such thing", ""));
            }
            return Trouble::Answer(strange(&format!("it answers {status}")));
        };
        let gone = problem.code == Code::Unavailable;
        let failure = Failure::from(problem);
        if gone {
            Trouble::Cut(failure)
        } else {
            Trouble::Answer(failure)
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

fn strange(why: &str) -> Failure {
    Failure::new(
        Exit::Infrastructure,
        format!("the coordinator's answer is not understood: {why}"),
        "Check that command and coordinator have the same version, and that the address is a coordinator's.",
    )
    .try_this("farmbell --version")
}

fn empty() -> Body {
    full(Vec::new())
}

fn full(bytes: Vec<u8>) -> Body {
    BodyExt::boxed(Full::new(Bytes::from(bytes)).map_err(|never| match never {}))
}
