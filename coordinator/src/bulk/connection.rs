//! One bulk connection: its ticket, then a stream per transfer. A stream's
//! trouble ends that stream; only nonsense on the wire ends the connection.

use std::time::Duration;

use farmbell_farm::event::Event;
use farmbell_protocol::bounded::Reason;
use farmbell_protocol::bulk::{
    BulkHello, BulkReady, BulkRefusal, BulkRefused, BulkReply, BulkRequest,
};
use farmbell_protocol::client::framed::{FrameError, FrameReceiver, FrameSender};
use farmbell_protocol::client::quic::Incoming;
use farmbell_protocol::client::transport::{Closed, Connection, Receiver, Sender, StreamError};
use farmbell_protocol::codec::{CodecError, FrameSet};
use farmbell_protocol::id::{AgentId, AttemptId};
use farmbell_protocol::version::CloseCode;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Transfers, blob, input, log};
use crate::blobs::BlobError;
use crate::disk::DiskError;
use crate::driver::DriverGone;
use crate::logs::LogError;
use crate::session::FIRST_FRAME_TIME;
use crate::specs::SpecError;

/// The farm is told of progress at most this often per transfer: its deadline
/// is minutes.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// A transfer's stream: requests in, replies out.
pub(super) struct Stream {
    pub(super) receive: FrameReceiver<BulkRequest>,
    pub(super) send: FrameSender<BulkReply>,
    pub(super) attempt: AttemptId,
    progress_told: Option<Instant>,
}

/// Why a transfer ended before its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum Stopped {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("{0:?}: {1}")]
    Refused(BulkRefusal, String),
    #[error(transparent)]
    Driver(#[from] DriverGone),
}

impl From<StreamError> for Stopped {
    fn from(error: StreamError) -> Self {
        Self::Frame(error.into())
    }
}

impl From<BlobError> for Stopped {
    fn from(error: BlobError) -> Self {
        let refusal = match &error {
            BlobError::Chunk(_) | BlobError::NoNodes(_) | BlobError::TooLong(_) => {
                BulkRefusal::Corrupt
            }
            BlobError::Missing(_) => BulkRefusal::NoSuchInput,
            // What the disk refuses today it may take tomorrow.
            BlobError::NotWhole { .. } | BlobError::Disk(_) | BlobError::Source(_) => {
                BulkRefusal::NoSpace
            }
        };
        Self::Refused(refusal, error.to_string())
    }
}

impl From<LogError> for Stopped {
    fn from(error: LogError) -> Self {
        let refusal = match &error {
            LogError::Hole { .. } | LogError::NotWhole { .. } => BulkRefusal::Hole,
            LogError::Closed { .. } => BulkRefusal::NotYours,
            LogError::Cuts { .. } | LogError::Disk(_) => BulkRefusal::NoSpace,
        };
        Self::Refused(refusal, error.to_string())
    }
}

impl From<DiskError> for Stopped {
    fn from(error: DiskError) -> Self {
        Self::Refused(BulkRefusal::NoSpace, error.to_string())
    }
}

impl From<SpecError> for Stopped {
    fn from(error: SpecError) -> Self {
        Self::Refused(BulkRefusal::NoSuchInput, error.to_string())
    }
}

/// Serves one peer of the bulk door.
pub(super) async fn serve(incoming: Incoming, transfers: Transfers) {
    let address = incoming.remote_address();
    let accepted = tokio::time::timeout(FIRST_FRAME_TIME, incoming.accept()).await;
    let connection = match accepted {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            tracing::info!(%address, %error, "no bulk handshake");
            return;
        }
        Err(_) => {
            tracing::info!(%address, code = %CloseCode::Silent, "the bulk handshake took too long");
            return;
        }
    };
    let entered = tokio::time::timeout(FIRST_FRAME_TIME, enter(&connection, &transfers)).await;
    let silent = |_| Err((CloseCode::Silent, "it said nothing in time".to_owned()));
    let agent = match entered.unwrap_or_else(silent) {
        Ok(agent) => agent,
        Err((code, why)) => {
            tracing::info!(%address, key = %connection.peer_key(), %code, %why, "bulk refused");
            connection.close(code, &why);
            return;
        }
    };
    tracing::debug!(%address, %agent, "bulk connection open");
    let closed = streams(&connection, agent, &transfers).await;
    tracing::debug!(%address, %agent, %closed, "bulk connection over");
}

/// Checks the ticket.
async fn enter(
    connection: &Connection,
    transfers: &Transfers,
) -> Result<AgentId, (CloseCode, String)> {
    let failed = |error: FrameError| {
        let code = error.close_code().unwrap_or(CloseCode::Done);
        (code, error.to_string())
    };
    let lost = |closed: Closed| failed(StreamError::Closed(closed).into());
    let (send, receive) = connection.accept().await.map_err(lost)?;
    let mut receive = FrameReceiver::<BulkRequest>::new(receive);
    let first = receive.expect_next().await.map_err(failed)?;
    let kind = first.kind();
    let BulkRequest::BulkHello(BulkHello { session, ticket }) = first else {
        return Err(failed(CodecError::OutOfPlace { kind }.into()));
    };
    let agent = transfers.admissions.enter(connection, session, ticket);
    let agent = agent.ok_or_else(|| {
        let why = format!("session {session} is not live, or the ticket is not its own");
        (CloseCode::BadTicket, why)
    })?;
    let mut send = FrameSender::<BulkReply>::new(send);
    send.send(BulkReady {}).await.map_err(failed)?;
    send.finish();
    Ok(agent)
}

