//! A door before a daemon's UDP socket that counts what comes to it. Owns
//! forwarding and counting; reads nothing of what it carries, so that it tells
//! what was really sent, whatever a daemon says of itself.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use super::PATIENCE;

/// More than any datagram of QUIC.
const DATAGRAM_MAX: usize = 2048;
/// A window of the senders' fits in, so that the door itself loses little.
const BUFFER_BYTES: usize = 4 << 20;

/// The door: who dials [`address`](Self::address) reaches the daemon.
#[derive(Clone, Debug)]
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    daemon: Mutex<Option<SocketAddr>>,
    /// Bytes of datagrams that went to the daemon.
    carried: Mutex<u64>,
    more: Condvar,
}

impl Relay {
    /// A door that leads nowhere yet.
    ///
    /// # Panics
    /// If no socket can be had.
    #[must_use]
    pub fn open() -> Self {
        let socket = socket();
        let relay = Self {
            address: socket.local_addr().expect("a bound socket has an address"),
            shared: Arc::new(Shared {
                daemon: Mutex::new(None),
                carried: Mutex::new(0),
                more: Condvar::new(),
            }),
        };
        let shared = Arc::clone(&relay.shared);
        // Ends with the process: a test of its own.
        thread::spawn(move || shared.carry(&socket));
        relay
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Leads to the daemon from now on.
    pub fn lead_to(&self, daemon: SocketAddr) {
        *self.shared.daemon.lock().expect("no holder panics") = Some(daemon);
    }

    /// Bytes that came to the daemon, with all that QUIC adds.
    #[must_use]
    pub fn carried(&self) -> u64 {
        *self.shared.carried.lock().expect("no holder panics")
    }

    /// Waits until so many bytes have come.
    ///
    /// # Panics
    /// If they do not.
    pub fn wait_for(&self, bytes: u64) {
        let carried = self.shared.carried.lock().expect("no holder panics");
        let (carried, _) = self
            .shared
            .more
            .wait_timeout_while(carried, PATIENCE, |carried| *carried < bytes)
            .expect("no holder panics");
        assert!(*carried >= bytes, "only {carried} of {bytes} bytes came");
    }
}

impl Shared {
    fn carry(&self, socket: &UdpSocket) {
        let mut ways: BTreeMap<SocketAddr, UdpSocket> = BTreeMap::new();
        let mut datagram = [0; DATAGRAM_MAX];
        loop {
            let (length, from) = socket.recv_from(&mut datagram).expect("it can be read");
            let Some(daemon) = *self.daemon.lock().expect("no holder panics") else {
                continue;
            };
            let way = ways
                .entry(from)
                .or_insert_with(|| way_back(socket, from, daemon));
            // Refused while the daemon is dead: then nothing came to it.
            if way.send(&datagram[..length]).is_ok() {
                *self.carried.lock().expect("no holder panics") += length as u64;
                self.more.notify_all();
            }
        }
    }
}

/// A socket that speaks to the daemon for one sender, and a thread that
/// carries the answers.
fn way_back(door: &UdpSocket, to: SocketAddr, daemon: SocketAddr) -> UdpSocket {
    let way = socket();
    way.connect(daemon).expect("loopback can be reached");
    let (door, answers) = (door.try_clone(), way.try_clone());
    let (door, answers) = (door.expect("it can be shared"), answers.expect("so can it"));
    thread::spawn(move || {
        let mut datagram = [0; DATAGRAM_MAX];
        loop {
            // A dead daemon's host refuses; the next life answers again.
            let Ok(length) = answers.recv(&mut datagram) else {
                continue;
            };
            // A sender that is gone is told nothing.
            drop(door.send_to(&datagram[..length], to));
        }
    });
    way
}

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback has room");
    for option in [
        nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::RcvBuf, &BUFFER_BYTES),
        nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::SndBuf, &BUFFER_BYTES),
    ] {
        option.expect("the kernel grants what it may");
    }
    socket
}
