//! QUIC by quinn, with settings for a farm instead of quinn's for the web.
//!
//! Owns sockets, windows and timers, and the making of
//! [`Connection`]s on both sides. Two profiles:
//! *control* carries small frames and must never wait behind anything, *bulk*
//! carries logs and files on sockets of its own. Invariant: what a hostile
//! peer can make this side hold is bounded by the windows below.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    ClientConfig, Endpoint, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, ServerConfig,
    TokioRuntime, TransportConfig, VarInt, congestion,
};
use quinn_proto::HashedConnectionIdGenerator;
use ring::{hkdf, hmac};

use crate::client::backoff::jittered;
use crate::client::identity::{self, Identity, IdentityError, SERVER_NAME};
use crate::client::tls;
use crate::client::transport::{Closed, Connection};
use crate::id::KeyHash;

/// Silence that ends a connection: three keep-alives may be lost.
const IDLE: Duration = Duration::from_secs(40);
/// The agent's keep-alive, and only the agent's: one side is enough, and many
/// a NAT forgets a flow after 30 s.
const KEEP_ALIVE: Duration = Duration::from_secs(12);
/// Discovery stops at Ethernet: larger fixed sizes collapsed when measured.
const MTU_MAX: u16 = 1452;
/// What the kernel should hold for a listening socket: ten thousand agents
/// that come back at once took 69 s with its default and 22 s with this.
const LISTEN_BUFFER: usize = 4 << 20;
/// For a dialling socket of the bulk profile: a window's worth and a margin.
const DIAL_BUFFER: usize = 2 << 20;
/// Handshakes that may wait to be accepted, and what may be buffered for each
/// and for all of them.
const INCOMING_MAX: usize = 2048;
const INCOMING_BUFFER: u64 = 64 << 10;
const INCOMING_BUFFER_ALL: u64 = 16 << 20;
/// Between stateless resets: with quinn's 20 ms ten thousand agents would need
/// 200 s to learn of a restart.
const RESET_INTERVAL: Duration = Duration::from_micros(100);

/// How a connection is used, which decides its windows and streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    Control,
    Bulk(BulkTuning),
}

/// Per-site settings of bulk connections. Loopback and LAN need no more than
/// the default; a long lossy link wants `Bbr` and 3 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BulkTuning {
    pub stream_window_bytes: u32,
    pub connection_window_bytes: u32,
    pub congestion: Congestion,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Congestion {
    /// Right for local networks.
    #[default]
    Cubic,
    /// Right where packets are lost although the line is free.
    Bbr,
}

impl Default for BulkTuning {
    fn default() -> Self {
        Self {
            stream_window_bytes: 1 << 20,
            connection_window_bytes: 2 << 20,
            congestion: Congestion::Cubic,
        }
    }
}

/// Streams a peer may have open at once.
const CONTROL_STREAMS: u32 = 2;
const BULK_STREAMS: u32 = 256;
/// The control windows: a few of the largest frames.
const CONTROL_STREAM_WINDOW: u32 = 128 << 10;
const CONTROL_WINDOW: u32 = 256 << 10;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Dial,
    Listen,
}

impl Profile {
    fn transport(self, side: Side) -> Arc<TransportConfig> {
        let mut config = TransportConfig::default();
        let (streams, stream_window, window) = match self {
            Self::Control => (CONTROL_STREAMS, CONTROL_STREAM_WINDOW, CONTROL_WINDOW),
            Self::Bulk(tuning) => {
                if tuning.congestion == Congestion::Bbr {
                    config
                        .congestion_controller_factory(Arc::new(congestion::BbrConfig::default()));
                }
                let (stream, all) = (tuning.stream_window_bytes, tuning.connection_window_bytes);
                (BULK_STREAMS, stream, all)
            }
        };
        // Only agents open streams.
        let streams = match side {
            Side::Listen => streams,
            Side::Dial => 0,
        };
        if side == Side::Dial {
            config.keep_alive_interval(Some(jittered(KEEP_ALIVE)));
        }
        let idle = IdleTimeout::try_from(IDLE).expect("forty seconds fit in a varint");
        let mut mtu = MtuDiscoveryConfig::default();
        mtu.upper_bound(MTU_MAX);
        config
            .max_idle_timeout(Some(idle))
            .max_concurrent_bidi_streams(VarInt::from_u32(streams))
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .stream_receive_window(VarInt::from_u32(stream_window))
            .receive_window(VarInt::from_u32(window))
            .send_window(u64::from(window))
            .mtu_discovery_config(Some(mtu))
            .datagram_receive_buffer_size(None)
            .datagram_send_buffer_size(0);
        Arc::new(config)
    }
}

