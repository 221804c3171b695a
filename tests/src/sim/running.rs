//! What an agent's driver does on its host: processes, seals, resets, uploads.
//! Each takes its time, and is void when the agent or the host died meanwhile.

use std::time::Duration;

use farmbell_farm::event::ConnId;
use farmbell_protocol::agent_to_coordinator::{Fitness, Refusal, ResetStage, ScriptFailure};
use farmbell_protocol::bounded::{Blob, Reason};
use farmbell_protocol::builder::{EndReport, Event, ResetReport, SealReport};
use farmbell_protocol::digest::Digest;
use farmbell_protocol::id::{AttemptId, CleanNonce};
use farmbell_protocol::outcome::{ExitStatus, FailureKind, Outcome, Usage};
use farmbell_protocol::spec::{JobSpec, Manifest};

use super::checker::{Broken, Execution, broken};
use super::faults::Fault;
use super::host::{Process, State};
use super::script::{self, Manner, Script, list};
use super::world::{Happening, World};

/// How long a reset script may take on its host.
const RESET_TIMEOUT_MS: u64 = 30_000;

impl World {
    pub(super) fn start(&mut self, agent: usize, index: usize, attempt: AttemptId, spec: &JobSpec) {
        let life = self.agents[agent].life;
        let place = &mut self.agents[agent].builders[index].place;
        let process = Process {
            script: Script::of(spec),
            state: State::Starting,
            log_bytes: 0,
        };
        place.processes.insert(attempt, process);
        let pause = self.slowly(200, 5_000);
        self.after(
            pause,
            Happening::Exec {
                agent,
                index,
                life,
                attempt,
            },
        );
    }

    /// Mostly quick, at times not.
    pub(super) fn slowly(&mut self, usually: u64, at_times: u64) -> Duration {
        let slow = self.rng.per_mille(200);
        self.rng.millis(1, if slow { at_times } else { usually })
    }

    pub(super) fn exec(
        &mut self,
        agent: usize,
        index: usize,
        life: u64,
        attempt: AttemptId,
    ) -> Result<(), Broken> {
        if self.agents[agent].life != life {
            return Ok(());
        }
        let black_hole = self.agents[agent].builders[index].black_hole;
        let place = &mut self.agents[agent].builders[index].place;
        let other = place.running();
        let Some(process) = place.processes.get_mut(&attempt) else {
            return Ok(());
        };
        if process.state != State::Starting {
            return Ok(());
        }
        let script = process.script;
        if script.manner == Manner::Unstartable {
            place.processes.remove(&attempt);
            let event = Event::NotStarted {
                attempt,
                refusal: Refusal::Input,
                why: Reason::cut("the input is not there"),
            };
            self.tell(agent, index, event);
            return Ok(());
        }
        process.state = State::Running;
        if let Some(other) = other {
            return broken("I1", format!("{attempt} starts beside {other}"));
        }
        if !std::mem::take(&mut place.clean) || place.resetting.is_some() {
            return broken(
                "I8",
                format!("{attempt} starts on a builder that is not clean"),
            );
        }
        let execution = Execution {
            outcome: None,
            outputs: None,
            log_bytes: 0,
        };
        if self.checker.tally.insert(attempt, execution).is_some() {
            return broken("I1", format!("{attempt} is executed twice"));
        }
        let (boot, run) = (self.agents[agent].boot, script.run);
        let run = if black_hole {
            Duration::from_millis(20)
        } else {
            run
        };
        self.after(
            run,
            Happening::Exit {
                agent,
                index,
                boot,
                attempt,
            },
        );
        self.tell(agent, index, Event::Started { attempt });
        Ok(())
    }

    /// The run comes to its end by itself.
    pub(super) fn exit(&mut self, agent: usize, index: usize, boot: u64, attempt: AttemptId) {
        let builder = &self.agents[agent].builders[index];
        let Some(process) = builder.place.processes.get(&attempt) else {
            return;
        };
        if self.agents[agent].boot != boot || process.state != State::Running {
            return;
        }
        let script = process.script;
        if script.manner == Manner::Poison {
            self.strike_agent(Fault::Poison, agent);
            self.reboot(agent);
            let pause = self.rng.millis(5_000, 30_000);
            return self.after(pause, Happening::AgentStart { agent });
        }
        let outcome = if builder.black_hole {
            Outcome::Failed {
                kind: FailureKind::Build,
                why: Reason::cut("everything fails here"),
            }
        } else {
            script.outcome()
        };
        self.exited(agent, index, attempt, outcome);
    }

