//! The way out of the farm: effects to connections and to the bulk door.
//!
//! Owns the lines, one per connection that has said Join or Hello: a bounded
//! queue of what waits to be sent to it. Never blocks and never decides: a
//! line whose queue is full is cut as overloaded, and the next Welcome brings
//! that agent level. Invariant: what is queued on one line is sent in the
//! order of the effects.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use farmbell_farm::effect::Effect;
use farmbell_farm::event::ConnId;
use farmbell_protocol::bounded::{List, Reason, Text};
use farmbell_protocol::client::transport::Connection;
use farmbell_protocol::codec::FrameSet;
use farmbell_protocol::coordinator_to_agent::{CoordinatorFrame, Welcome, WelcomeEnd};
use farmbell_protocol::id::{AttemptId, BuilderIndex, KeyHash};
use farmbell_protocol::version::{CloseCode, Features};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::bulk::{Admissions, Door};
use crate::driver::Outbox;
use crate::logs::Logs;
use crate::retire::Orders;
use crate::search::Searches;

/// Messages that may wait for one connection: several hundred jobs' worth of
/// acknowledgements. Who lets more wait does not read.
pub(crate) const LINE_QUEUE: usize = 1024;

/// Something for one connection.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// Encoded frames.
    Frames(Vec<u8>),
    /// The same, of a Welcome: reports are taken from here on.
    Welcome(Vec<u8>),
    /// An offer whose spec is still to be looked up.
    Offer {
        builder: BuilderIndex,
        attempt: AttemptId,
    },
    /// Nothing follows: send what waits, then end the connection.
    Last { code: CloseCode, why: Reason },
}

/// One connection as the farm's effects reach it.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) queue: mpsc::Sender<Outgoing>,
    pub(crate) connection: Connection,
    pub(crate) key: KeyHash,
    pub(crate) version: u16,
    pub(crate) features: Features,
}

/// All lines. A lock and no task: the driver must find a line that was put in
/// before its event was told, and must not wait. Nothing is done under it but
/// looking up and queueing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lines {
    by_conn: Arc<Mutex<HashMap<ConnId, Line>>>,
}

impl Lines {
    pub(crate) fn insert(&self, conn: ConnId, line: Line) {
        self.locked().insert(conn, line);
    }

    pub(crate) fn remove(&self, conn: ConnId) {
        self.locked().remove(&conn);
    }

    pub(crate) fn count(&self) -> usize {
        self.locked().len()
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<ConnId, Line>> {
        // Each critical section is one call on the map: it is always whole.
        self.by_conn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Performs the farm's effects on connections, and passes on what others do.
#[derive(Debug)]
pub struct Switchboard {
    lines: Lines,
    admissions: Admissions,
    /// Whose followers hear when nothing more will come of an attempt.
    logs: Logs,
    retiring: Orders,
    searches: Searches,
    /// What a Welcome says of where bulk streams go.
    bulk_address: Text<256>,
}

impl Switchboard {
    pub(crate) const fn new(
        lines: Lines,
        admissions: Admissions,
        logs: Logs,
        retiring: Orders,
        searches: Searches,
        bulk_address: Text<256>,
    ) -> Self {
        Self {
            lines,
            admissions,
            logs,
            retiring,
            searches,
            bulk_address,
        }
    }

    fn queue(&self, conn: ConnId, outgoing: Outgoing) {
        let lines = self.lines.locked();
        let Some(line) = lines.get(&conn) else {
            tracing::debug!(conn = conn.0, "the connection is gone");
            return;
        };
        match line.queue.try_send(outgoing) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                tracing::warn!(conn = conn.0, code = %CloseCode::Overloaded, "a full outbox");
                let why = "this agent does not read what is sent to it";
                line.connection.close(CloseCode::Overloaded, why);
            }
            Err(TrySendError::Closed(_)) => {
                tracing::debug!(conn = conn.0, "the connection is ending");
            }
        }
    }

    /// Ends a connection and its bulk connection. A friendly end waits for
    /// what was queued before; any other is at once.
    fn close(&self, conn: ConnId, code: CloseCode, why: Reason) {
        self.admissions.shut(conn, code);
        if code == CloseCode::Done {
            return self.queue(conn, Outgoing::Last { code, why });
        }
        if let Some(line) = self.lines.locked().get(&conn) {
            tracing::info!(conn = conn.0, %code, %why, key = %line.key, "connection closed");
            line.connection.close(code, &why);
        }
    }

    fn welcome(&self, effect: WelcomeEffect) {
        let conn = effect.conn;
        let said = {
            let lines = self.lines.locked();
            let Some(line) = lines.get(&conn) else {
                return;
            };
            let ticket = random_ticket();
            let (agent, session) = (effect.welcome.agent, effect.welcome.session);
            self.admissions.open(
                conn,
                Door {
                    agent,
                    session,
                    key: line.key,
                    ticket,
                },
            );
            let welcome = Welcome {
                version: line.version,
                features: line.features,
                bulk: self.bulk_address.clone(),
                ticket,
                ..effect.welcome
            };
            encode_welcome(welcome, effect.answers)
        };
        self.queue(conn, Outgoing::Welcome(said));
    }
}

/// A Welcome as the farm has it: without address, ticket and version.
struct WelcomeEffect {
    conn: ConnId,
    welcome: Welcome,
    answers: Vec<CoordinatorFrame>,
}

fn encode_welcome(welcome: Welcome, answers: Vec<CoordinatorFrame>) -> Vec<u8> {
    let mut bytes = CoordinatorFrame::Welcome(welcome).encode();
    for answer in answers {
        answer.encode_into(&mut bytes);
    }
    CoordinatorFrame::WelcomeEnd(WelcomeEnd {}).encode_into(&mut bytes);
    bytes
}

fn random_ticket() -> [u8; 16] {
    let mut ticket = [0; 16];
    getrandom::fill(&mut ticket).expect("the operating system gives randomness");
    ticket
}

impl Outbox for Switchboard {
    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Send { conn, frame } => self.queue(conn, Outgoing::Frames(frame.encode())),
            Effect::Offer {
                conn,
                builder,
                attempt,
            } => self.queue(conn, Outgoing::Offer { builder, attempt }),
            Effect::Welcome {
                conn,
                agent,
                session,
                epoch,
                builders,
                attempts,
            } => {
                let builders = builders.into_iter().map(CoordinatorFrame::from);
                let attempts = attempts.into_iter().map(CoordinatorFrame::from);
                self.welcome(WelcomeEffect {
                    conn,
                    answers: builders.chain(attempts).collect(),
                    welcome: Welcome {
                        version: 0,
                        features: Features::default(),
                        agent,
                        session,
                        epoch,
                        bulk: Text::default(),
                        ticket: [0; 16],
                        successors: List::default(),
                    },
                });
            }
            Effect::Close { conn, code, why } => self.close(conn, code, why),
            Effect::Admit { agent, attempt } => self.admissions.admit(agent, attempt),
            Effect::Dismiss { attempt } => {
                self.admissions.dismiss(attempt);
                self.logs.release(attempt);
            }
            Effect::Expect { attempt, sealed } => self.admissions.expect(attempt, sealed),
            Effect::Look(look) => self.retiring.look(look),
            Effect::Prune => self.retiring.prune(),
            Effect::Search { operation, search } => self.searches.search(operation, search),
            Effect::Change(_) | Effect::Reply { .. } => {
                debug_assert!(false, "changes and replies are the driver's own");
            }
        }
    }
}