/// Keys of a listener that outlive its process, so that peers of the old one
/// learn at once that it restarted, and retry tokens stay valid.
pub struct ServerKeys {
    reset: [u8; 32],
    token: [u8; 32],
    connection_id: u64,
}

/// Bytes of a [`ServerKeys`] file.
const KEYS_BYTES: usize = 72;

impl ServerKeys {
    /// # Errors
    /// If the file cannot be read or made.
    pub fn load_or_create(path: &Path) -> Result<Self, IdentityError> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let bytes = random();
                let directory = path.parent().unwrap_or_else(|| Path::new("."));
                identity::write_new(directory, path, &bytes)?;
                bytes.to_vec()
            }
            Err(error) => return Err(identity::at("read", path)(error)),
        };
        let bytes: [u8; KEYS_BYTES] = bytes.try_into().map_err(|_| IdentityError::Unreadable {
            path: path.to_owned(),
            why: format!("it does not have {KEYS_BYTES} bytes"),
        })?;
        Ok(Self::of(&bytes))
    }

    /// Keys that are gone with the process.
    #[must_use]
    pub fn ephemeral() -> Self {
        Self::of(&random())
    }

    fn of(bytes: &[u8; KEYS_BYTES]) -> Self {
        let mut keys = Self {
            reset: [0; 32],
            token: [0; 32],
            connection_id: 0,
        };
        keys.reset.copy_from_slice(&bytes[..32]);
        keys.token.copy_from_slice(&bytes[32..64]);
        let (_, rest) = bytes.split_at(64);
        keys.connection_id = rest
            .iter()
            .fold(0, |number, byte| number << 8 | u64::from(*byte));
        keys
    }
}

impl std::fmt::Debug for ServerKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerKeys").finish_non_exhaustive()
    }
}

fn random() -> [u8; KEYS_BYTES] {
    let mut bytes = [0; KEYS_BYTES];
    getrandom::fill(&mut bytes).expect("the operating system gives randomness");
    bytes
}

/// A socket that agents dial.
#[derive(Debug)]
pub struct Listener {
    endpoint: Endpoint,
}

/// A peer that asks for a connection; nothing has been spent on it yet.
#[derive(Debug)]
pub struct Incoming {
    quic: quinn::Incoming,
}

/// Why a listener could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("cannot listen on {address}/udp: {source}")]
    Socket {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("the key cannot be used for TLS: {0}")]
    Tls(#[from] rustls::Error),
}

impl Listener {
    /// Binds `address` on the current runtime.
    ///
    /// # Errors
    /// If the address is taken or the key unusable.
    pub fn bind(
        address: SocketAddr,
        identity: &Identity,
        profile: Profile,
        keys: &ServerKeys,
    ) -> Result<Self, ListenError> {
        let config = server_config(identity, profile, keys)?;
        let socket = |source| ListenError::Socket { address, source };
        let udp = UdpSocket::bind(address).map_err(socket)?;
        if let Some(granted) = enlarge_buffers(&udp, LISTEN_BUFFER) {
            tracing::warn!(
                %address,
                granted,
                wanted = LISTEN_BUFFER,
                "the kernel grants a small receive buffer, many agents at once will be slow: \
                 raise net.core.rmem_max and net.core.wmem_max"
            );
        }
        let endpoint = Endpoint::new(
            endpoint_config(keys),
            Some(config),
            udp,
            Arc::new(TokioRuntime),
        )
        .map_err(socket)?;
        Ok(Self { endpoint })
    }

    /// The next peer; `None` once the listener was closed. Safe to cancel.
    pub async fn accept(&self) -> Option<Incoming> {
        let quic = self.endpoint.accept().await?;
        Some(Incoming { quic })
    }

    /// Connections in any stage.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.endpoint.open_connections()
    }

    /// # Errors
    /// If the operating system does not say.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// Ends every connection under this name and takes no more.
    pub fn close(&self, code: crate::version::CloseCode, reason: &str) {
        let number = VarInt::from_u32(code.number());
        self.endpoint.close(number, reason.as_bytes());
    }

    /// Waits until every peer has been told of its connection's end.
    pub async fn drained(&self) {
        self.endpoint.wait_idle().await;
    }
}

impl Incoming {
    #[must_use]
    pub fn remote_address(&self) -> SocketAddr {
        self.quic.remote_address()
    }

    /// Whether the peer has shown that it receives at its address.
    #[must_use]
    pub fn validated(&self) -> bool {
        self.quic.remote_address_validated()
    }

