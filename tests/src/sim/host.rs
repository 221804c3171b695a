//! A builder host: what really runs, whatever anybody believes. Processes,
//! sealed outputs and the physical cleanliness survive the agent; a reboot
//! ends processes; nothing here knows of sessions.

use std::collections::{BTreeMap, BTreeSet};

use farmbell_protocol::agent_to_coordinator::AttemptPhase;
use farmbell_protocol::builder::{EndReport, HostView, SealReport, Survivor};
use farmbell_protocol::id::{AttemptId, BootId, CleanNonce};

use super::script::Script;

/// One attempt's supervisor and what it left.
#[derive(Clone, Debug)]
pub(super) struct Process {
    pub(super) script: Script,
    pub(super) state: State,
    pub(super) log_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The agent prepares it; nothing runs.
    Starting,
    Running,
    /// Neither TERM nor KILL ends it.
    Stuck,
    /// The exit record is durable.
    Exited(EndReport),
    /// It died with the host.
    Vanished,
}

/// The place of one builder on its host.
#[derive(Debug, Default)]
pub(super) struct Place {
    pub(super) processes: BTreeMap<AttemptId, Process>,
    pub(super) sealed: BTreeMap<AttemptId, SealReport>,
    /// What the agent's driver is sending.
    pub(super) uploads: BTreeSet<AttemptId>,
    pub(super) resetting: Option<CleanNonce>,
    /// Nothing has run since the last reset that worked.
    pub(super) clean: bool,
}

impl Place {
    pub(super) fn running(&self) -> Option<AttemptId> {
        let mut processes = self.processes.iter();
        processes
            .find(|(_, process)| matches!(process.state, State::Running | State::Stuck))
            .map(|(&attempt, _)| attempt)
    }

    /// The agent is gone: so is whatever only its memory held.
    pub(super) fn agent_died(&mut self) {
        self.processes
            .retain(|_, process| process.state != State::Starting);
        self.uploads.clear();
        self.resetting = None;
    }

    pub(super) fn rebooted(&mut self) {
        for process in self.processes.values_mut() {
            if matches!(process.state, State::Running | State::Stuck) {
                process.state = State::Vanished;
            }
        }
        self.clean = false;
    }

    /// The spool is gone with all it held; so is whatever ran out of it.
    pub(super) fn spool_lost(&mut self) {
        self.processes.clear();
        self.sealed.clear();
        self.clean = false;
    }

    pub(super) fn view(&self, boot: BootId) -> HostView {
        let survivors = self
            .processes
            .iter()
            .map(|(&attempt, process)| Survivor {
                attempt,
                phase: if self.sealed.contains_key(&attempt) {
                    AttemptPhase::Sealed
                } else {
                    AttemptPhase::Running
                },
                running: matches!(process.state, State::Running | State::Stuck),
                end: match &process.state {
                    State::Exited(end) => Some(end.clone()),
                    State::Starting | State::Running | State::Stuck | State::Vanished => None,
                },
            })
            .collect();
        HostView { boot, survivors }
    }
}
