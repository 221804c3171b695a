//! The conversation over real sockets: identity, transport, join, the session
//! round [`Builder`](crate::builder::Builder)s, and bulk transfers. Feature
//! `client`.
//!
//! Owns how bytes get from one side to the other, and how a connection is
//! found, lost and found again. Decides nothing about builders (the brain
//! does) and nothing about jobs (the farm does).
//!
//! [`transport`] is the seam: everything above it knows streams of bytes and
//! [`CloseCode`](crate::version::CloseCode)s, only [`quic`] knows quinn.

pub mod backoff;
pub mod bulk;
pub mod dial;
pub mod framed;
pub mod identity;
pub mod join;
pub mod quic;
pub mod session;
pub mod tls;
pub mod token;
pub mod transport;
