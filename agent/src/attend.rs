//! Attending one attempt on this host: making its places, fetching its inputs,
//! having its supervisor started, and passing on what that tells, to its end.
//! Owns the line to the supervisor; decides nothing (the brain does).
//!
//! A cut of the line is no end: the lock says whether the supervisor lives.

use std::io;
use std::time::Duration;

use farmbell_protocol::agent_to_coordinator::Refusal;
use farmbell_protocol::bounded::Reason;
use farmbell_protocol::builder::{EndReport, Event};
use farmbell_protocol::client::bulk::{Cut, LogGrowth};
use farmbell_protocol::id::AttemptId;
use farmbell_protocol::outcome::{Outcome, Usage};
use farmbell_protocol::spec::JobSpec;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot, watch};

use crate::attempt::{AttemptDir, ExitRecord, Found};
use crate::failpoint::{self, Failpoint};
use crate::host::{BuilderHost, blocking};
use crate::places::{self, Plan, Refused, Spare};
use crate::supervisor::talk::{self, Notice, Order};

/// Orders that may wait for one attempt: each repeats or escalates the last.
pub(crate) const ORDERS_MAX: usize = 8;

/// Lines to one supervisor that may break before it is given up.
const LINES_MAX: usize = 8;

/// One attempt's attendant.
pub(crate) struct Attendant {
    pub(crate) host: BuilderHost,
    pub(crate) attempt: AttemptId,
    pub(crate) orders: mpsc::Receiver<Order>,
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) growth: watch::Sender<LogGrowth>,
}

/// What the next attempt starts in, once it is made.
pub(crate) type Making = oneshot::Receiver<io::Result<Spare>>;

/// How the conversation with a supervisor went.
enum Line {
    /// It said that the exit record is there.
    Ended,
    Cut(io::Error),
}

impl Attendant {
    /// Starts the attempt and stays to its end.
    pub(crate) async fn start(mut self, spec: Box<JobSpec>, spare: Option<Making>) {
        match self.prepare(&spec, spare).await {
            Ok(stream) => self.follow(stream).await,
            Err(Refused { refusal, why }) => {
                let attempt = self.attempt;
                self.tell(Event::NotStarted {
                    attempt,
                    refusal,
                    why,
                })
                .await;
            }
        }
    }

    /// Takes up an attempt whose supervisor lives.
    pub(crate) async fn adopt(mut self) {
        let (host, attempt) = (self.host.clone(), self.attempt);
        let connected = blocking(move || host.launcher.connect(&host.name, attempt)).await;
        match connected.flatten() {
            Ok(stream) => self.follow(stream).await,
            Err(error) => {
                tracing::warn!(%attempt, %error, "a supervisor does not answer");
                self.conclude().await;
            }
        }
    }

    async fn prepare(
        &mut self,
        spec: &JobSpec,
        spare: Option<Making>,
    ) -> Result<std::os::unix::net::UnixStream, Refused> {
        // Nobody waits for one that is not there yet, or could not be made.
        let spare = spare.and_then(|mut made| made.try_recv().ok()?.ok());
        let disk_bytes = spec.limits.disk_bytes;
        let make = move |dir: &AttemptDir| places::make(dir, spare, disk_bytes);
        if spec.inputs.is_empty() {
            return self.launch(spec, make).await;
        }
        let dir = self.host.dir(self.attempt);
        blocking(move || make(&dir))
            .await
            .map_err(|error| broken(&error))??;
        tokio::select! {
            fetched = fetch_inputs(&self.host, self.attempt, spec) => fetched?,
            // Whatever is ordered about an attempt that does not run yet, it is to end.
            _ = self.orders.recv() => {
                let why = Reason::cut("stopped while its inputs were fetched");
                return Err(Refused { refusal: Refusal::Input, why });
            }
        }
        self.launch(spec, |_| Ok(())).await
    }

    async fn launch(
        &self,
        spec: &JobSpec,
        make: impl FnOnce(&AttemptDir) -> Result<(), Refused> + Send + 'static,
    ) -> Result<std::os::unix::net::UnixStream, Refused> {
        let (host, attempt, spec) = (self.host.clone(), self.attempt, spec.clone());
        blocking(move || {
            let dir = host.dir(attempt);
            make(&dir)?;
            let plan = Plan {
                builder: &host.name,
                attempt,
                spec: &spec,
                limits: &host.limits,
                recipes: &host.recipes,
                secrets: host.secrets.as_deref(),
                chroots: host.chroots.as_deref(),
                place: &host.place,
            };
            places::furnish(&dir, &plan)?;
            let started = host.launcher.start(&host.name, attempt);
            started.map_err(|error| broken(&error))
        })
        .await
        .map_err(|error| broken(&error))?
    }

    /// Listens to the supervisor until it is gone; a line that is only cut is
    /// taken up again.
    async fn follow(&mut self, stream: std::os::unix::net::UnixStream) {
        let mut next = Some(stream);
        for _ in 0..LINES_MAX {
            let Some(stream) = next.take() else { break };
            let line = match stream
                .set_nonblocking(true)
                .and_then(|()| UnixStream::from_std(stream))
            {
                Ok(stream) => self.listen(stream).await,
                Err(error) => Line::Cut(error),
            };
            let Line::Cut(error) = line else { break };
            tracing::warn!(attempt = %self.attempt, %error, "the line to a supervisor was cut");
            let (host, attempt) = (self.host.clone(), self.attempt);
            next = blocking(move || host.launcher.connect(&host.name, attempt))
                .await
                .flatten()
                .ok();
        }
        failpoint::pass(Failpoint::EndSeen);
        self.conclude().await;
    }

