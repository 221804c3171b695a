//! From a fresh connection to an open session: the Hello that the builders
//! contribute to, and the Welcome that answers it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::orders::Routes;
use super::{Keeper, Linked, Opened, SessionError, ToBuilder};
use crate::agent_to_coordinator::{AgentFrame, Hello, HelloAttempt, HelloBuilder, HelloEnd};
use crate::builder::Event;
use crate::client::framed::{FrameReceiver, FrameSender};
use crate::client::transport::Connection;
use crate::codec::{CodecError, FrameSet};
use crate::coordinator_to_agent::{CoordinatorFrame, Standing, Welcome};
use crate::id::{AttemptId, BuilderIndex, Seq};
use crate::version;

/// The Welcome takes a commit on the coordinator, behind those of all the
/// agents that came back with this one.
const WELCOME_TIME: Duration = Duration::from_secs(60);
/// A builder that takes longer to say what it holds is worth a warning. Its
/// word is waited for all the same: a Hello without it would be a lie.
const HELLO_SLOW: Duration = Duration::from_secs(5);

/// What the builders contributed, in the order of their indexes.
type Contributions = Vec<(HelloBuilder, Vec<HelloAttempt>)>;

impl Keeper {
    pub(super) async fn open(&mut self, connection: &Connection) -> Result<Opened, SessionError> {
        let contributions = self.contributions().await?;
        let (send, receive) = connection.open().await?;
        let mut send = FrameSender::<AgentFrame>::new(send);
        let mut receive = FrameReceiver::<CoordinatorFrame>::new(receive);
        self.say_hello(&mut send, &contributions);
        send.flush().await?;
        let welcomed = tokio::time::timeout(WELCOME_TIME, read_welcome(&mut receive)).await;
        let (welcome, answers) = welcomed.map_err(|_| SessionError::NoWelcome)??;
        let linked = self.accept(welcome).await?;
        let (routes, events) = distribute(&contributions, answers);
        Ok(Opened {
            send,
            receive,
            linked: Arc::new(linked),
            events,
            routes,
        })
    }

    async fn contributions(&mut self) -> Result<Contributions, SessionError> {
        self.builders.retain(|builder| {
            let gone = builder.is_closed();
            if gone {
                tracing::error!("a builder's task is gone: it is left out of the Hello");
            }
            !gone
        });
        let mut waiting = Vec::with_capacity(self.builders.len());
        for (position, builder) in self.builders.iter().enumerate() {
            let index = index_of(position);
            let (answer, contribution) = oneshot::channel();
            let asked = builder.send(ToBuilder::Hello { index, answer }).await;
            asked.map_err(|_| SessionError::BuilderGone(index))?;
            waiting.push((index, contribution));
        }
        let mut all = Vec::with_capacity(waiting.len());
        for (index, mut contribution) in waiting {
            let answered = match tokio::time::timeout(HELLO_SLOW, &mut contribution).await {
                Ok(answered) => answered,
                Err(_) => {
                    tracing::warn!(builder = %index, "a builder holds up the Hello");
                    contribution.await
                }
            };
            all.push(answered.map_err(|_| SessionError::BuilderGone(index))?);
        }
        Ok(all)
    }

    fn say_hello(&self, send: &mut FrameSender<AgentFrame>, contributions: &Contributions) {
        let count = |number: usize| u16::try_from(number).unwrap_or(u16::MAX);
        let attempts = contributions.iter().map(|(_, attempts)| attempts.len());
        let hello = Hello {
            version_min: version::MIN,
            version_max: version::CURRENT,
            features: version::Features::ALL,
            software: self.settings.software.clone(),
            boot: self.settings.boot,
            incarnation: self.settings.incarnation,
            spool: self.settings.spool,
            epoch: self.coordinator.epoch,
            previous_session: self.coordinator.session,
            builders: count(contributions.len()),
            attempts: count(attempts.sum()),
            facts: self.settings.facts.clone(),
        };
        send.queue(&hello.into());
        for (builder, _) in contributions {
            send.queue(&builder.clone().into());
        }
        for attempt in contributions.iter().flat_map(|(_, attempts)| attempts) {
            send.queue(&attempt.clone().into());
        }
        send.queue(&HelloEnd {}.into());
    }

