//! The way into the farm, for everyone else. Owns the two lanes: agents and
//! HTTP each have a bounded channel of their own, so that a flood in one
//! delays nothing in the other.

use std::sync::Arc;

use farmbell_farm::effect::Reply;
use farmbell_farm::event::{Actor, Command, Event};
use farmbell_farm::record::LedgerEntry;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use super::health::{Health, Meter, Stall};

/// Events of sessions and of the bulk layer that may wait: one full batch
/// beside the one in hand. Whoever finds no place waits, and so does its peer.
const AGENTS_LANE: usize = 256;
/// Requests that may wait; one over is refused at once as [`Unavailable::Busy`].
const HTTP_LANE: usize = 256;
/// Ledger entries that a slow follower may be behind before it has to read
/// them from the store.
const LEDGER_BEHIND: usize = 4096;

/// The farm, as everyone but its driver sees it.
#[derive(Clone, Debug)]
pub struct FarmHandle {
    pub(super) agents: mpsc::Sender<Event>,
    pub(super) http: mpsc::Sender<Request>,
    pub(super) ledger: broadcast::Sender<LedgerEntry>,
    pub(super) stall: watch::Receiver<Option<Stall>>,
    pub(super) meter: Arc<Meter>,
}

/// The driver's end of both lanes and of what it publishes.
#[derive(Debug)]
pub struct Lanes {
    pub(super) agents: mpsc::Receiver<Event>,
    pub(super) http: mpsc::Receiver<Request>,
    pub(super) ledger: broadcast::Sender<LedgerEntry>,
    pub(super) stall: watch::Sender<Option<Stall>>,
    pub(super) meter: Arc<Meter>,
}

/// Both ends, before there is a driver: sessions and HTTP are built on the one
/// while the driver is started with the other.
#[must_use]
pub fn lanes() -> (FarmHandle, Lanes) {
    let (agents, agents_end) = mpsc::channel(AGENTS_LANE);
    let (http, http_end) = mpsc::channel(HTTP_LANE);
    let (ledger, _) = broadcast::channel(LEDGER_BEHIND);
    let (stall, stall_seen) = watch::channel(None);
    let meter = Arc::new(Meter::default());
    let handle = FarmHandle {
        agents,
        http,
        ledger: ledger.clone(),
        stall: stall_seen,
        meter: meter.clone(),
    };
    let lanes = Lanes {
        agents: agents_end,
        http: http_end,
        ledger,
        stall,
        meter,
    };
    (handle, lanes)
}

/// One command on its way to the farm.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) by: Actor,
    pub(super) command: Command,
    pub(super) reply: oneshot::Sender<Reply>,
}

/// The driver has ended, and the process with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the coordinator is going down; try again when it is back")]
pub struct DriverGone;

/// Why a command got no reply. It may have been carried out: repeat a submit
/// with its idempotency key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    #[error(
        "the farm's store cannot make anything durable at present ({}); \
         nothing is accepted until that is mended", .0.why
    )]
    Stalled(Stall),
    #[error("{HTTP_LANE} requests wait already; try again")]
    Busy,
    #[error(transparent)]
    Gone(#[from] DriverGone),
}

impl FarmHandle {
    /// Asks the farm; the reply comes after the commit of its batch.
    ///
    /// # Errors
    /// If the store is stalled, too much waits, or the driver has ended.
    pub async fn request(&self, by: Actor, command: Command) -> Result<Reply, Unavailable> {
        let mut stall = self.stall.clone();
        if let Some(stall) = stall.borrow_and_update().clone() {
            return Err(Unavailable::Stalled(stall));
        }
        let (reply, answer) = oneshot::channel();
        let request = Request { by, command, reply };
        self.http
            .try_send(request)
            .map_err(|refused| match refused {
                mpsc::error::TrySendError::Full(_) => Unavailable::Busy,
                mpsc::error::TrySendError::Closed(_) => Unavailable::Gone(DriverGone),
            })?;
        tokio::select! {
            biased;
            reply = answer => reply.map_err(|_| Unavailable::Gone(DriverGone)),
            stalled = stall.wait_for(Option::is_some) => match stalled {
                Ok(stall) => Err(stall.clone().map_or(Unavailable::Gone(DriverGone), Unavailable::Stalled)),
                Err(_) => Err(Unavailable::Gone(DriverGone)),
            },
        }
    }

    /// Tells the farm what happened; waits for a place in the agents' lane.
    ///
    /// # Errors
    /// If the driver has ended.
    pub async fn tell(&self, event: Event) -> Result<(), DriverGone> {
        self.agents.send(event).await.map_err(|_| DriverGone)
    }

    /// Committed ledger entries from now on. A receiver that lags reads the
    /// store and goes on.
    #[must_use]
    pub fn ledger(&self) -> broadcast::Receiver<LedgerEntry> {
        self.ledger.subscribe()
    }

    /// Waits until the store takes changes, if it does not now.
    #[cfg(test)]
    pub(super) async fn stall_over(&self) {
        let mut stall = self.stall.clone();
        stall.wait_for(Option::is_none).await.unwrap();
    }

    /// How the driver and its store are.
    #[must_use]
    pub fn health(&self) -> Health {
        self.meter.read(
            self.stall.borrow().clone(),
            self.agents.max_capacity() - self.agents.capacity(),
            self.http.max_capacity() - self.http.capacity(),
        )
    }
}
