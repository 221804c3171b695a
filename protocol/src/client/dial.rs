//! Finding the coordinator: a name and a port become a connection to the key
//! that was expected, or an error that says what to mend.
//!
//! Owns the search over a name's addresses and the time it may take. Keeps no
//! connection and never tries again by itself (`session.rs` does).

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;

use crate::client::identity::Identity;
use crate::client::quic::{self, HandshakeError, Profile};
use crate::client::transport::{Closed, Connection};
use crate::id::KeyHash;

/// A handshake that takes longer is given up: three of its packets were lost.
pub const DIAL_TIME: Duration = Duration::from_secs(10);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("the coordinator's address `{address}` is not `host:port`")]
    Address { address: String },
    #[error(
        "the name in `{address}` cannot be resolved ({source}): look at DNS or /etc/hosts of this host"
    )]
    Dns {
        address: String,
        source: std::io::Error,
    },
    #[error("the name in `{address}` has no address")]
    NoAddress { address: String },
    #[error("nothing listens on {address}/udp: is farmbell-coordinator running there?")]
    NothingListens { address: SocketAddr },
    #[error(
        "no answer from {address}/udp within {} s: is the host up, and does every firewall on the way let this UDP port pass?",
        DIAL_TIME.as_secs()
    )]
    NoAnswer { address: SocketAddr },
    #[error(
        "{address} holds the key {got}, not the expected one: it is another coordinator, or someone in between; if the coordinator's key was replaced, join again with a new token"
    )]
    OtherKey { address: SocketAddr, got: KeyHash },
    #[error("{address}: {closed}")]
    Refused { address: SocketAddr, closed: Closed },
    #[error("no UDP socket to be had here: {0}")]
    Local(std::io::Error),
    #[error("this side's key cannot be used: {0}")]
    Key(rustls::Error),
}

impl DialError {
    /// Why the connection was over before it began, if the peer said so.
    #[must_use]
    pub const fn closed(&self) -> Option<&Closed> {
        match self {
            Self::Refused { closed, .. } => Some(closed),
            Self::Address { .. }
            | Self::Dns { .. }
            | Self::NoAddress { .. }
            | Self::NothingListens { .. }
            | Self::NoAnswer { .. }
            | Self::OtherKey { .. }
            | Self::Local(_)
            | Self::Key(_) => None,
        }
    }
}

/// Dials `host:port` until one of the name's addresses answers with one of the
/// keys in `pins`.
///
/// # Errors
/// The last address's failure.
pub async fn dial(
    address: &str,
    identity: &Identity,
    pins: &[KeyHash],
    profile: Profile,
) -> Result<Connection, DialError> {
    if address
        .rsplit_once(':')
        .is_none_or(|(host, port)| host.is_empty() || port.parse::<u16>().is_err())
    {
        let address = address.to_owned();
        return Err(DialError::Address { address });
    }
    let found = tokio::net::lookup_host(address)
        .await
        .map_err(|source| DialError::Dns {
            address: address.to_owned(),
            source,
        })?;
    let mut failure = DialError::NoAddress {
        address: address.to_owned(),
    };
    let pins: Arc<[KeyHash]> = pins.into();
    for address in found {
        match dial_one(address, identity, Arc::clone(&pins), profile).await {
            Ok(connection) => return Ok(connection),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

async fn dial_one(
    address: SocketAddr,
    identity: &Identity,
    pins: Arc<[KeyHash]>,
    profile: Profile,
) -> Result<Connection, DialError> {
    let handshake = quic::connect(address, identity, pins, profile);
    let answered = tokio::select! {
        answered = tokio::time::timeout(DIAL_TIME, handshake) => answered,
        () = turned_away(address) => return Err(DialError::NothingListens { address }),
    };
    let Ok(answered) = answered else {
        return Err(DialError::NoAnswer { address });
    };
    answered.map_err(|error| match error {
        HandshakeError::Local(error) => DialError::Local(error),
        HandshakeError::Tls(error) => DialError::Key(error),
        HandshakeError::OtherKey(got) => DialError::OtherKey { address, got },
        HandshakeError::Closed(Closed::Silence) => DialError::NoAnswer { address },
        HandshakeError::Closed(closed) => DialError::Refused { address, closed },
    })
}

/// Ends when the host says that nothing listens on the port: a plain socket
/// hears that, quinn's does not, and would wait out its time while the
/// coordinator restarts.
async fn turned_away(address: SocketAddr) {
    let Ok(probe) = refused(address).await else {
        return std::future::pending().await;
    };
    match probe {
        true => (),
        false => std::future::pending().await,
    }
}

async fn refused(address: SocketAddr) -> std::io::Result<bool> {
    let local: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(local).await?;
    socket.connect(address).await?;
    // One byte is no QUIC packet: a listener drops it.
    socket.send(&[0]).await?;
    match socket.recv(&mut [0; 8]).await {
        Ok(_) => Ok(false),
        Err(error) => Ok(error.kind() == std::io::ErrorKind::ConnectionRefused),
    }
}
