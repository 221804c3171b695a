//! The agent's side of a session: dial, Hello, Welcome, orders in, reports
//! out, and all of it again after a cut.
//!
//! ```text
//!            Hello?  Linked  Order…  Unlinked
//! keep() ────────────────────────────────────▶ one task per builder (a Desk)
//!   ▲ │                                             │
//!   │ └── LinkState ──▶ bulk transfers, doctor      │ Speaker::say(report)
//!   └───────────── coordinator ◀────────────────────┘
//! ```
//!
//! Owns the connection and the time between two of them. Decides nothing about
//! work: orders go to the builder they name, as events of its brain, and what
//! the brain says goes out. A cut never ends an attempt. Invariants: a report
//! is sent only on the session on which its builder was linked; a lower epoch
//! is refused; nothing blocks one builder's orders behind another's.

mod desk;
mod opening;
mod orders;
#[cfg(test)]
mod stories;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

pub use desk::Desk;

use crate::agent_to_coordinator::{AgentFrame, Fact, HelloAttempt, HelloBuilder};
use crate::bounded::{List, Name};
use crate::builder::Event;
use crate::client::backoff::{Backoff, jittered};
use crate::client::dial::{DialError, dial};
use crate::client::framed::{FrameError, FrameReceiver, FrameSender};
use crate::client::identity::Identity;
use crate::client::quic::Profile;
use crate::client::transport::{Closed, Connection, StreamError};
use crate::codec::{CodecError, FrameSet};
use crate::coordinator_to_agent::{CoordinatorFrame, Welcome};
use crate::id::{BootId, BuilderIndex, Epoch, KeyHash, SessionId, SpoolId};
use crate::version::CloseCode;
use orders::Routes;

/// Orders that may wait for one builder: more than a Welcome can bring. A
/// builder that lets so many wait is stuck, and its session ends.
pub const BUILDER_QUEUE: usize = 256;
/// Reports that may wait for the network: some seconds of a busy agent.
const SPEECH_QUEUE: usize = 1024;
/// Bytes put into one write.
const WRITE_BATCH: usize = 32 << 10;
/// After a refusal that only a person can lift.
const REFUSED_WAIT: Duration = Duration::from_secs(300);
/// After another machine took over with this key: the two must not fight.
const REPLACED_WAIT: Duration = Duration::from_secs(60);
/// After this side ended the session itself: nothing is wrong on the way, and
/// other builders wait.
const HUNG_UP_WAIT: Duration = Duration::from_millis(10);
/// A session that lasted this long was a good one: its end is a first failure.
const GOOD_SESSION: Duration = Duration::from_secs(10);

/// What an agent tells of itself in each Hello.
#[derive(Clone, Debug)]
pub struct Settings {
    pub identity: Arc<Identity>,
    pub software: Name,
    pub boot: BootId,
    pub incarnation: u64,
    pub spool: SpoolId,
    pub facts: List<Fact, 64>,
    pub patience: Patience,
}

/// What to do about a refusal that dialling again cannot lift by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Ask again every few minutes: an operator may have lifted it.
    KeepAsking,
    /// Come back with the error.
    GiveUp,
}

/// What an agent knows of its coordinator, and must know again after a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coordinator {
    /// `host:port` of the control socket.
    pub address: String,
    /// The keys that are accepted there: the present one and its successors.
    pub pins: Vec<KeyHash>,
    /// The highest epoch seen; a lower one is refused.
    pub epoch: Epoch,
    pub session: Option<SessionId>,
}

/// Keeps a [`Coordinator`] across restarts.
pub trait Memory: Send + Sync + 'static {
    /// Makes it durable; called from a thread that may block, before an order
    /// of the new session is taken.
    ///
    /// # Errors
    /// If it is not durable: the session is then given up and tried again.
    fn remember(&self, coordinator: &Coordinator) -> io::Result<()>;
}

/// Forgets everything: for builders that live shorter than their coordinator.
#[derive(Clone, Copy, Debug)]
pub struct Forgetful;

impl Memory for Forgetful {
    fn remember(&self, _coordinator: &Coordinator) -> io::Result<()> {
        Ok(())
    }
}

/// What a session says to a builder's task. [`Desk`] knows how to take it.
#[derive(Debug)]
pub enum ToBuilder {
    /// A Hello is being written: what does this builder contribute? Comes
    /// behind every order of the session before.
    Hello {
        index: BuilderIndex,
        answer: oneshot::Sender<(HelloBuilder, Vec<HelloAttempt>)>,
    },
    /// The session is open. The event is for the brain; what it says goes to
    /// this speaker until `Unlinked`.
    Linked {
        event: Event,
        speaker: Speaker,
    },
    Order(Event),
    Unlinked,
}