    /// Checks what the Welcome says and makes it durable.
    async fn accept(&mut self, welcome: Welcome) -> Result<Linked, SessionError> {
        if version::negotiate(welcome.version, welcome.version).is_none() {
            return Err(SessionError::Version(welcome.version));
        }
        if welcome.epoch < self.coordinator.epoch {
            return Err(SessionError::LowerEpoch {
                known: self.coordinator.epoch,
                shown: welcome.epoch,
            });
        }
        let known = &mut self.coordinator;
        known.epoch = welcome.epoch;
        known.session = Some(welcome.session);
        for successor in welcome.successors.iter() {
            if !known.pins.contains(successor) {
                known.pins.push(*successor);
            }
        }
        let (memory, durable) = (Arc::clone(&self.memory), known.clone());
        tokio::task::spawn_blocking(move || memory.remember(&durable))
            .await
            .unwrap_or_else(|error| Err(std::io::Error::other(error)))
            .map_err(SessionError::Memory)?;
        tracing::info!(
            session = %welcome.session,
            agent = %welcome.agent,
            epoch = %welcome.epoch,
            "linked to the coordinator"
        );
        Ok(Linked {
            bulk_address: bulk_address(&welcome.bulk, &self.coordinator.address),
            welcome,
            pins: self.coordinator.pins.clone(),
        })
    }
}

/// What a Welcome says of builders and attempts.
#[derive(Default)]
struct Answers {
    acked: Vec<(BuilderIndex, Seq)>,
    standings: Vec<(AttemptId, Standing)>,
}

async fn read_welcome(
    receive: &mut FrameReceiver<CoordinatorFrame>,
) -> Result<(Welcome, Answers), SessionError> {
    let first = receive.expect_next().await?;
    let kind = first.kind();
    let CoordinatorFrame::Welcome(welcome) = first else {
        return Err(CodecError::OutOfPlace { kind }.into());
    };
    let mut answers = Answers::default();
    loop {
        let frame = receive.expect_next().await?;
        let kind = frame.kind();
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "whatever else there is has no place before WelcomeEnd"
        )]
        match frame {
            CoordinatorFrame::WelcomeBuilder(builder) => {
                answers.acked.push((builder.index, builder.acked));
            }
            CoordinatorFrame::WelcomeAttempt(attempt) => {
                answers.standings.push((attempt.attempt, attempt.standing));
            }
            CoordinatorFrame::WelcomeEnd(_) => return Ok((welcome, answers)),
            _ => return Err(CodecError::OutOfPlace { kind }.into()),
        }
    }
}

/// Gives each builder its own part of the answers.
fn distribute(contributions: &Contributions, answers: Answers) -> (Routes, Vec<Event>) {
    let mut routes = Routes::new(contributions.len());
    for attempt in contributions.iter().flat_map(|(_, attempts)| attempts) {
        routes.learn(attempt.attempt, attempt.builder);
    }
    let mut standings: Vec<Vec<_>> = contributions.iter().map(|_| Vec::new()).collect();
    for (attempt, standing) in answers.standings {
        match routes.find(attempt) {
            Some(builder) => {
                if let Some(own) = standings.get_mut(usize::from(builder.0)) {
                    own.push((attempt, standing));
                }
            }
            // Nobody here holds it: the coordinator counts it as lost.
            None => tracing::info!(%attempt, ?standing, "not held here"),
        }
    }
    let events = standings
        .into_iter()
        .enumerate()
        .map(|(position, standings)| {
            let index = index_of(position);
            let acked = answers.acked.iter().find(|(of, _)| *of == index);
            Event::Linked {
                index,
                acked: acked.map_or(Seq(0), |(_, seq)| *seq),
                standings,
            }
        });
    let events = events.collect();
    (routes, events)
}

fn index_of(position: usize) -> BuilderIndex {
    BuilderIndex(u16::try_from(position).expect("an agent has fewer than 65,536 builders"))
}

/// An empty host in the Welcome's address is the control connection's own.
fn bulk_address(said: &str, control: &str) -> String {
    match (said.strip_prefix(':'), control.rsplit_once(':')) {
        (Some(port), Some((host, _))) => format!("{host}:{port}"),
        (Some(_) | None, _) => said.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bulk_address_without_a_host_is_the_control_connections_host() {
        assert_eq!(bulk_address(":8441", "[::1]:8440"), "[::1]:8441");
        assert_eq!(bulk_address("b:1", "a:2"), "b:1");
    }
}
