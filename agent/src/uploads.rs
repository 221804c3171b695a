//! Sending an attempt's log and outputs until they are released. Owns when a
//! transfer is tried: everything once per session, since a coordinator that
//! restarted may have forgotten what it had not yet counted. The transfers
//! themselves, and their resuming, are the bulk client's.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use farmbell_protocol::bounded::Reason;
use farmbell_protocol::builder::Event;
use farmbell_protocol::client::bulk::{BulkError, LogGrowth};
use farmbell_protocol::client::session::LinkState;
use farmbell_protocol::digest::{ChunkList, ChunkListBuilder};
use farmbell_protocol::id::{AttemptId, SessionId};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::host::BuilderHost;
use crate::seal::SealedOutputs;

/// Outputs that wait at the bulk client's door at one time; it works on fewer.
const AT_ONCE: usize = 32;

/// Sends the log, session after session.
pub(crate) async fn log(host: BuilderHost, attempt: AttemptId, growth: watch::Receiver<LogGrowth>) {
    let mut link = host.link.clone();
    let mut done = None;
    while let Some(session) = next_session(&mut link, done).await {
        let path = host.dir(attempt).log();
        match host.bulk.send_log(attempt, path, growth.clone()).await {
            Ok(()) => tracing::debug!(%attempt, "the log is stored"),
            Err(error) => tracing::warn!(%attempt, %error, "the log is not sent"),
        }
        done = Some(session);
    }
}

/// Sends manifest and outputs, session after session.
pub(crate) async fn outputs(
    host: BuilderHost,
    attempt: AttemptId,
    sealed: Arc<OnceLock<SealedOutputs>>,
    events: mpsc::Sender<Event>,
) {
    let Some(sealed) = sealed.get() else {
        tracing::error!(%attempt, "outputs are to be sent that were never sealed");
        return;
    };
    let mut link = host.link.clone();
    let mut done = None;
    while let Some(session) = next_session(&mut link, done).await {
        match send_all(&host, attempt, sealed).await {
            Ok(()) => tracing::debug!(%attempt, "all outputs are stored"),
            Err(BulkError::Local(error)) => {
                let why = Reason::cut(format!("sealed outputs cannot be read: {error}"));
                if events
                    .send(Event::OutputsLost { attempt, why })
                    .await
                    .is_err()
                {
                    tracing::debug!(%attempt, "the builder's task is gone");
                }
                return;
            }
            Err(error) => tracing::warn!(%attempt, %error, "outputs are not sent"),
        }
        done = Some(session);
    }
}

async fn send_all(
    host: &BuilderHost,
    attempt: AttemptId,
    sealed: &SealedOutputs,
) -> Result<(), BulkError> {
    let manifest = (host.dir(attempt).manifest(), chunks_of(&sealed.manifest));
    let outputs = sealed
        .files
        .iter()
        .map(|file| (file.path.clone(), file.chunks.clone()));
    let mut sending: JoinSet<Result<(), BulkError>> = JoinSet::new();
    for (path, chunks) in std::iter::once(manifest).chain(outputs) {
        if sending.len() == AT_ONCE {
            settle(sending.join_next().await)?;
        }
        sending.spawn(send(host.clone(), attempt, path, chunks));
    }
    while let Some(sent) = sending.join_next().await {
        settle(Some(sent))?;
    }
    Ok(())
}

async fn send(
    host: BuilderHost,
    attempt: AttemptId,
    path: PathBuf,
    chunks: ChunkList,
) -> Result<(), BulkError> {
    host.bulk.send_blob(attempt, path, chunks).await
}

fn settle(
    sent: Option<Result<Result<(), BulkError>, tokio::task::JoinError>>,
) -> Result<(), BulkError> {
    match sent {
        None => Ok(()),
        Some(Ok(sent)) => sent,
        Some(Err(_)) => Err(BulkError::Gone),
    }
}

/// Waits for a session that is not `done`; `None` when the agent goes down.
async fn next_session(
    link: &mut watch::Receiver<LinkState>,
    done: Option<SessionId>,
) -> Option<SessionId> {
    loop {
        let now = match &*link.borrow_and_update() {
            LinkState::Linked(linked) => Some(linked.welcome.session),
            LinkState::Dialing | LinkState::Waiting { .. } => None,
        };
        if now.is_some() && now != done {
            return now;
        }
        link.changed().await.ok()?;
    }
}

fn chunks_of(bytes: &[u8]) -> ChunkList {
    let mut builder = ChunkListBuilder::new();
    let chunk = usize::try_from(farmbell_protocol::digest::CHUNK_BYTES).unwrap_or(usize::MAX);
    for piece in bytes.chunks(chunk) {
        builder.push(piece);
    }
    builder.finish()
}
