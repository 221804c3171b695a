//! One agent's control connection: its frames become events, the farm's
//! effects become frames.
//!
//! ```text
//! handshake ─▶ Join  ─▶ Event::Join  ─▶ Joined, closed
//!          └─▶ Hello… HelloEnd ─▶ Event::Hello ─▶ Welcome ─▶ reports ⇄ orders
//! ```
//!
//! Owns the order of a conversation and its time limits. Decides nothing about
//! agents (the farm does). Invariants: nothing but a Join or a whole Hello is
//! taken first, no report before the Welcome; once the farm has heard of a
//! connection it hears of its end, whatever happens here, a panic included.

mod opening;

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use farmbell_farm::event::{ConnId, Event};
use farmbell_protocol::agent_to_coordinator::AgentFrame;
use farmbell_protocol::bounded::Text;
use farmbell_protocol::client::framed::{FrameError, FrameReceiver, FrameSender};
use farmbell_protocol::client::quic::Incoming;
use farmbell_protocol::client::transport::{Closed, Connection, StreamError};
use farmbell_protocol::codec::{CodecError, FrameSet};
use farmbell_protocol::coordinator_to_agent::{CoordinatorFrame, Offer};
use farmbell_protocol::version::CloseCode;
use futures_util::FutureExt;
use tokio::sync::mpsc;
use tracing::Instrument;

use crate::bulk::Admissions;
use crate::driver::{DriverGone, FarmHandle};
use crate::failpoint::{self, Failpoint};
use crate::outbox::{LINE_QUEUE, Line, Lines, Outgoing};
use crate::specs::{SpecError, Specs};
use opening::{Opening, read_opening};

/// For the handshake, and then for the first frame to begin.
pub(crate) const FIRST_FRAME_TIME: Duration = Duration::from_secs(10);
/// For a whole Hello: the largest is a few hundred kilobytes.
const HELLO_TIME: Duration = Duration::from_secs(30);
/// For the last frames before a friendly end.
const FAREWELL: Duration = Duration::from_secs(5);
/// Bytes put into one write.
const WRITE_BATCH: usize = 32 << 10;

