//! The seam between the conversation and the network: connections that carry
//! ordered byte streams, prove the peer's key, and end with a named code.
//!
//! Everything above this file speaks these types, so that TLS over TCP can
//! carry the same frames where UDP is blocked: a second carrier is made beside
//! `quic.rs` and hidden in here. Owns no policy: no time limits, no retries.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use crate::client::tls;
use crate::id::KeyHash;
use crate::version::CloseCode;

/// For the peer to hear that this side has closed.
const FAREWELL: Duration = Duration::from_secs(1);

/// A live connection. Cheap to clone; it ends by [`close`](Self::close), by
/// the peer, or when every clone and stream is gone.
#[derive(Clone)]
pub struct Connection {
    quic: quinn::Connection,
    peer: KeyHash,
    /// The socket this side dialled from, to wait for its last packet.
    dialled_from: Option<quinn::Endpoint>,
}

/// The sending half of a stream.
#[derive(Debug)]
pub struct Sender {
    quic: quinn::SendStream,
}

/// The receiving half of a stream.
#[derive(Debug)]
pub struct Receiver {
    quic: quinn::RecvStream,
}

/// Why a connection is over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    /// The other side ended it under a name.
    #[error("closed by the other side: {code} ({}){}", code.meaning(), Particulars(reason))]
    ByPeer { code: CloseCode, reason: String },
    /// The other side ended it under a number that only a newer version knows.
    #[error(
        "closed by the other side with the unknown code {number}{}",
        Particulars(reason)
    )]
    Unnamed { number: u64, reason: String },
    /// This side ended it.
    #[error("closed by this side")]
    Here,
    /// Nothing was heard for the idle timeout.
    #[error("nothing was heard from the other side for too long")]
    Silence,
    /// The peer does not know the connection: it has restarted.
    #[error("the other side has restarted")]
    Restarted,
    /// The peer speaks no protocol known here.
    #[error("the other side speaks no version of this protocol that is known here ({why})")]
    Version { why: String },
    /// The transport itself failed.
    #[error("the connection failed: {why}")]
    Failed { why: String },
}

/// Why bytes on one stream came to an end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    #[error(transparent)]
    Closed(#[from] Closed),
    /// The peer gave up this stream; others may go on.
    #[error("the other side dropped the stream ({number})")]
    Dropped { number: u64 },
}

/// What a connection has moved so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    pub sent_bytes: u64,
    pub received_bytes: u64,
    pub sent_packets: u64,
    pub lost_packets: u64,
    pub round_trip: Duration,
}

impl Connection {
    /// Takes a connection whose handshake is complete.
    pub(crate) fn of(
        quic: quinn::Connection,
        dialled_from: Option<quinn::Endpoint>,
    ) -> Result<Self, Closed> {
        let identity = quic.peer_identity().and_then(|any| {
            any.downcast::<Vec<rustls::pki_types::CertificateDer<'static>>>()
                .ok()
        });
        let certificate = identity.as_ref().and_then(|chain| chain.first());
        let peer = certificate.and_then(|certificate| tls::key_hash(certificate).ok());
        let why = || "the other side showed no key".to_owned();
        let peer = peer.ok_or_else(|| Closed::Failed { why: why() })?;
        Ok(Self {
            quic,
            peer,
            dialled_from,
        })
    }

    /// Opens a stream in both directions; waits while the peer allows no more.
    ///
    /// # Errors
    /// If the connection is over.
    pub async fn open(&self) -> Result<(Sender, Receiver), Closed> {
        let (send, receive) = self.quic.open_bi().await?;
        Ok((Sender { quic: send }, Receiver { quic: receive }))
    }

    /// The next stream that the peer opens. Safe to cancel.
    ///
    /// # Errors
    /// If the connection is over.
    pub async fn accept(&self) -> Result<(Sender, Receiver), Closed> {
        let (send, receive) = self.quic.accept_bi().await?;
        Ok((Sender { quic: send }, Receiver { quic: receive }))
    }

    /// Ends the connection at once; what was not acknowledged may be lost.
    pub fn close(&self, code: CloseCode, reason: &str) {
        let number = quinn::VarInt::from_u32(code.number());
        self.quic.close(number, reason.as_bytes());
    }

    /// Waits for the connection's end and says why. Safe to cancel.
    pub async fn closed(&self) -> Closed {
        self.quic.closed().await.into()
    }

    /// Waits until the peer was told of the end of a connection that this side
    /// dialled and closed.
    pub async fn drained(&self) {
        if let Some(endpoint) = &self.dialled_from {
            let told = tokio::time::timeout(FAREWELL, endpoint.wait_idle()).await;
            if told.is_err() {
                tracing::debug!("the other side may learn of the end by silence only");
            }
        }
    }

    /// The key whose possession the peer has proved.
    #[must_use]
    pub const fn peer_key(&self) -> KeyHash {
        self.peer
    }

    #[must_use]
    pub fn remote_address(&self) -> SocketAddr {
        self.quic.remote_address()
    }

    #[must_use]
    pub fn traffic(&self) -> Traffic {
        let stats = self.quic.stats();
        Traffic {
            sent_bytes: stats.udp_tx.bytes,
            received_bytes: stats.udp_rx.bytes,
            sent_packets: stats.path.sent_packets,
            lost_packets: stats.path.lost_packets,
            round_trip: stats.path.rtt,
        }
    }
}

