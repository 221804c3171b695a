//! The two doors that agents dial: control and bulk, each on a socket of its
//! own, the bulk one on a thread of its own.
//!
//! Owns who is let in how fast: unvalidated addresses are asked to come again
//! while many handshakes are under way, and no more connections are kept than
//! the limit allows. Knows no agent (sessions and the farm do).

#[cfg(test)]
mod stories;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use farmbell_farm::event::ConnId;
use farmbell_protocol::bounded::Text;
use farmbell_protocol::client::identity::Identity;
use farmbell_protocol::client::quic::{
    BulkTuning, Incoming, ListenError, Listener, Profile, ServerKeys,
};
use farmbell_protocol::version::CloseCode;
use tokio::task::JoinSet;

use crate::blobs::Blobs;
use crate::bulk::{Admissions, BulkDoor, Counters, Delivered};
use crate::driver::FarmHandle;
use crate::logs::Logs;
use crate::outbox::{Lines, Switchboard};
use crate::retire::Orders;
use crate::search::Searches;
use crate::session::{self, Around};
use crate::specs::Specs;

/// Connections beyond those that have opened a session: from here on an
/// address has to prove itself, which costs this side nothing to remember.
const UNPROVED_MAX: usize = 256;
/// Control connections at once: twice the largest farm measured (10,000
/// agents at about 50 kB each).
const SESSIONS_MAX: usize = 20_000;

/// For agents to be told that the coordinator is going down: the packets are
/// sent at once, this is for those that get lost.
pub(crate) const FAREWELL: Duration = Duration::from_millis(500);

/// Where to listen.
#[derive(Clone, Debug)]
pub struct Addresses {
    pub control: SocketAddr,
    pub bulk: SocketAddr,
    /// `host:port` that agents are told for bulk; by default the host they
    /// dialled and the port that is listened on.
    pub bulk_public: Option<Text<256>>,
    pub tuning: BulkTuning,
}

/// The doors, bound but not open yet.
#[derive(Debug)]
pub struct Doors {
    control: Listener,
    bulk: BulkDoor,
    bulk_address: Text<256>,
    lines: Lines,
    admissions: Admissions,
    counters: Arc<Counters>,
}

/// Why the doors could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("the bulk door's thread could not be made: {0}")]
    Thread(io::Error),
    #[error("the address of a bound socket is unknown: {0}")]
    Address(io::Error),
}

/// What sessions and transfers work on.
#[derive(Clone, Debug)]
pub struct Depots {
    pub specs: Specs,
    pub blobs: Blobs,
    pub logs: Logs,
    pub delivered: Delivered,
}

impl Doors {
    /// Binds both sockets. The outbox is needed to start the driver, the
    /// driver to [`open`](Self::open).
    ///
    /// # Errors
    /// If an address is taken or the key unusable.
    pub fn bind(
        addresses: &Addresses,
        identity: &Identity,
        keys: &ServerKeys,
    ) -> Result<Self, DoorError> {
        let control = Listener::bind(addresses.control, identity, Profile::Control, keys)?;
        let admissions = Admissions::default();
        let bulk = BulkDoor::bind(addresses.bulk, identity, addresses.tuning, keys)?;
        let port = bulk.local_address().map_err(DoorError::Address)?.port();
        let own = || Text::cut(format!(":{port}"));
        Ok(Self {
            control,
            bulk,
            bulk_address: addresses.bulk_public.clone().unwrap_or_else(own),
            lines: Lines::default(),
            admissions,
            counters: Arc::default(),
        })
    }

    /// Performs effects on whoever comes through these doors.
    #[must_use]
    pub fn outbox(&self, logs: Logs, retiring: Orders, searches: Searches) -> Switchboard {
        Switchboard::new(
            self.lines.clone(),
            self.admissions.clone(),
            logs,
            retiring,
            searches,
            self.bulk_address.clone(),
        )
    }

    /// What bulk transfers have moved, for metrics.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// # Errors
    /// If the operating system does not say.
    pub fn control_address(&self) -> io::Result<SocketAddr> {
        self.control.local_address()
    }

    /// # Errors
    /// If the operating system does not say.
    pub fn bulk_address(&self) -> io::Result<SocketAddr> {
        self.bulk.local_address()
    }

    /// Lets agents in until `stop`, then tells all of them.
    ///
    /// # Errors
    /// If the bulk door's thread cannot be started.
    pub async fn open(
        self,
        farm: FarmHandle,
        depots: Depots,
        stop: impl Future<Output = ()>,
    ) -> Result<(), DoorError> {
        let around = Around {
            farm: farm.clone(),
            lines: self.lines,
            admissions: self.admissions.clone(),
            specs: depots.specs.clone(),
        };
        let bulk = self.bulk.open(farm, self.admissions, depots, self.counters);
        let bulk = bulk.map_err(DoorError::Thread)?;
        let mut sessions = JoinSet::new();
        tokio::select! {
            () = let_in(&self.control, &around, &mut sessions) => {}
            () = stop => {}
        }
        let why = "the coordinator is going down; builds go on";
        self.control.close(CloseCode::Shutdown, why);
        let bulk = bulk.close(why);
        let told = async { while sessions.join_next().await.is_some() {} };
        let ended = async { tokio::join!(self.control.drained(), told) };
        if tokio::time::timeout(FAREWELL, ended).await.is_err() {
            tracing::debug!("some agents may learn of the end by silence only");
        }
        bulk.wait().await;
        Ok(())
    }
}

async fn let_in(listener: &Listener, around: &Around, sessions: &mut JoinSet<()>) {
    let mut newest = 0;
    loop {
        let incoming = tokio::select! {
            incoming = listener.accept() => incoming,
            Some(ended) = sessions.join_next(), if !sessions.is_empty() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a session's task died outside its conversation");
                }
                continue;
            }
        };
        let Some(incoming) = incoming else {
            return;
        };
        let opened = around.lines.count();
        let Some(incoming) = screen(incoming, listener.open_connections(), opened) else {
            continue;
        };
        newest += 1;
        sessions.spawn(session::serve(ConnId(newest), incoming, around.clone()));
    }
}

/// Whether this peer may try a handshake now.
pub(crate) fn screen(incoming: Incoming, connections: usize, opened: usize) -> Option<Incoming> {
    if connections >= SESSIONS_MAX {
        tracing::warn!(
            connections,
            limit = SESSIONS_MAX,
            "a peer was turned away: too many connections"
        );
        incoming.refuse();
        return None;
    }
    if !incoming.validated() && connections.saturating_sub(opened) > UNPROVED_MAX {
        incoming.retry();
        return None;
    }
    Some(incoming)
}