/// What a session needs of the rest of the coordinator.
#[derive(Clone, Debug)]
pub(crate) struct Around {
    pub(crate) farm: FarmHandle,
    pub(crate) lines: Lines,
    pub(crate) admissions: Admissions,
    pub(crate) specs: Specs,
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionEnd {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("it said nothing within {} s", FIRST_FRAME_TIME.as_secs())]
    Silent,
    #[error("its Hello took longer than {} s", HELLO_TIME.as_secs())]
    SlowHello,
    #[error("it speaks versions {min} to {max}, this coordinator others")]
    Version { min: u16, max: u16 },
    #[error("{0}")]
    BadHello(String),
    #[error(transparent)]
    Driver(#[from] DriverGone),
    #[error("an offer could not be made: {0}")]
    Spec(#[from] SpecError),
    /// The conversation is over the way it should be.
    #[error("{0}")]
    Last(CloseCode),
    #[error("its task panicked")]
    Panic,
}

impl From<Closed> for SessionEnd {
    fn from(closed: Closed) -> Self {
        Self::Frame(StreamError::Closed(closed).into())
    }
}

impl From<CodecError> for SessionEnd {
    fn from(error: CodecError) -> Self {
        Self::Frame(error.into())
    }
}

impl SessionEnd {
    /// Whether an operator has to look here, not at the agent.
    const fn is_our_fault(&self) -> bool {
        match self {
            Self::Panic | Self::Spec(_) => true,
            Self::Frame(_)
            | Self::Silent
            | Self::SlowHello
            | Self::Version { .. }
            | Self::BadHello(_)
            | Self::Driver(_)
            | Self::Last(_) => false,
        }
    }

    /// The name under which this side ends the connection, if it is not over.
    fn close_code(&self) -> Option<CloseCode> {
        match self {
            Self::Frame(error) => error.close_code(),
            Self::Silent | Self::SlowHello => Some(CloseCode::Silent),
            Self::Version { .. } => Some(CloseCode::Version),
            Self::BadHello(_) => Some(CloseCode::BadHello),
            Self::Driver(_) | Self::Spec(_) | Self::Panic => Some(CloseCode::Shutdown),
            Self::Last(code) => Some(*code),
        }
    }
}

/// Serves one peer from its first packet to its last.
pub(crate) async fn serve(conn: ConnId, incoming: Incoming, around: Around) {
    let address = incoming.remote_address();
    let span = tracing::info_span!("session", conn = conn.0, %address);
    converse(conn, incoming, around).instrument(span).await;
}

async fn converse(conn: ConnId, incoming: Incoming, around: Around) {
    let accepted = tokio::time::timeout(FIRST_FRAME_TIME, incoming.accept()).await;
    let connection = match accepted {
        Ok(Ok(connection)) => connection,
        Ok(Err(closed)) => {
            let code = closed.code().map_or("none", CloseCode::name);
            tracing::info!(error = %closed, code, "no handshake");
            return;
        }
        Err(_) => {
            tracing::info!(code = %CloseCode::Silent, "the handshake took too long");
            return;
        }
    };
    let told = AtomicBool::new(false);
    let session = AssertUnwindSafe(talk(conn, &connection, &around, &told)).catch_unwind();
    let end = session.await.unwrap_or(SessionEnd::Panic);
    around.lines.remove(conn);
    match end.close_code() {
        Some(code) => {
            let key = connection.peer_key();
            if end.is_our_fault() {
                tracing::error!(%key, error = %end, %code, "a session failed; only this one ends");
            } else {
                tracing::info!(%key, error = %end, %code, "session ended by this side");
            }
            connection.close(code, &end.to_string());
        }
        None => tracing::info!(error = %end, "session ended"),
    }
    around.admissions.shut(conn, CloseCode::Replaced);
    if told.load(Relaxed) && around.farm.tell(Event::Closed { conn }).await.is_err() {
        tracing::debug!("the driver ended before it heard of this end");
    }
}

async fn talk(
    conn: ConnId,
    connection: &Connection,
    around: &Around,
    told: &AtomicBool,
) -> SessionEnd {
    match open(conn, connection, around, told).await {
        Ok(talking) => talking.run(conn, around).await,
        Err(end) => end,
    }
}

/// A conversation that the farm has heard of.
struct Talking<'a> {
    connection: &'a Connection,
    send: FrameSender<CoordinatorFrame>,
    receive: FrameReceiver<AgentFrame>,
    queue: mpsc::Receiver<Outgoing>,
    /// Set when the Welcome goes out: from then on reports have their place.
    welcomed: AtomicBool,
}

/// Reads the opening, lays the line and tells the farm.
async fn open<'a>(
    conn: ConnId,
    connection: &'a Connection,
    around: &Around,
    told: &AtomicBool,
) -> Result<Talking<'a>, SessionEnd> {
    let first = async {
        let (send, receive) = connection.accept().await?;
        let mut receive = FrameReceiver::new(receive);
        let frame = receive.expect_next().await?;
        Ok::<_, SessionEnd>((send, receive, frame))
    };
    let first = tokio::time::timeout(FIRST_FRAME_TIME, first).await;
    let (send, mut receive, frame) = first.map_err(|_| SessionEnd::Silent)??;
    let opening = tokio::time::timeout(HELLO_TIME, read_opening(frame, &mut receive)).await;
    let opening = opening.map_err(|_| SessionEnd::SlowHello)??;
    let (queued, queue) = mpsc::channel(LINE_QUEUE);
    let (version, features) = opening.version()?;
    let line = Line {
        queue: queued,
        connection: connection.clone(),
        key: connection.peer_key(),
        version,
        features,
    };
    around.lines.insert(conn, line);
    told.store(true, Relaxed);
    around.farm.tell(event(opening, conn, connection)).await?;
    Ok(Talking {
        connection,
        send: FrameSender::new(send),
        receive,
        queue,
        welcomed: AtomicBool::new(false),
    })
}

fn event(opening: Opening, conn: ConnId, connection: &Connection) -> Event {
    let key = connection.peer_key();
    let address = Text::cut(connection.remote_address().to_string());
    match opening {
        Opening::Join(join) => Event::Join {
            conn,
            key,
            address,
            join,
        },
        Opening::Hello {
            hello,
            builders,
            attempts,
        } => Event::Hello {
            conn,
            key,
            address,
            hello,
            builders,
            attempts,
        },
    }
}

impl Talking<'_> {
    async fn run(self, conn: ConnId, around: &Around) -> SessionEnd {
        let Self {
            connection,
            send,
            receive,
            queue,
            welcomed,
        } = self;
        tokio::select! {
            end = hear(receive, conn, &welcomed, &around.farm) => end,
            end = say(send, queue, &welcomed, &around.specs) => end,
            closed = connection.closed() => closed.into(),
        }
    }
}