/// Says a builder's reports on one session.
#[derive(Clone, Debug)]
pub struct Speaker {
    frames: mpsc::Sender<AgentFrame>,
    connection: Connection,
}

impl Speaker {
    /// Never blocks. After the session's end nothing is said: the next Welcome
    /// tells what to say again. Where the network takes too little the session
    /// is ended, to the same effect.
    pub fn say(&self, frame: AgentFrame) {
        if let Err(mpsc::error::TrySendError::Full(frame)) = self.frames.try_send(frame) {
            tracing::warn!(kind = frame.kind(), "reports pile up: the session ends");
            self.connection
                .close(CloseCode::Overloaded, "reports pile up on the agent");
        }
    }

    fn hang_up(&self, why: &str) {
        self.connection.close(CloseCode::Done, why);
    }
}

/// Where the agent stands with its coordinator.
#[derive(Clone, Debug)]
pub enum LinkState {
    Dialing,
    Linked(Arc<Linked>),
    /// Not linked; the next dial comes after `wait`.
    Waiting {
        why: String,
        code: Option<CloseCode>,
        wait: Duration,
    },
}

/// An open session: what bulk transfers need of it.
#[derive(Clone, Debug)]
pub struct Linked {
    pub welcome: Welcome,
    /// `host:port` for bulk streams.
    pub bulk_address: String,
    pub pins: Vec<KeyHash>,
}

/// Why a session ended or was not opened.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(
        "the coordinator shows epoch {shown}, lower than {known} which this agent has seen: its store is older than it was; builds go on, an operator has to look"
    )]
    LowerEpoch { known: Epoch, shown: Epoch },
    #[error("the coordinator did not answer the Hello in time")]
    NoWelcome,
    #[error("the coordinator speaks version {0}, which was not offered")]
    Version(u16),
    #[error("builder {0} does not take its orders")]
    BuilderStuck(BuilderIndex),
    #[error("builder {0} is gone")]
    BuilderGone(BuilderIndex),
    #[error("what the Welcome brought could not be made durable: {0}")]
    Memory(io::Error),
}

impl From<Closed> for SessionError {
    fn from(closed: Closed) -> Self {
        Self::Frame(FrameError::Stream(StreamError::Closed(closed)))
    }
}

impl From<CodecError> for SessionError {
    fn from(error: CodecError) -> Self {
        Self::Frame(FrameError::Codec(error))
    }
}

impl SessionError {
    fn closed(&self) -> Option<&Closed> {
        match self {
            Self::Dial(error) => error.closed(),
            Self::Frame(error) => error.closed(),
            Self::LowerEpoch { .. }
            | Self::NoWelcome
            | Self::Version(_)
            | Self::BuilderStuck(_)
            | Self::BuilderGone(_)
            | Self::Memory(_) => None,
        }
    }

    /// The name of this end.
    #[must_use]
    pub fn code(&self) -> Option<CloseCode> {
        match self {
            Self::LowerEpoch { .. } => Some(CloseCode::LowerEpoch),
            Self::NoWelcome => Some(CloseCode::Silent),
            Self::Version(_) => Some(CloseCode::Version),
            Self::BuilderStuck(_) => Some(CloseCode::Overloaded),
            Self::BuilderGone(_) | Self::Memory(_) => Some(CloseCode::Shutdown),
            Self::Frame(error) => error
                .close_code()
                .or_else(|| self.closed().and_then(Closed::code)),
            Self::Dial(_) => self.closed().and_then(Closed::code),
        }
    }

    /// Whether only a person can lift it.
    fn final_here(&self) -> bool {
        matches!(self, Self::Dial(DialError::OtherKey { .. }))
            || self.code().is_some_and(|code| !code.dial_again())
    }
}

/// Keeps a session open for these builders until `stop`. Each builder's task
/// takes [`ToBuilder`] from a channel of [`BUILDER_QUEUE`] places.
///
/// # Errors
/// With [`Patience::GiveUp`], a refusal that dialling again cannot lift.
pub async fn keep(
    settings: Settings,
    coordinator: Coordinator,
    memory: Arc<dyn Memory>,
    builders: Vec<mpsc::Sender<ToBuilder>>,
    state: watch::Sender<LinkState>,
    stop: impl Future<Output = ()>,
) -> Result<(), SessionError> {
    let mut keeper = Keeper {
        settings,
        coordinator,
        memory,
        builders,
        state,
        live: None,
    };
    tokio::select! {
        error = keeper.run() => Err(error),
        () = stop => {
            if let Some(connection) = keeper.live.take() {
                connection.close(CloseCode::Shutdown, "the agent is going down");
                connection.drained().await;
            }
            Ok(())
        }
    }
}

