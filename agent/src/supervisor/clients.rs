//! The agents that listen to a supervisor: usually one, two for a moment
//! while one replaces the other. Owns the sockets and what is still to be
//! written to them. A slow listener delays nobody: it is told less often.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use farmbell_protocol::bounded::Reason;

use super::talk::{self, Notice, Order};

/// Connections at one time; more means a confused agent.
const CLIENTS_MAX: usize = 4;
/// A log that grows steadily is announced this often.
const LOG_NOTICE_EVERY: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub(super) struct Clients {
    listener: UnixListener,
    clients: Vec<Client>,
    now: Standing,
    log_told_at: Option<Instant>,
    log_told: u64,
}

/// What is true now: a new connection is told all of it.
#[derive(Debug, Default)]
struct Standing {
    started: bool,
    log: u64,
    unkillable: Option<Reason>,
}

#[derive(Debug)]
struct Client {
    stream: UnixStream,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
}

impl Clients {
    pub(super) fn new(listener: UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener,
            clients: Vec::new(),
            now: Standing::default(),
            log_told_at: None,
            log_told: 0,
        })
    }

    pub(super) fn listener(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Each connection, and whether it waits to be written to.
    pub(super) fn sockets(&self) -> impl Iterator<Item = (BorrowedFd<'_>, bool)> {
        self.clients
            .iter()
            .map(|client| (client.stream.as_fd(), !client.outbox.is_empty()))
    }

    pub(super) fn accept(&mut self) -> io::Result<()> {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => self.welcome(stream)?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn welcome(&mut self, stream: UnixStream) -> io::Result<()> {
        stream.set_nonblocking(true)?;
        if self.clients.len() == CLIENTS_MAX {
            self.clients.remove(0);
        }
        let mut outbox = Vec::new();
        if self.now.started {
            talk::write(&Notice::Started, &mut outbox);
        }
        if self.now.log > 0 {
            let length = self.now.log;
            talk::write(&Notice::Log { length }, &mut outbox);
        }
        if let Some(why) = self.now.unkillable.clone() {
            talk::write(&Notice::Unkillable { why }, &mut outbox);
        }
        let inbox = Vec::new();
        self.clients.push(Client {
            stream,
            inbox,
            outbox,
        });
        self.flush();
        Ok(())
    }

    /// Reads what the agents ask for; a connection that is over is dropped.
    pub(super) fn orders(&mut self) -> Vec<Order> {
        let mut orders = Vec::new();
        self.clients.retain_mut(|client| client.read(&mut orders));
        orders
    }

    pub(super) fn started(&mut self) {
        self.now.started = true;
        self.tell(&Notice::Started);
    }

    pub(super) fn unkillable(&mut self, why: Reason) {
        self.now.unkillable = Some(why.clone());
        self.tell(&Notice::Unkillable { why });
    }

    pub(super) fn ended(&mut self) {
        self.tell(&Notice::Ended);
    }

    /// Notes the log's length; announced at once or when it is due.
    pub(super) fn log_grew(&mut self, length: u64, now: Instant) {
        self.now.log = length;
        self.tell_log_if_due(now);
    }

    pub(super) fn log_notice_at(&self) -> Option<Instant> {
        let last = self.log_told_at?;
        (self.now.log > self.log_told).then(|| last + LOG_NOTICE_EVERY)
    }

    pub(super) fn tell_log_if_due(&mut self, now: Instant) {
        let due = match self.log_told_at {
            None => true,
            Some(last) => now >= last + LOG_NOTICE_EVERY,
        };
        if due && self.now.log > self.log_told {
            self.log_told = self.now.log;
            self.log_told_at = Some(now);
            let length = self.log_told;
            self.tell(&Notice::Log { length });
        }
    }

    /// Announces the log's final length before the end is told.
    pub(super) fn log_ended(&mut self, length: u64) {
        self.now.log = length;
        self.log_told = length;
        self.tell(&Notice::Log { length });
    }

    fn tell(&mut self, notice: &Notice) {
        for client in &mut self.clients {
            // One that reads nothing will read the newest length later.
            if client.outbox.is_empty() || !matches!(notice, Notice::Log { .. }) {
                talk::write(notice, &mut client.outbox);
            }
        }
        self.flush();
    }

    pub(super) fn flush(&mut self) {
        self.clients.retain_mut(Client::write);
    }
}

impl Client {
    /// `false` once the connection is over.
    fn read(&mut self, orders: &mut Vec<Order>) -> bool {
        let mut bytes = [0; 256];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => return false,
                Ok(count) => self.inbox.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        loop {
            match talk::take(&mut self.inbox) {
                Ok(Some(order)) => orders.push(order),
                Ok(None) => return true,
                Err(error) => {
                    super::note(&format!("an order could not be read: {error}"));
                    return false;
                }
            }
        }
    }

    fn write(&mut self) -> bool {
        while !self.outbox.is_empty() {
            match self.stream.write(&self.outbox) {
                Ok(0) => return false,
                Ok(count) => drop(self.outbox.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        true
    }
}
