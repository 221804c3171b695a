//! Who may deliver what: the live sessions and the attempts that the farm has
//! admitted, as its effects say.
//!
//! A lock and no task: an order that follows an admission on the control
//! socket must find it whichever thread serves the bulk socket, and the driver
//! must not wait. Nothing is done under it but looking up and noting down.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use farmbell_farm::event::ConnId;
use farmbell_farm::record::SealedRecord;
use farmbell_protocol::client::transport::Connection;
use farmbell_protocol::digest::Digest;
use farmbell_protocol::id::{AgentId, AttemptId, KeyHash, SessionId};
use farmbell_protocol::spec::Output;
use farmbell_protocol::version::CloseCode;
use subtle::ConstantTimeEq;
use tokio::sync::{Notify, watch};

/// A stream may come a moment before the effect that admits its attempt.
const ADMISSION_GRACE: Duration = Duration::from_secs(3);

/// What a bulk connection has to show, and what it is then taken for.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    pub(crate) agent: AgentId,
    pub(crate) session: SessionId,
    pub(crate) key: KeyHash,
    pub(crate) ticket: [u8; 16],
}

/// Ends when what it was given for is over: a session, or an admission.
pub(crate) type UntilOver = watch::Receiver<()>;

/// Shared by the outbox, the sessions and the bulk door.
#[derive(Clone, Debug, Default)]
pub(crate) struct Admissions {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    /// Something was admitted.
    admitted: Notify,
    /// `State::chores` is not empty.
    chores: Notify,
}

#[derive(Debug, Default)]
struct State {
    sessions: HashMap<ConnId, Session>,
    attempts: HashMap<AttemptId, Admitted>,
    chores: Chores,
}

/// What an effect leaves for the bulk thread to do.
#[derive(Debug, Default)]
pub(crate) struct Chores {
    /// Attempts whose outputs may be complete without another byte.
    pub(crate) check: BTreeSet<AttemptId>,
    /// Attempts that are over.
    pub(crate) forget: BTreeSet<AttemptId>,
}

#[derive(Debug)]
struct Session {
    door: Door,
    bulk: Option<Connection>,
}

#[derive(Debug)]
struct Admitted {
    agent: AgentId,
    /// Dropped with the admission: every stream of it sees that.
    live: watch::Sender<()>,
    sealed: Option<SealedRecord>,
    /// Blobs that its agent has shown to have: to this process, and, once
    /// `notes` are read, to earlier ones.
    proved: HashSet<Digest>,
    notes: Notes,
    /// Blobs that are durable and were offered to this process, by length.
    stored: HashSet<(Digest, u64)>,
    /// Known once the manifest is: outputs, and what of them is missing.
    manifest: Option<Missing>,
}

/// What is known of the attempt's file of notes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Notes {
    Unread,
    None,
    Some,
}

#[derive(Debug)]
struct Missing {
    outputs: Arc<[Output]>,
    blobs: HashSet<(Digest, u64)>,
}

/// What has become of an attempt's outputs.
#[derive(Debug)]
pub(crate) enum Collected {
    /// More has to come.
    NotYet,
    /// The manifest is there and has not been read.
    ReadManifest(Digest),
    /// All of them are durable.
    All(Arc<[Output]>),
}

impl Admissions {
    /// A session is welcome: its bulk connection may come.
    pub(crate) fn open(&self, conn: ConnId, door: Door) {
        let session = Session { door, bulk: None };
        self.locked().sessions.insert(conn, session);
    }

    /// A session is over, and its bulk connection with it.
    pub(crate) fn shut(&self, conn: ConnId, code: CloseCode) {
        let session = self.locked().sessions.remove(&conn);
        if let Some(bulk) = session.and_then(|session| session.bulk) {
            bulk.close(code, "its session is over");
        }
    }

    /// Takes a bulk connection that shows a live session's ticket; an older
    /// one of the same session ends.
    pub(crate) fn enter(
        &self,
        bulk: &Connection,
        session: SessionId,
        ticket: [u8; 16],
    ) -> Option<AgentId> {
        let key = bulk.peer_key();
        let mut state = self.locked();
        let found = state.sessions.values_mut().find(|live| {
            live.door.key == key
                && live.door.session == session
                && bool::from(live.door.ticket.ct_eq(&ticket))
        })?;
        if let Some(older) = found.bulk.replace(bulk.clone()) {
            older.close(CloseCode::Replaced, "a newer bulk connection came");
        }
        Some(found.door.agent)
    }

    /// Bulk connections that have shown their ticket.
    pub(crate) fn entered(&self) -> usize {
        let state = self.locked();
        let sessions = state.sessions.values();
        sessions.filter(|session| session.bulk.is_some()).count()
    }

    pub(crate) fn admit(&self, agent: AgentId, attempt: AttemptId) {
        let mut state = self.locked();
        let admitted = state.attempts.entry(attempt).or_insert_with(|| Admitted {
            agent,
            live: watch::Sender::new(()),
            sealed: None,
            proved: HashSet::new(),
            notes: Notes::Unread,
            stored: HashSet::new(),
            manifest: None,
        });
        admitted.agent = agent;
        drop(state);
        self.inner.admitted.notify_waiters();
    }