    /// Asks the peer to come again with a token sent to its address: costs
    /// this side nothing to remember.
    pub fn retry(self) {
        if let Err(error) = self.quic.retry() {
            error.into_incoming().ignore();
        }
    }

    /// Turns the peer away.
    pub fn refuse(self) {
        self.quic.refuse();
    }

    /// Completes the handshake.
    ///
    /// # Errors
    /// If it fails.
    pub async fn accept(self) -> Result<Connection, Closed> {
        let connecting = self.quic.accept()?;
        Connection::of(connecting.await?, None)
    }
}

/// A dial that was not answered the way it should be. The address and the
/// fix are told by [`dial`](super::dial).
#[derive(Debug)]
pub(crate) enum HandshakeError {
    Local(io::Error),
    Tls(rustls::Error),
    /// The other side holds another key than was expected.
    OtherKey(KeyHash),
    Closed(Closed),
}

/// Dials from a socket of its own, so that a new connection shares neither a
/// NAT's memory nor a buffer with an old one.
pub(crate) async fn connect(
    address: SocketAddr,
    identity: &Identity,
    pins: Arc<[KeyHash]>,
    profile: Profile,
) -> Result<Connection, HandshakeError> {
    let local: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let udp = UdpSocket::bind((local, 0)).map_err(HandshakeError::Local)?;
    if let Profile::Bulk(_) = profile {
        // A small buffer costs a busy agent some speed, and nobody else.
        if let Some(granted) = enlarge_buffers(&udp, DIAL_BUFFER) {
            tracing::debug!(granted, wanted = DIAL_BUFFER, "a small socket buffer");
        }
    }
    let runtime = Arc::new(TokioRuntime);
    let endpoint = Endpoint::new(EndpointConfig::default(), None, udp, runtime)
        .map_err(HandshakeError::Local)?;
    let seen = Arc::new(OnceLock::new());
    let tls =
        tls::client(identity, Arc::clone(&pins), Arc::clone(&seen)).map_err(HandshakeError::Tls)?;
    let quic = QuicClientConfig::try_from(tls).expect("the provider has QUIC's initial suite");
    let mut config = ClientConfig::new(Arc::new(quic));
    config.transport_config(profile.transport(Side::Dial));
    let failed = |error: quinn::ConnectionError| match seen.get() {
        Some(key) if !pins.contains(key) => HandshakeError::OtherKey(*key),
        Some(_) | None => HandshakeError::Closed(error.into()),
    };
    let connecting = endpoint
        .connect_with(config, address, SERVER_NAME)
        .map_err(|error| {
            HandshakeError::Closed(Closed::Failed {
                why: error.to_string(),
            })
        })?;
    let connection = connecting.await.map_err(failed)?;
    Connection::of(connection, Some(endpoint)).map_err(HandshakeError::Closed)
}

fn server_config(
    identity: &Identity,
    profile: Profile,
    keys: &ServerKeys,
) -> Result<ServerConfig, rustls::Error> {
    let quic = quic_of(tls::server(identity)?);
    let token = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&keys.token);
    let mut config = ServerConfig::new(Arc::new(quic), Arc::new(token));
    config
        .transport_config(profile.transport(Side::Listen))
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size(INCOMING_BUFFER)
        .incoming_buffer_size_total(INCOMING_BUFFER_ALL);
    Ok(config)
}

fn quic_of(tls: rustls::ServerConfig) -> QuicServerConfig {
    QuicServerConfig::try_from(tls).expect("the provider has QUIC's initial suite")
}

fn endpoint_config(keys: &ServerKeys) -> EndpointConfig {
    let reset = hmac::Key::new(hmac::HMAC_SHA256, &keys.reset);
    let mut config = EndpointConfig::new(Arc::new(reset));
    let connection_id = keys.connection_id;
    config
        .cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(connection_id)))
        .min_reset_interval(RESET_INTERVAL);
    config
}

/// Asks the kernel for room; comes back with what it grants, if that is less.
fn enlarge_buffers(socket: &UdpSocket, wanted: usize) -> Option<usize> {
    let socket = socket2::SockRef::from(socket);
    let asked = socket
        .set_recv_buffer_size(wanted)
        .and_then(|()| socket.set_send_buffer_size(wanted));
    if let Err(error) = asked {
        tracing::debug!(%error, wanted, "no larger socket buffer");
    }
    // The kernel reports twice what it was asked for and grants.
    let granted = socket.recv_buffer_size().unwrap_or(0) / 2;
    (granted < wanted).then_some(granted)
}