    fn exited(&mut self, agent: usize, index: usize, attempt: AttemptId, outcome: Outcome) {
        let place = &mut self.agents[agent].builders[index].place;
        let Some(process) = place.processes.get_mut(&attempt) else {
            return;
        };
        process.log_bytes = process.script.log_bytes;
        let report = EndReport {
            outcome: outcome.clone(),
            exit: Some(ExitStatus::Code(0)),
            usage: Usage::default(),
        };
        process.state = State::Exited(report.clone());
        if let Some(ran) = self.checker.tally.get_mut(&attempt) {
            ran.outcome = Some(outcome);
            ran.log_bytes = process.log_bytes;
        }
        self.tell(agent, index, Event::Ended { attempt, report });
    }

    pub(super) fn stop(&mut self, agent: usize, index: usize, attempt: AttemptId, grace: Duration) {
        let place = &mut self.agents[agent].builders[index].place;
        let Some(process) = place.processes.get(&attempt) else {
            return;
        };
        match process.state {
            State::Starting => {
                place.processes.remove(&attempt);
                let event = Event::NotStarted {
                    attempt,
                    refusal: Refusal::Input,
                    why: Reason::cut("stopped before it ran"),
                };
                self.tell(agent, index, event);
            }
            State::Running => {
                let longest = u64::try_from(grace.as_millis()).unwrap_or(0);
                let pause = self.rng.millis(0, longest);
                let boot = self.agents[agent].boot;
                self.after(
                    pause,
                    Happening::Killed {
                        agent,
                        index,
                        boot,
                        attempt,
                    },
                );
            }
            State::Stuck => {
                let why = Reason::cut("a process in state D");
                self.tell(agent, index, Event::Unkillable { attempt, why });
            }
            State::Exited(_) | State::Vanished => {}
        }
    }

    pub(super) fn killed(&mut self, agent: usize, index: usize, boot: u64, attempt: AttemptId) {
        let stubborn = self.rng.per_mille(300);
        let this = &mut self.agents[agent];
        let Some(process) = this.builders[index].place.processes.get_mut(&attempt) else {
            return;
        };
        if this.boot != boot || process.state != State::Running {
            return;
        }
        if process.script.manner == Manner::Unkillable && stubborn {
            process.state = State::Stuck;
            let why = Reason::cut("a process in state D");
            return self.tell(agent, index, Event::Unkillable { attempt, why });
        }
        let outcome = Outcome::Failed {
            kind: FailureKind::Build,
            why: Reason::cut("killed"),
        };
        self.exited(agent, index, attempt, outcome);
    }

    pub(super) fn seal_done(&mut self, agent: usize, index: usize, life: u64, attempt: AttemptId) {
        if self.agents[agent].life != life {
            return;
        }
        let place = &mut self.agents[agent].builders[index].place;
        let ran = place.processes.get(&attempt);
        let succeeded = ran.is_some_and(|process| {
            matches!(&process.state, State::Exited(end) if end.outcome == Outcome::Succeeded)
        });
        let manner = ran.map(|process| process.script.manner);
        if succeeded && manner == Some(Manner::LoseOutputs) && self.rng.per_mille(300) {
            let why = Reason::cut("the disk has a bad block");
            return self.tell(agent, index, Event::OutputsLost { attempt, why });
        }
        let hostile = succeeded && manner == Some(Manner::Hostile);
        let count = ran.filter(|_| succeeded && !hostile);
        let outputs = script::outputs(attempt, count.map_or(0, |process| process.script.outputs));
        let manifest = Manifest {
            outputs: list(outputs.clone()),
        };
        let bytes = postcard::to_stdvec(&manifest).expect("plain structs always encode");
        let report = SealReport {
            manifest: Digest::of(&bytes),
            manifest_bytes: bytes.len() as u64,
            outputs: u32::try_from(outputs.len()).unwrap_or(0),
            output_bytes: outputs.iter().map(|output| output.length).sum(),
            log_bytes: ran.map_or(0, |process| process.log_bytes),
            outcome: hostile.then(|| Outcome::Failed {
                kind: FailureKind::Outputs,
                why: Reason::cut("'../x' is refused"),
            }),
        };
        place.sealed.insert(attempt, report.clone());
        if let Some(ran) = self.checker.tally.get_mut(&attempt) {
            ran.outputs = Some(outputs);
            if let Some(outcome) = &report.outcome {
                ran.outcome = Some(outcome.clone());
            }
        }
        self.tell(agent, index, Event::Sealed { attempt, report });
    }