    pub(crate) fn dismiss(&self, attempt: AttemptId) {
        let mut state = self.locked();
        state.chores.check.remove(&attempt);
        let dismissed = state.attempts.remove(&attempt);
        if dismissed.is_some_and(|dismissed| dismissed.notes == Notes::Some) {
            state.chores.forget.insert(attempt);
            drop(state);
            self.inner.chores.notify_one();
        }
    }

    pub(crate) fn expect(&self, attempt: AttemptId, sealed: SealedRecord) {
        let mut state = self.locked();
        let Some(admitted) = state.attempts.get_mut(&attempt) else {
            return;
        };
        admitted.sealed = Some(sealed);
        state.chores.check.insert(attempt);
        drop(state);
        self.inner.chores.notify_one();
    }

    /// Waits for something to do.
    pub(crate) async fn chores(&self) -> Chores {
        loop {
            let chores = mem::take(&mut self.locked().chores);
            if !chores.check.is_empty() || !chores.forget.is_empty() {
                return chores;
            }
            self.inner.chores.notified().await;
        }
    }

    /// Whether this agent may deliver for this attempt, waiting a moment for
    /// the effect that says so.
    pub(crate) async fn of(&self, agent: AgentId, attempt: AttemptId) -> Option<UntilOver> {
        let by = tokio::time::Instant::now() + ADMISSION_GRACE;
        loop {
            let admitted = self.inner.admitted.notified();
            tokio::pin!(admitted);
            admitted.as_mut().enable();
            if let Some(live) = self.of_now(agent, attempt) {
                return Some(live);
            }
            tokio::time::timeout_at(by, admitted).await.ok()?;
        }
    }

    fn of_now(&self, agent: AgentId, attempt: AttemptId) -> Option<UntilOver> {
        let state = self.locked();
        let admitted = state.attempts.get(&attempt)?;
        (admitted.agent == agent).then(|| admitted.live.subscribe())
    }

    /// A blob of the attempt is durable; `noted` if a file says so.
    pub(crate) fn stored(
        &self,
        attempt: AttemptId,
        digest: Digest,
        length: u64,
        noted: bool,
    ) -> Collected {
        let mut state = self.locked();
        let Some(admitted) = state.attempts.get_mut(&attempt) else {
            return Collected::NotYet;
        };
        if noted {
            admitted.notes = Notes::Some;
        }
        admitted.proved.insert(digest);
        admitted.stored.insert((digest, length));
        if let Some(manifest) = &mut admitted.manifest {
            manifest.blobs.remove(&(digest, length));
        }
        admitted.collected()
    }

    /// Whether the attempt's agent has sent this blob before; `None` while the
    /// notes of earlier processes are not read.
    pub(crate) fn proved(&self, attempt: AttemptId, digest: Digest) -> Option<bool> {
        let state = self.locked();
        let admitted = state.attempts.get(&attempt)?;
        let proved = admitted.proved.contains(&digest);
        (proved || admitted.notes != Notes::Unread).then_some(proved)
    }

    /// What earlier processes have noted.
    pub(crate) fn delivered(&self, attempt: AttemptId, noted: HashSet<Digest>) {
        if let Some(admitted) = self.locked().attempts.get_mut(&attempt) {
            if admitted.notes == Notes::Unread {
                admitted.notes = if noted.is_empty() {
                    Notes::None
                } else {
                    Notes::Some
                };
            }
            admitted.proved.extend(noted);
        }
    }

    /// How far the attempt's outputs are.
    pub(crate) fn collected(&self, attempt: AttemptId) -> Collected {
        let state = self.locked();
        let admitted = state.attempts.get(&attempt);
        admitted.map_or(Collected::NotYet, Admitted::collected)
    }

    /// The manifest was read.
    pub(crate) fn manifest(&self, attempt: AttemptId, outputs: Arc<[Output]>) -> Collected {
        let mut state = self.locked();
        let Some(admitted) = state.attempts.get_mut(&attempt) else {
            return Collected::NotYet;
        };
        let named = outputs.iter().map(|output| (output.digest, output.length));
        let missing = named.filter(|blob| !admitted.stored.contains(blob));
        admitted.manifest = Some(Missing {
            blobs: missing.collect(),
            outputs,
        });
        admitted.collected()
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        // Every critical section leaves the maps whole.
        let state = self.inner.state.lock();
        state.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Admitted {
    fn collected(&self) -> Collected {
        match (&self.sealed, &self.manifest) {
            (None, _) => Collected::NotYet,
            (Some(sealed), None) => {
                let manifest = (sealed.manifest, sealed.manifest_bytes);
                if self.stored.contains(&manifest) {
                    Collected::ReadManifest(sealed.manifest)
                } else {
                    Collected::NotYet
                }
            }
            (Some(_), Some(missing)) if missing.blobs.is_empty() => {
                Collected::All(Arc::clone(&missing.outputs))
            }
            (Some(_), Some(_)) => Collected::NotYet,
        }
    }
}
