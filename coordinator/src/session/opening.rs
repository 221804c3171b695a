//! What a connection says first: a Join, or a Hello in as many frames as it
//! announces. Owns the completeness of a Hello: counts and indexes add up
//! before the farm sees it. What it claims is the farm's to judge.

use farmbell_protocol::agent_to_coordinator::{
    AgentFrame, Hello, HelloAttempt, HelloBuilder, Join,
};
use farmbell_protocol::client::framed::FrameReceiver;
use farmbell_protocol::codec::{CodecError, FrameSet};
use farmbell_protocol::version::{Features, MIN, negotiate};

use super::SessionEnd;

/// Builders of one agent: what a Hello may make the coordinator hold.
const BUILDERS_MAX: u16 = 1024;
/// Attempts of one agent: every builder's backlog and then some.
const ATTEMPTS_MAX: u16 = 4096;

/// Bytes of a whole Hello: a peer that nobody knows yet can make this side
/// hold no more.
const HELLO_BYTES_MAX: u64 = 2 << 20;

/// A whole opening.
#[derive(Debug)]
pub(super) enum Opening {
    Join(Join),
    Hello {
        hello: Box<Hello>,
        builders: Vec<HelloBuilder>,
        attempts: Vec<HelloAttempt>,
    },
}

impl Opening {
    /// What both sides speak.
    pub(super) fn version(&self) -> Result<(u16, Features), SessionEnd> {
        match self {
            Self::Join(_) => Ok((MIN, Features::default())),
            Self::Hello { hello, .. } => {
                let (min, max) = (hello.version_min, hello.version_max);
                let version = negotiate(min, max).ok_or(SessionEnd::Version { min, max })?;
                Ok((version, Features::ALL.common(hello.features)))
            }
        }
    }
}

/// Reads the rest of what `first` begins.
pub(super) async fn read_opening(
    first: AgentFrame,
    receive: &mut FrameReceiver<AgentFrame>,
) -> Result<Opening, SessionEnd> {
    let kind = first.kind();
    if let AgentFrame::Join(join) = first {
        return Ok(Opening::Join(join));
    }
    let AgentFrame::Hello(hello) = first else {
        return Err(CodecError::OutOfPlace { kind }.into());
    };
    if hello.builders > BUILDERS_MAX || hello.attempts > ATTEMPTS_MAX {
        return Err(SessionEnd::BadHello(format!(
            "{} builders and {} attempts are more than {BUILDERS_MAX} and {ATTEMPTS_MAX}",
            hello.builders, hello.attempts
        )));
    }
    let (mut builders, mut attempts) = (Vec::new(), Vec::new());
    loop {
        let frame = receive.expect_next().await?;
        if receive.received_bytes() > HELLO_BYTES_MAX {
            let text = format!("it is longer than {HELLO_BYTES_MAX} bytes");
            return Err(SessionEnd::BadHello(text));
        }
        let kind = frame.kind();
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "whatever else there is has no place before HelloEnd"
        )]
        match frame {
            AgentFrame::HelloBuilder(builder) => {
                room(builders.len(), hello.builders, "builders")?;
                check_index(&builder, &builders, &hello)?;
                builders.push(builder);
            }
            AgentFrame::HelloAttempt(attempt) => {
                room(attempts.len(), hello.attempts, "attempts")?;
                check_attempt(&attempt, &attempts, &hello)?;
                attempts.push(attempt);
            }
            AgentFrame::HelloEnd(_) => break,
            _ => return Err(CodecError::OutOfPlace { kind }.into()),
        }
    }
    if builders.len() != usize::from(hello.builders)
        || attempts.len() != usize::from(hello.attempts)
    {
        return Err(SessionEnd::BadHello(format!(
            "{} builders and {} attempts came, {} and {} were announced",
            builders.len(),
            attempts.len(),
            hello.builders,
            hello.attempts
        )));
    }
    Ok(Opening::Hello {
        hello: Box::new(hello),
        builders,
        attempts,
    })
}

fn room(had: usize, announced: u16, what: &str) -> Result<(), SessionEnd> {
    if had < usize::from(announced) {
        return Ok(());
    }
    let text = format!("more {what} came than the {announced} that were announced");
    Err(SessionEnd::BadHello(text))
}

fn check_index(
    builder: &HelloBuilder,
    before: &[HelloBuilder],
    hello: &Hello,
) -> Result<(), SessionEnd> {
    let twice = before
        .iter()
        .any(|other| other.index == builder.index || other.name == builder.name);
    if twice || builder.index.0 >= hello.builders {
        let (name, index) = (&builder.name, builder.index);
        let text = format!("builder '{name}' has the index or name of another (index {index})");
        return Err(SessionEnd::BadHello(text));
    }
    Ok(())
}

fn check_attempt(
    attempt: &HelloAttempt,
    before: &[HelloAttempt],
    hello: &Hello,
) -> Result<(), SessionEnd> {
    let twice = before.iter().any(|other| other.attempt == attempt.attempt);
    if twice || attempt.builder.0 >= hello.builders {
        let (id, builder) = (attempt.attempt, attempt.builder);
        let text = format!("attempt {id} comes twice, or of a builder {builder} that does not");
        return Err(SessionEnd::BadHello(text));
    }
    Ok(())
}