    pub(super) fn reset(
        &mut self,
        agent: usize,
        index: usize,
        nonce: CleanNonce,
    ) -> Result<(), Broken> {
        let life = self.agents[agent].life;
        let trouble = self.trouble();
        let place = &mut self.agents[agent].builders[index].place;
        if let Some(attempt) = place.running() {
            return broken("I8", format!("a reset runs beside {attempt}"));
        }
        place.clean = false;
        place.resetting = Some(nonce);
        let (fails, hangs) = (self.rng.per_mille(60), self.rng.per_mille(20));
        let spells = self.agents[agent].spells;
        let hangs = hangs && trouble || self.now < spells.resets_hang;
        let pause = if hangs {
            Duration::from_millis(RESET_TIMEOUT_MS)
        } else {
            self.rng.millis(5, 5_000)
        };
        let works = !(hangs || fails && trouble || self.now < spells.resets_fail);
        self.after(
            pause,
            Happening::ResetDone {
                agent,
                index,
                life,
                nonce,
                works,
            },
        );
        Ok(())
    }

    pub(super) fn reset_done(
        &mut self,
        agent: usize,
        index: usize,
        life: u64,
        nonce: CleanNonce,
        works: bool,
    ) {
        let this = &mut self.agents[agent];
        let place = &mut this.builders[index].place;
        if this.life != life || place.resetting != Some(nonce) {
            return;
        }
        place.resetting = None;
        place.clean = works;
        let probe_fails = self.rng.per_mille(500);
        let report = if works {
            ResetReport::Clean {
                reset: Duration::from_millis(10),
                probe: Duration::from_millis(1),
            }
        } else {
            ResetReport::Failed {
                stage: if probe_fails {
                    ResetStage::Probe
                } else {
                    ResetStage::Reset
                },
                failure: ScriptFailure::TimedOut {
                    after_ms: RESET_TIMEOUT_MS,
                },
                stdout: Blob::tail(b"out"),
                stderr: Blob::tail(b"err"),
            }
        };
        self.tell(agent, index, Event::ResetEnded { nonce, report });
    }

    pub(super) fn condition(&mut self, agent: usize, index: usize, fitness: Fitness) {
        let why = "simulated".to_owned();
        self.tell(agent, index, Event::Fitness { fitness, why });
    }

    pub(super) fn resume_uploads(&mut self, agent: usize, index: usize) {
        let uploads = self.agents[agent].builders[index].place.uploads.clone();
        for attempt in uploads {
            self.resume_upload(agent, index, attempt);
        }
    }

    pub(super) fn resume_upload(&mut self, agent: usize, index: usize, attempt: AttemptId) {
        let Some(conn) = self.agents[agent].conn else {
            return;
        };
        let pause = self.rng.millis(1, 300);
        self.after(
            pause,
            Happening::Upload {
                agent,
                index,
                conn,
                attempt,
            },
        );
    }

    /// One stretch of an attempt's bytes, and the next one planned.
    pub(super) fn upload(
        &mut self,
        agent: usize,
        index: usize,
        conn: ConnId,
        attempt: AttemptId,
    ) -> Result<(), Broken> {
        let this = &self.agents[agent];
        let place = &this.builders[index].place;
        let carries = self
            .network
            .get(conn)
            .is_some_and(|conn| conn.coordinator_open && !conn.cut);
        if this.conn != Some(conn) || !carries || !place.uploads.contains(&attempt) {
            return Ok(());
        }
        let sealed = place.sealed.get(&attempt).cloned();
        let log = place.processes.get(&attempt).map_or(0, |p| p.log_bytes);
        let done = self.carry(attempt, log, sealed.as_ref())?;
        if done && sealed.is_some() {
            return Ok(());
        }
        let pause = if sealed.is_some() {
            self.rng.millis(20, 1_500)
        } else {
            self.rng.millis(2_000, 15_000)
        };
        self.after(
            pause,
            Happening::Upload {
                agent,
                index,
                conn,
                attempt,
            },
        );
        Ok(())
    }
}