impl Sender {
    /// Sends all bytes; waits while the peer or the network takes no more.
    /// Not safe to cancel: some of the bytes may have been sent.
    ///
    /// # Errors
    /// If the stream or the connection is over.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), StreamError> {
        Ok(self.quic.write_all(bytes).await?)
    }

    /// As [`send`](Self::send), without copying.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn send_owned(&mut self, bytes: Bytes) -> Result<(), StreamError> {
        Ok(self.quic.write_chunk(bytes).await?)
    }

    /// Says that no more bytes follow. What was sent still arrives.
    pub fn finish(&mut self) {
        if self.quic.finish().is_err() {
            tracing::trace!("the stream was finished or reset before");
        }
    }

    /// Waits until the peer has all bytes of a finished stream, or wants none.
    pub async fn settled(&mut self) {
        if let Err(error) = self.quic.stopped().await {
            tracing::trace!(%error, "the connection ended before the stream settled");
        }
    }
}

impl Receiver {
    /// Reads what is there, up to the buffer's size; `None` at the end of the
    /// stream. Safe to cancel.
    ///
    /// # Errors
    /// If the stream or the connection is over.
    pub async fn receive(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, StreamError> {
        Ok(self.quic.read(buffer).await?)
    }

    /// As [`receive`](Self::receive), without copying.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub async fn receive_owned(&mut self, max: usize) -> Result<Option<Bytes>, StreamError> {
        let chunk = self.quic.read_chunk(max, true).await?;
        Ok(chunk.map(|chunk| chunk.bytes))
    }
}

impl Closed {
    /// The name of this end, where it has one.
    #[must_use]
    pub const fn code(&self) -> Option<CloseCode> {
        match self {
            Self::ByPeer { code, .. } => Some(*code),
            Self::Version { .. } => Some(CloseCode::Version),
            Self::Unnamed { .. }
            | Self::Here
            | Self::Silence
            | Self::Restarted
            | Self::Failed { .. } => None,
        }
    }

    /// How long the peer asked to wait before dialling again: a reason that
    /// begins with `after-ms=N`.
    #[must_use]
    pub fn wait_wished(&self) -> Option<Duration> {
        let (Self::ByPeer { reason, .. } | Self::Unnamed { reason, .. }) = self else {
            return None;
        };
        let digits = reason.strip_prefix("after-ms=")?;
        let end = digits
            .find(|letter: char| !letter.is_ascii_digit())
            .unwrap_or(digits.len());
        digits[..end].parse().ok().map(Duration::from_millis)
    }
}

/// `: text`, or nothing.
struct Particulars<'a>(&'a str);

impl fmt::Display for Particulars<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            Ok(())
        } else {
            write!(f, ": {}", self.0)
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("remote", &self.remote_address())
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

/// Reason bytes come from the peer: bounded and made printable.
fn printable(reason: &[u8]) -> String {
    let text = String::from_utf8_lossy(reason);
    text.chars()
        .filter(|letter| !letter.is_control())
        .take(300)
        .collect()
}

/// The TLS alert `no_application_protocol`, as QUIC numbers it.
const NO_COMMON_ALPN: u8 = 120;

impl From<quinn::ConnectionError> for Closed {
    fn from(error: quinn::ConnectionError) -> Self {
        use quinn::ConnectionError as E;
        let alpn = quinn::TransportErrorCode::crypto(NO_COMMON_ALPN);
        match error {
            E::ApplicationClosed(close) => {
                let reason = printable(&close.reason);
                let number = close.error_code.into_inner();
                match CloseCode::from_number(number) {
                    Some(code) => Self::ByPeer { code, reason },
                    None => Self::Unnamed { number, reason },
                }
            }
            E::LocallyClosed => Self::Here,
            E::TimedOut => Self::Silence,
            E::Reset => Self::Restarted,
            E::VersionMismatch => Self::Version {
                why: "no QUIC version in common".to_owned(),
            },
            E::ConnectionClosed(close) if close.error_code == alpn => Self::Version {
                why: printable(&close.reason),
            },
            E::TransportError(error) if error.code == alpn => Self::Version {
                why: printable(error.reason.as_bytes()),
            },
            E::ConnectionClosed(close) => Self::Failed {
                why: close.to_string(),
            },
            error @ (E::TransportError(_) | E::CidsExhausted) => Self::Failed {
                why: error.to_string(),
            },
        }
    }
}

impl From<quinn::WriteError> for StreamError {
    fn from(error: quinn::WriteError) -> Self {
        use quinn::WriteError as E;
        match error {
            E::Stopped(code) => Self::Dropped {
                number: code.into_inner(),
            },
            E::ConnectionLost(error) => Self::Closed(error.into()),
            E::ClosedStream | E::ZeroRttRejected => Self::Dropped { number: 0 },
        }
    }
}

impl From<quinn::ReadError> for StreamError {
    fn from(error: quinn::ReadError) -> Self {
        use quinn::ReadError as E;
        match error {
            E::Reset(code) => Self::Dropped {
                number: code.into_inner(),
            },
            E::ConnectionLost(error) => Self::Closed(error.into()),
            E::ClosedStream | E::IllegalOrderedRead | E::ZeroRttRejected => {
                Self::Dropped { number: 0 }
            }
        }
    }
}