struct Keeper {
    settings: Settings,
    coordinator: Coordinator,
    memory: Arc<dyn Memory>,
    builders: Vec<mpsc::Sender<ToBuilder>>,
    state: watch::Sender<LinkState>,
    live: Option<Connection>,
}

impl Keeper {
    /// Session after session, until one ends for good.
    async fn run(&mut self) -> SessionError {
        let mut backoff = Backoff::default();
        loop {
            self.state.send_replace(LinkState::Dialing);
            let began = Instant::now();
            let error = self.one_session().await;
            if let (Some(connection), Some(code)) = (self.live.take(), error.code()) {
                connection.close(code, &error.to_string());
            }
            if error.final_here() && self.settings.patience == Patience::GiveUp {
                return error;
            }
            if began.elapsed() > GOOD_SESSION {
                backoff.succeeded();
            }
            let wait = wait_after(&error, &mut backoff);
            let code = error.code();
            let name = code.map_or("none", CloseCode::name);
            let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            tracing::warn!(%error, code = name, wait_ms, "no session");
            self.state.send_replace(LinkState::Waiting {
                why: error.to_string(),
                code,
                wait,
            });
            tokio::time::sleep(wait).await;
        }
    }

    async fn one_session(&mut self) -> SessionError {
        let connection = {
            let (address, pins) = (&self.coordinator.address, &self.coordinator.pins);
            match dial(address, &self.settings.identity, pins, Profile::Control).await {
                Ok(connection) => connection,
                Err(error) => return error.into(),
            }
        };
        self.live = Some(connection.clone());
        let opened = match self.open(&connection).await {
            Ok(opened) => opened,
            Err(error) => return error,
        };
        let (frames, said) = mpsc::channel(SPEECH_QUEUE);
        let speaker = Speaker {
            frames,
            connection: connection.clone(),
        };
        self.link(&opened.events, &speaker).await;
        // From here the builders' speakers are all that keeps `said` open.
        drop(speaker);
        let linked = LinkState::Linked(opened.linked);
        self.state.send_replace(linked);
        let error = tokio::select! {
            error = orders::carry(opened.receive, opened.routes, &self.builders) => error,
            error = speak(opened.send, said, &connection) => error,
        };
        self.state.send_replace(LinkState::Dialing);
        for builder in &self.builders {
            if builder.send(ToBuilder::Unlinked).await.is_err() {
                tracing::error!("a builder's task is gone");
            }
        }
        error
    }

    async fn link(&self, events: &[Event], speaker: &Speaker) {
        for (builder, event) in self.builders.iter().zip(events) {
            let linked = ToBuilder::Linked {
                event: event.clone(),
                speaker: speaker.clone(),
            };
            if builder.send(linked).await.is_err() {
                tracing::error!("a builder's task is gone");
            }
        }
    }
}

/// An open session whose builders are not linked yet.
struct Opened {
    send: FrameSender<AgentFrame>,
    receive: FrameReceiver<CoordinatorFrame>,
    linked: Arc<Linked>,
    events: Vec<Event>,
    routes: Routes,
}

/// Sends what is said, as much as there is in one write.
async fn speak(
    mut send: FrameSender<AgentFrame>,
    mut said: mpsc::Receiver<AgentFrame>,
    connection: &Connection,
) -> SessionError {
    while let Some(frame) = said.recv().await {
        send.queue(&frame);
        while send.queued_bytes() < WRITE_BATCH {
            let Ok(frame) = said.try_recv() else { break };
            send.queue(&frame);
        }
        if let Err(error) = send.flush().await {
            return error.into();
        }
    }
    // Every builder is gone: orders may still come, and then tell so.
    connection.closed().await.into()
}

fn wait_after(error: &SessionError, backoff: &mut Backoff) -> Duration {
    if error.final_here() {
        return jittered(REFUSED_WAIT);
    }
    if error.code() == Some(CloseCode::Replaced) {
        return jittered(REPLACED_WAIT);
    }
    if matches!(error.closed(), Some(Closed::Here)) {
        return HUNG_UP_WAIT;
    }
    match error.closed().and_then(Closed::wait_wished) {
        Some(wished) => jittered(wished.min(REFUSED_WAIT)),
        None => backoff.next_wait(),
    }
}
