//! The one bulk connection of a session: dialled when a transfer asks for it,
//! shared by all of them, closed when nobody has used it for a while or when
//! its session is over.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until};

use crate::bulk::{BulkHello, BulkReply, BulkRequest};
use crate::client::backoff::Backoff;
use crate::client::dial::{DIAL_TIME, dial};
use crate::client::framed::{FrameReceiver, FrameSender};
use crate::client::identity::Identity;
use crate::client::quic::{BulkTuning, Profile};
use crate::client::session::{LinkState, Linked};
use crate::client::transport::Connection;
use crate::id::SessionId;
use crate::version::CloseCode;

/// An unused connection is kept this long: builds of a busy farm follow each
/// other closely.
const IDLE: Duration = Duration::from_secs(10);

/// A transfer's wish for the connection.
pub(super) struct Ask {
    answer: oneshot::Sender<Lease>,
}

/// The connection for as long as this is held.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) connection: Connection,
    _user: mpsc::Sender<Infallible>,
}

/// Waits for the connection. `None`: the pool is gone.
pub(super) async fn lease(asks: &mpsc::Sender<Ask>) -> Option<Lease> {
    let (answer, answered) = oneshot::channel();
    asks.send(Ask { answer }).await.ok()?;
    answered.await.ok()
}

pub(super) struct Pool {
    identity: Arc<Identity>,
    link: watch::Receiver<LinkState>,
    tuning: BulkTuning,
    asks: mpsc::Receiver<Ask>,
    open: Option<Open>,
}

struct Open {
    connection: Connection,
    of: Arc<Linked>,
    /// Every lease holds a sender of this channel: it ends with the last one.
    users: mpsc::Receiver<Infallible>,
    user: mpsc::WeakSender<Infallible>,
    idle_since: Option<Instant>,
}

impl Pool {
    pub(super) const fn new(
        identity: Arc<Identity>,
        link: watch::Receiver<LinkState>,
        tuning: BulkTuning,
        asks: mpsc::Receiver<Ask>,
    ) -> Self {
        Self {
            identity,
            link,
            tuning,
            asks,
            open: None,
        }
    }

    /// Runs until nobody can ask any more.
    pub(super) async fn run(mut self) {
        loop {
            tokio::select! {
                ask = self.asks.recv() => match ask {
                    Some(ask) => self.answer(ask).await,
                    None => break,
                },
                () = over(&mut self.link, &mut self.open) => self.open = None,
            }
        }
        self.close("the agent is done");
    }

    fn close(&mut self, why: &str) {
        if let Some(open) = self.open.take() {
            open.connection.close(CloseCode::Done, why);
        }
    }

    /// Dials, if need be, for as long as somebody waits.
    async fn answer(&mut self, ask: Ask) {
        let mut waiting = vec![ask];
        let mut backoff = Backoff::default();
        while self.open.is_none() {
            match self.dial().await {
                Ok(open) => self.open = Some(open),
                Err(error) => {
                    let wait = backoff.next_wait();
                    tracing::info!(%error, ?wait, "no bulk connection");
                    // A new session is a reason to dial at once.
                    tokio::select! {
                        () = sleep(wait) => {}
                        Ok(()) = self.link.changed() => {}
                    }
                }
            }
            while let Ok(ask) = self.asks.try_recv() {
                waiting.push(ask);
            }
            waiting.retain(|ask| !ask.answer.is_closed());
            if waiting.is_empty() {
                return;
            }
        }
        let Some(open) = &mut self.open else {
            return;
        };
        for ask in waiting {
            if ask.answer.send(open.lease()).is_err() {
                tracing::trace!("the transfer was given up");
            }
        }
    }

    /// Waits for a session, then dials for it, for as long as it is the live
    /// one: the door of a coordinator that is gone would answer to the last
    /// packet of a long series, seconds after its next life is there.
    async fn dial(&mut self) -> Result<Open, String> {
        let linked = loop {
            if let LinkState::Linked(linked) = &*self.link.borrow_and_update() {
                break Arc::clone(linked);
            }
            let changed = self.link.changed().await;
            changed.map_err(|_| "the agent goes down".to_owned())?;
        };
        // The clone leaves the change itself for whoever waits to dial again.
        let mut link = self.link.clone();
        let connection = tokio::select! {
            connection = self.dial_for(&linked) => connection?,
            () = moved_on(&mut link, linked.welcome.session) => {
                return Err("the session is over".to_owned());
            }
        };
        let (user, users) = mpsc::channel(1);
        Ok(Open {
            connection,
            of: linked,
            users,
            user: user.downgrade(),
            idle_since: Some(Instant::now()),
        })
    }

    async fn dial_for(&self, linked: &Linked) -> Result<Connection, String> {
        let connection = dial(
            &linked.bulk_address,
            &self.identity,
            &linked.pins,
            Profile::Bulk(self.tuning),
        )
        .await
        .map_err(|error| error.to_string())?;
        let greeted = tokio::time::timeout(DIAL_TIME, greet(&connection, linked)).await;
        greeted.map_err(|_| "the bulk door does not answer".to_owned())??;
        Ok(connection)
    }
}

impl Open {
    fn lease(&mut self) -> Lease {
        self.idle_since = None;
        let user = self.user.upgrade().unwrap_or_else(|| {
            let (user, users) = mpsc::channel(1);
            self.users = users;
            self.user = user.downgrade();
            user
        });
        Lease {
            connection: self.connection.clone(),
            _user: user,
        }
    }
}

/// Shows the session's ticket on the connection's first stream.
async fn greet(connection: &Connection, linked: &Linked) -> Result<(), String> {
    let (send, receive) = connection.open().await.map_err(|error| error.to_string())?;
    let mut send = FrameSender::<BulkRequest>::new(send);
    let mut receive = FrameReceiver::<BulkReply>::new(receive);
    let hello = BulkHello {
        session: linked.welcome.session,
        ticket: linked.welcome.ticket,
    };
    send.send(hello).await.map_err(|error| error.to_string())?;
    send.finish();
    match receive.expect_next().await {
        Ok(BulkReply::BulkReady(_)) => Ok(()),
        Ok(other) => Err(format!("{other:?} instead of BulkReady")),
        Err(error) => Err(error.to_string()),
    }
}

/// Ends when the connection is gone, was unused for [`IDLE`], or belongs to a
/// session that is over.
async fn over(link: &mut watch::Receiver<LinkState>, open: &mut Option<Open>) {
    let Some(open) = open else {
        return std::future::pending().await;
    };
    let moved_on = moved_on(link, open.of.welcome.session);
    let connection = open.connection.clone();
    let unused = async {
        if open.idle_since.is_none() {
            // Nothing is ever sent: this ends when the last lease is dropped.
            while open.users.recv().await.is_some() {}
            open.idle_since = Some(Instant::now());
        }
        if let Some(since) = open.idle_since {
            sleep_until(since + IDLE).await;
        }
    };
    tokio::select! {
        closed = connection.closed() => tracing::debug!(%closed, "the bulk connection is over"),
        () = unused => connection.close(CloseCode::Done, "unused"),
        () = moved_on => connection.close(CloseCode::Done, "the session is over"),
    }
}

/// Ends when this session is not the live one any more.
async fn moved_on(link: &mut watch::Receiver<LinkState>, session: SessionId) {
    let moved = link.wait_for(|state| match state {
        LinkState::Linked(linked) => linked.welcome.session != session,
        LinkState::Dialing | LinkState::Waiting { .. } => true,
    });
    // Without a keeper of sessions there is none any more either.
    drop(moved.await);
}
