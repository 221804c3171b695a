//! What a supervisor and the agent say to each other on the socket in the
//! attempt's directory. Each message is `length u16 LE | postcard`. The
//! supervisor pushes; the agent asks only to stop. A new connection is told
//! everything that is still true, so nothing depends on an earlier one.

use farmbell_protocol::bounded::Reason;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Supervisor to agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Notice {
    /// The recipe's process runs.
    Started,
    /// The log has this many bytes now.
    Log { length: u64 },
    /// The tree could not be proved empty within the patience after KILL.
    Unkillable { why: Reason },
    /// The exit record is durable; the supervisor ends now.
    Ended,
}

/// Agent to supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// TERM now, KILL after the grace. A shorter grace escalates.
    Stop { grace_ms: u64 },
    /// The same, because the host or the agent goes down: given back.
    Leave { grace_ms: u64 },
}

/// The largest message: a reason and its frame.
pub const MESSAGE_MAX: usize = 2048;

/// Appends one message.
pub fn write<T: Serialize>(message: &T, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0, 0]);
    let buffer = postcard::to_extend(message, std::mem::take(out))
        .expect("plain values of numbers and bounded text always encode");
    *out = buffer;
    let length =
        u16::try_from(out.len() - start - 2).expect("a message is far shorter than 64 KiB");
    out[start..start + 2].copy_from_slice(&length.to_le_bytes());
}

/// Takes one whole message from the front of `buffer`.
///
/// # Errors
/// If what stands there is no message.
pub fn take<T: DeserializeOwned>(buffer: &mut Vec<u8>) -> Result<Option<T>, postcard::Error> {
    let Some(length) = buffer.first_chunk::<2>() else {
        return Ok(None);
    };
    let length = usize::from(u16::from_le_bytes(*length));
    if length > MESSAGE_MAX {
        return Err(postcard::Error::DeserializeBadEncoding);
    }
    let Some(body) = buffer.get(2..2 + length) else {
        return Ok(None);
    };
    let message = postcard::from_bytes(body)?;
    buffer.drain(..2 + length);
    Ok(Some(message))
}