async fn streams(connection: &Connection, agent: AgentId, transfers: &Transfers) -> Closed {
    let mut running = JoinSet::new();
    loop {
        tokio::select! {
            accepted = connection.accept() => match accepted {
                Ok((send, receive)) => {
                    running.spawn(stream(send, receive, agent, transfers.clone()));
                }
                Err(closed) => {
                    // Each ends by itself now; what it has made durable it tells first.
                    while running.join_next().await.is_some() {}
                    return closed;
                }
            },
            Some(ended) = running.join_next(), if !running.is_empty() => match ended {
                Ok(None) => {}
                Ok(Some(code)) => connection.close(code, "a bulk stream could not be read"),
                Err(error) => tracing::error!(%error, %agent, "a transfer's task panicked"),
            },
        }
    }
}

/// Serves one stream; comes back with a name if the connection has to end.
async fn stream(
    send: Sender,
    receive: Receiver,
    agent: AgentId,
    transfers: Transfers,
) -> Option<CloseCode> {
    let mut receive = FrameReceiver::<BulkRequest>::new(receive);
    let first = tokio::time::timeout(FIRST_FRAME_TIME, receive.expect_next()).await;
    let request = match first {
        Ok(Ok(request)) => request,
        Ok(Err(error)) => return nonsense(&error),
        Err(_) => return Some(CloseCode::Silent),
    };
    let attempt = match &request {
        BulkRequest::LogOpen(open) => open.attempt,
        BulkRequest::BlobOpen(open) => open.attempt,
        BulkRequest::InputOpen(open) => open.attempt,
        BulkRequest::BulkHello(_)
        | BulkRequest::LogData(_)
        | BulkRequest::LogCut(_)
        | BulkRequest::LogEnd(_) => return Some(CloseCode::OutOfPlace),
    };
    let mut stream = Stream {
        receive,
        send: FrameSender::new(send),
        attempt,
        progress_told: None,
    };
    let ended = match transfers.admissions.of(agent, attempt).await {
        None => Err(not_yours(attempt)),
        Some(mut over) => tokio::select! {
            ended = transfer(&mut stream, request, &transfers) => ended,
            _ = over.changed() => Err(not_yours(attempt)),
        },
    };
    match ended {
        Ok(()) => None,
        Err(Stopped::Frame(error)) => {
            tracing::debug!(%attempt, %error, "a transfer was cut");
            nonsense(&error)
        }
        Err(Stopped::Driver(gone)) => {
            tracing::debug!(%gone, "the coordinator is going down");
            None
        }
        Err(Stopped::Refused(refusal, why)) => {
            tracing::info!(%attempt, ?refusal, %why, "a transfer was refused");
            let why = Reason::cut(why);
            let said = stream.send.send(BulkRefused { refusal, why }).await;
            stream.send.finish();
            if let Err(error) = said {
                tracing::debug!(%error, "the refusal could not be said");
            }
            None
        }
    }
}

/// Under which name a stream's trouble ends its connection. One that only broke
/// off was given up over there: its neighbours go on.
const fn nonsense(error: &FrameError) -> Option<CloseCode> {
    match error {
        FrameError::Torn | FrameError::Stream(_) => None,
        FrameError::Codec(_) | FrameError::Slow | FrameError::Stalled => error.close_code(),
    }
}

fn not_yours(attempt: AttemptId) -> Stopped {
    let why = format!("attempt {attempt} is not live at this agent");
    Stopped::Refused(BulkRefusal::NotYours, why)
}

async fn transfer(
    stream: &mut Stream,
    request: BulkRequest,
    transfers: &Transfers,
) -> Result<(), Stopped> {
    match request {
        BulkRequest::LogOpen(_) => log::take(stream, transfers).await,
        BulkRequest::BlobOpen(open) => blob::take(stream, open, transfers).await,
        BulkRequest::InputOpen(open) => input::give(stream, open, transfers).await,
        BulkRequest::BulkHello(_)
        | BulkRequest::LogData(_)
        | BulkRequest::LogCut(_)
        | BulkRequest::LogEnd(_) => Err(out_of_place(&request)),
    }
}

impl Stream {
    /// Tells the farm now and then that bytes arrive.
    pub(super) async fn progressed(&mut self, transfers: &Transfers) -> Result<(), DriverGone> {
        let now = Instant::now();
        let told = self.progress_told.get_or_insert(now);
        if now.duration_since(*told) < PROGRESS_EVERY {
            return Ok(());
        }
        *told = now;
        let attempt = self.attempt;
        transfers.farm.tell(Event::Progress { attempt }).await
    }
}

pub(super) fn out_of_place(request: &BulkRequest) -> Stopped {
    let kind = request.kind();
    Stopped::Frame(CodecError::OutOfPlace { kind }.into())
}

/// Disk work on a thread that may block: a slow disk must not hold up the
/// other streams of this runtime.
pub(super) async fn blocking<T, E>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, E>
where
    T: Send + 'static,
    E: Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(Box::new(error.to_string())),
    }
}