/// Takes reports; a farm that is busy slows its agents down, not itself.
async fn hear(
    mut receive: FrameReceiver<AgentFrame>,
    conn: ConnId,
    welcomed: &AtomicBool,
    farm: &FarmHandle,
) -> SessionEnd {
    loop {
        let frame = match receive.next().await {
            Ok(Some(frame)) => frame,
            // The agent says no more; what it is told may still arrive.
            Ok(None) => return std::future::pending().await,
            Err(error) => return error.into(),
        };
        let kind = frame.kind();
        if !welcomed.load(Relaxed) || is_opening(&frame) {
            return CodecError::OutOfPlace { kind }.into();
        }
        assert!(
            !failpoint::fires(Failpoint::PanicInSession),
            "injected: a panic in a session's task"
        );
        assert!(
            !(matches!(frame, AgentFrame::Refused(_))
                && failpoint::fires(Failpoint::PanicInRefusal)),
            "injected: a panic in a session's task over a refusal"
        );
        if let Err(gone) = farm.tell(Event::Report { conn, frame }).await {
            return gone.into();
        }
    }
}

const fn is_opening(frame: &AgentFrame) -> bool {
    match frame {
        AgentFrame::Join(_)
        | AgentFrame::Hello(_)
        | AgentFrame::HelloBuilder(_)
        | AgentFrame::HelloAttempt(_)
        | AgentFrame::HelloEnd(_) => true,
        AgentFrame::Accepted(_)
        | AgentFrame::Refused(_)
        | AgentFrame::Started(_)
        | AgentFrame::Ended(_)
        | AgentFrame::Sealed(_)
        | AgentFrame::OutputsLost(_)
        | AgentFrame::ResetStarted(_)
        | AgentFrame::ResetFailed(_)
        | AgentFrame::Clean(_)
        | AgentFrame::Condition(_) => false,
    }
}

/// Sends what the farm wants said, as much as waits in one write.
async fn say(
    mut send: FrameSender<CoordinatorFrame>,
    mut queue: mpsc::Receiver<Outgoing>,
    welcomed: &AtomicBool,
    specs: &Specs,
) -> SessionEnd {
    while let Some(mut outgoing) = queue.recv().await {
        loop {
            match outgoing {
                Outgoing::Frames(frames) => send.queue_encoded(&frames),
                Outgoing::Welcome(frames) => {
                    failpoint::pass(Failpoint::WelcomeUnsaid);
                    welcomed.store(true, Relaxed);
                    send.queue_encoded(&frames);
                }
                Outgoing::Offer { builder, attempt } => match spec_of(specs, attempt.job).await {
                    Ok(spec) => {
                        let offer = Offer {
                            builder,
                            attempt,
                            spec: Box::new((*spec).clone()),
                        };
                        send.queue(&offer.into());
                    }
                    Err(error) => return error.into(),
                },
                Outgoing::Last { code, why } => {
                    tracing::debug!(%code, %why, "the farm ends the connection");
                    return last_words(send, code).await;
                }
            }
            if send.queued_bytes() >= WRITE_BATCH {
                break;
            }
            match queue.try_recv() {
                Ok(next) => outgoing = next,
                Err(_) => break,
            }
        }
        if let Err(error) = send.flush().await {
            return error.into();
        }
    }
    // Only the line's own end drops its queue.
    std::future::pending().await
}

async fn spec_of(
    specs: &Specs,
    job: farmbell_protocol::id::JobId,
) -> Result<std::sync::Arc<farmbell_protocol::spec::JobSpec>, SpecError> {
    if let Some(spec) = specs.cached(job) {
        return Ok(spec);
    }
    let specs = specs.clone();
    let read = tokio::task::spawn_blocking(move || specs.get(job)).await;
    read.unwrap_or(Err(SpecError::Missing(job)))
}

/// A close drops what was not delivered: so wait for the delivery first.
async fn last_words(mut send: FrameSender<CoordinatorFrame>, code: CloseCode) -> SessionEnd {
    if let Err(error) = send.flush().await {
        return error.into();
    }
    send.finish();
    if tokio::time::timeout(FAREWELL, send.raw().settled())
        .await
        .is_err()
    {
        tracing::debug!("the agent did not take the last frames");
    }
    SessionEnd::Last(code)
}
