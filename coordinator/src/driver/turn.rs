//! One event's turn with the farm. Owns the farm, its clock, and the guard
//! round every call; knows nothing of lanes and commits.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use farmbell_farm::Farm;
use farmbell_farm::effect::Effect;
use farmbell_farm::event::{AgentAct, Command, ConnId, Event};
use farmbell_protocol::id::KeyHash;
use tokio::time::Instant;

use super::clock::Clock;
use super::guard::{Guard, Note};
use super::running::DriverError;
use crate::failpoint::{self, Failpoint};

/// Which key speaks on which live connection: the listener bounds them.
#[derive(Debug, Default)]
pub(super) struct Peers {
    keys: BTreeMap<ConnId, KeyHash>,
}

impl Peers {
    pub(super) fn key(&self, conn: ConnId) -> Option<KeyHash> {
        self.keys.get(&conn).copied()
    }

    fn see(&mut self, event: &Event) {
        match event {
            Event::Hello { conn, key, .. } => {
                self.keys.insert(*conn, *key);
            }
            Event::Closed { conn } => {
                self.keys.remove(conn);
            }
            Event::Join { .. }
            | Event::Request { .. }
            | Event::Report { .. }
            | Event::Parked { .. }
            | Event::LogClosed { .. }
            | Event::Collected { .. }
            | Event::Progress { .. }
            | Event::Aged(_)
            | Event::Found { .. }
            | Event::Wake => {}
        }
    }
}

#[derive(Debug)]
pub(super) struct Turn {
    farm: Farm,
    clock: Clock,
    guard: Guard,
    peers: Peers,
}

impl Turn {
    pub(super) fn new(farm: Farm, clock: Clock, guard: Guard) -> Self {
        Self {
            farm,
            clock,
            guard,
            peers: Peers::default(),
        }
    }

    /// When the farm wants to be woken, on this host's clock.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.farm
            .next_deadline()
            .map(|time| self.clock.instant(time))
    }

    /// What this start found parked, told to the farm.
    pub(super) fn parked(&mut self) -> Result<Vec<Effect>, DriverError> {
        let mut effects = Vec::new();
        for note in self.guard.take_fresh() {
            let Some(key) = note.key else { continue };
            let what = note.what;
            effects.extend(self.handle(Event::Parked { key, what })?);
        }
        Ok(effects)
    }

    /// Gives one event to the farm, unless it is parked.
    pub(super) fn handle(&mut self, event: Event) -> Result<Vec<Effect>, DriverError> {
        self.peers.see(&event);
        if approves(&event) {
            self.guard.forgive()?;
        }
        let Some(note) = Note::of(&event, &self.peers) else {
            return self.call(event).map_err(|why| DriverError::Panicked {
                what: "a request or a deadline".to_owned(),
                why,
            });
        };
        if self.guard.is_parked(&note) {
            tracing::warn!(what = %note.what, "a parked event came again and is passed over");
            return Ok(Vec::new());
        }
        self.guard.enter(&note)?;
        match self.call(event) {
            Ok(effects) => {
                self.guard.leave()?;
                Ok(effects)
            }
            Err(why) => {
                let what = note.what.to_string();
                self.guard.panicked(note)?;
                Err(DriverError::Panicked { what, why })
            }
        }
    }

    /// After a panic the farm is in no known state; it is never called again.
    fn call(&mut self, event: Event) -> Result<Vec<Effect>, String> {
        let now = self.clock.now();
        let injected = matches!(event, Event::Report { .. });
        catch_unwind(AssertUnwindSafe(|| {
            assert!(
                !(injected && failpoint::fires(Failpoint::PanicInHandle)),
                "injected by {}",
                failpoint::VARIABLE
            );
            self.farm.handle(now, event)
        }))
        .map_err(|panic| {
            panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("a panic without words")
                .to_owned()
        })
    }
}

fn approves(event: &Event) -> bool {
    matches!(
        event,
        Event::Request {
            command: Command::Agent {
                act: AgentAct::Approve,
                ..
            },
            ..
        }
    )
}