    async fn listen(&mut self, mut stream: UnixStream) -> Line {
        let (mut reader, mut writer) = stream.split();
        let mut inbox = Vec::new();
        let mut bytes = [0; talk::MESSAGE_MAX];
        loop {
            tokio::select! {
                read = reader.read(&mut bytes) => match read {
                    Ok(0) => return Line::Cut(io::ErrorKind::UnexpectedEof.into()),
                    Ok(count) => inbox.extend_from_slice(&bytes[..count]),
                    Err(error) => return Line::Cut(error),
                },
                Some(order) = self.orders.recv() => {
                    let mut message = Vec::new();
                    talk::write(&order, &mut message);
                    if let Err(error) = writer.write_all(&message).await {
                        return Line::Cut(error);
                    }
                }
            }
            loop {
                match talk::take(&mut inbox) {
                    Ok(Some(Notice::Ended)) => return Line::Ended,
                    Ok(Some(notice)) => self.heard(notice).await,
                    Ok(None) => break,
                    Err(error) => return Line::Cut(io::Error::other(error)),
                }
            }
        }
    }

    async fn heard(&mut self, notice: Notice) {
        let attempt = self.attempt;
        match notice {
            Notice::Started => self.tell(Event::Started { attempt }).await,
            Notice::Log { length } => {
                self.growth.send_modify(|growth| growth.length = length);
            }
            Notice::Unkillable { why } => self.tell(Event::Unkillable { attempt, why }).await,
            Notice::Ended => {}
        }
    }

    /// The line is over: what the directory says stands.
    async fn conclude(&mut self) {
        let (host, attempt) = (self.host.clone(), self.attempt);
        let dir = host.dir(attempt);
        // A record is the last thing its supervisor writes, a few hundred bytes
        // that are in memory still: no thread is worth its wait.
        if let Ok(Some(record)) = dir.read_exit() {
            return self.ended(record).await;
        }
        // Whoever still holds the lock is about to write one, or to die.
        let found = blocking(move || {
            dir.open()?.lock()?;
            dir.look()
        })
        .await
        .flatten();
        match found {
            Ok(Found::Ended(record)) => self.ended(*record).await,
            Ok(Found::Running | Found::Died | Found::NeverRan) => self.died().await,
            Err(error) => {
                tracing::error!(%attempt, %error, "an attempt's directory cannot be read");
                self.died().await;
            }
        }
    }

    async fn ended(&mut self, record: ExitRecord) {
        self.growth.send_replace(growth_of(&record));
        let attempt = self.attempt;
        let report = record.report;
        self.tell(Event::Ended { attempt, report }).await;
    }

    async fn died(&mut self) {
        let (host, attempt) = (self.host.clone(), self.attempt);
        let cleared = blocking(move || {
            let proved = host.launcher.clear(&host.name, attempt);
            let length = std::fs::metadata(host.dir(attempt).log()).map_or(0, |meta| meta.len());
            (proved, length)
        });
        let (proved, length) = match cleared.await {
            Ok((Ok(proved), length)) => (proved, length),
            Ok((Err(error), length)) => {
                tracing::error!(%attempt, %error, "what a dead supervisor left cannot be ended");
                (false, length)
            }
            Err(error) => {
                tracing::error!(%attempt, %error, "clearing up failed");
                (false, 0)
            }
        };
        if !proved {
            let why = "a supervisor died and nothing proves its build ended; restart the host";
            let why = Reason::cut(why);
            self.tell(Event::Unkillable { attempt, why }).await;
        }
        self.growth.send_replace(LogGrowth {
            length,
            cuts: Vec::new(),
            ended: true,
        });
        let why = Reason::cut("its supervisor died with it and left no exit record");
        let report = EndReport {
            outcome: Outcome::SupervisorLost { why },
            exit: None,
            usage: Usage::default(),
        };
        self.tell(Event::Ended { attempt, report }).await;
    }

    async fn tell(&self, event: Event) {
        if self.events.send(event).await.is_err() {
            tracing::debug!(attempt = %self.attempt, "the builder's task is gone");
        }
    }
}

/// The whole log of a run that is over.
pub(crate) fn growth_of(record: &ExitRecord) -> LogGrowth {
    let cut = record.log.cut.map(|cut| Cut {
        offset: cut.offset,
        dropped: cut.dropped,
    });
    LogGrowth {
        length: record.log.length,
        cuts: cut.into_iter().collect(),
        ended: true,
    }
}

/// TERM now, KILL after this long.
pub(crate) fn stop_after(grace: Duration) -> Order {
    Order::Stop {
        grace_ms: u64::try_from(grace.as_millis()).unwrap_or(u64::MAX),
    }
}

async fn fetch_inputs(
    host: &BuilderHost,
    attempt: AttemptId,
    spec: &JobSpec,
) -> Result<(), Refused> {
    let inputs = host.dir(attempt).inputs();
    for input in spec.inputs.iter() {
        let to = inputs.join(input.name.as_str());
        if let Some(parent) = to.parent() {
            let parent = parent.to_owned();
            let made = blocking(move || std::fs::create_dir_all(parent)).await;
            made.flatten().map_err(|error| broken(&error))?;
        }
        let fetched = host
            .bulk
            .fetch_input(attempt, input.digest, input.length, to);
        fetched.await.map_err(|error| Refused {
            refusal: Refusal::Input,
            why: Reason::cut(format!("the input '{}': {error}", input.name)),
        })?;
    }
    Ok(())
}

fn broken(error: &io::Error) -> Refused {
    Refused {
        refusal: Refusal::Unfit,
        why: Reason::cut(format!("the attempt cannot be started: {error}")),
    }
}
