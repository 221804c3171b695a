//! Farmbell's protocol: what both sides of a build farm share, and what a
//! stranger's builder is built on. This page tells the whole conversation; each
//! module tells its part exactly.
//!
//! Farmbell runs builds on many hosts. An *agent* on each host dials out to one
//! *coordinator* and offers one or more *builders*, each a place where one
//! *attempt* of a job runs at a time. Nobody polls: what happens is said as it
//! happens, and is repeated until the other side has it on its disk.
//!
//! # Building a builder
//!
//! All decisions of the agent's side are in [`builder::Builder`], a state
//! machine without sockets or threads: events in, effects out. With feature
//! `client` there is everything round it: `client::join`, a session that is
//! kept open (`client::session`) and bulk transfers (`client::bulk`).
//! `examples/smallest_builder.rs` is a whole builder of one file. In another
//! language: implement this page and the golden bytes.
//!
//! # Connections
//!
//! QUIC with TLS 1.3, ALPN [`farmbell/1`](version::ALPN), always dialled by the
//! agent, which listens on nothing. Both sides show self-signed certificates; a
//! certificate only carries a key, and an identity *is* the BLAKE3 hash of that
//! key's SPKI in DER ([`id::KeyHash`]). The agent knows the hash of its
//! coordinator's key from its join token; the coordinator looks the agent's up
//! among those that have joined. Names and dates in certificates mean nothing.
//!
//! * *Control*: small frames. Its windows are a few of the largest frames, the
//!   agent sends a keep-alive every 12 s, 40 s of silence end it. One
//!   bidirectional stream, opened by the agent, carries everything.
//! * *Bulk*: logs, outputs, inputs, on its own address and socket, so that bytes
//!   never delay an order. Opened when something has to move, closed when idle;
//!   one per session, a newer one ends the older.
//!
//! No 0-RTT, no session tickets, no datagrams, no unidirectional streams.
//!
//! # Frames
//!
//! `length u32 LE | kind u16 LE | flags u8 | body`: the length is the body's,
//! the body is one postcard-encoded struct of that kind ([`codec`]). One kind is
//! one frozen struct; a change is a new kind and a feature bit. Every kind has a
//! cap, checked before anything is allocated; every text and list in a body has
//! its own ([`bounded`]). A kind that is not known is skipped and counted, or,
//! with the *critical* flag, ends the connection. A frame that has begun must be
//! whole after 10 s.
//!
//! # Joining
//!
//! A token (`client::token`) holds the coordinator's address and key hash, a
//! number and a secret. An agent with a new key dials, says
//! [`Join`](agent_to_coordinator::Join), and is answered
//! [`Joined`](coordinator_to_agent::Joined) or a close by name. The same key may
//! ask again and gets the same answer. A key that has not joined may say nothing
//! else. What the token grants, its *envelope*, bounds every later Hello.
//!
//! # A session
//!
//! ```text
//! agent                                    coordinator
//!   Hello, HelloBuilder*, HelloAttempt*, HelloEnd ──▶
//!   ◀── Welcome, WelcomeBuilder*, WelcomeAttempt*, WelcomeEnd
//!   reports ──▶                     ◀── orders, acknowledgements
//! ```
//!
//! The first frame has to come within 10 s, and nothing but a whole Hello is
//! taken before the Welcome. The Hello says what the agent offers and *every*
//! attempt it holds. The Welcome answers the union of what both sides hold:
//!
//! | agent holds | coordinator holds | standing |
//! |---|---|---|
//! | yes | as live | [`Continue`](coordinator_to_agent::Standing::Continue): send the reports behind `acked` |
//! | yes | as decided by this attempt | [`Committed`](coordinator_to_agent::Standing::Committed): drop it |
//! | yes | not, or as superseded | [`Abandon`](coordinator_to_agent::Standing::Abandon): stop it, drop it |
//! | no | as live | [`Lost`](coordinator_to_agent::Standing::Lost): it is over |
//!
//! A session that ends never ends an attempt. The agent dials again after
//! 0.2 s, doubling up to 30 s, each wait anywhere from nothing to that; a close
//! whose reason begins with `after-ms=N` names the wait.
//!
//! # The life of an attempt
//!
//! ```text
//! ◀── Offer                        do this, on that builder
//!     Accepted | Refused ──▶       it is in the spool | it costs the job nothing
//!     Started ──▶                  the recipe runs; its log flows on the bulk side
//! ◀── Abort                        (if wished) TERM, grace, KILL; ends as any other
//!     Ended ──▶                    and the process tree is proved empty
//!     Sealed ──▶                   outputs out of reach, fsynced, hashed
//! ◀── Reset(nonce)                 meanwhile log and outputs travel
//!     ResetStarted, Clean(nonce) | ResetFailed ──▶
//! ◀── Committed                    all of it is durable: the spool may forget it
//! ```
//!
//! Only a builder that has answered the newest nonce with `Clean` is offered
//! anything. [`OutputsLost`](agent_to_coordinator::OutputsLost) says that what
//! was sealed cannot be delivered; [`Condition`](agent_to_coordinator::Condition)
//! that a builder can or cannot take work at all.
//!
//! # Order and acknowledgement
//!
//! Reports of one attempt are numbered from 1, and so are reports of one builder
//! outside its attempts. They are sent in order, acknowledged cumulatively
//! ([`Ack`](coordinator_to_agent::Ack),
//! [`BuilderAck`](coordinator_to_agent::BuilderAck)) when they are on the
//! coordinator's disk, and repeated on each session until then. An agent makes a
//! report durable before it says it. Every order may come twice; twice is the
//! same as once. Orders of different builders have no order among each other.
//!
//! # Fencing
//!
//! * An [`AttemptId`](id::AttemptId) (job, generation, number, random nonce)
//!   fences work: it is compared as a whole, and what is not live is answered
//!   with the stored truth and never applied.
//! * A [`SessionId`](id::SessionId) fences connections: a newer session of the
//!   same agent ends the older one.
//! * An [`Epoch`](id::Epoch) fences coordinators: raised at each start, the
//!   agent remembers the highest and refuses a lower one by name.
//! * A [`SpoolId`](id::SpoolId) and a [`BootId`](id::BootId) fence agents: with
//!   another spool, or after a reboot, what ran before is lost, and said so.
//!
//! # Bulk
//!
//! The first stream shows the Welcome's ticket; then each transfer has a
//! bidirectional stream of its own ([`bulk`]), opened by the agent. Only live
//! attempts of that agent are served. After each Welcome an agent offers all
//! blobs of its sealed attempts again: what is there is answered so, and
//! nothing is sent. A blob that others have stored has to be sent all the same,
//! so that nobody gets at bytes by knowing their hash. Any repeat at any point gives the same
//! answer, and a cut costs what the receiver had not counted, nothing more.
//!
//! * *Log*: byte ranges by offset, with explicit records where output was cut,
//!   and an explicit end. Acknowledged as far as it is durable.
//! * *Blob*: an output, or the encoded [`Manifest`](spec::Manifest), by the
//!   BLAKE3 digest of its bytes. Its 1 MiB chunks are subtrees of that hash
//!   ([`digest`]), so each is verified before it is written or counted.
//! * *Input*: raw bytes from an offset, verified by the agent.
//!
//! # Versions
//!
//! The ALPN name is the major version. The Hello offers a range of minor ones
//! and a set of feature bits; the Welcome names what both speak ([`version`]).
//!
//! # Errors
//!
//! A connection ends under a [`CloseCode`](version::CloseCode), a QUIC
//! application close code with a name, and a sentence for people. Each says
//! whether dialling again can help by itself: if not, an agent waits minutes,
//! not seconds. A transfer is refused alone, by
//! [`BulkRefused`](bulk::BulkRefused). There are no other errors on the wire.
//!
//! # Limits
//!
//! | what | limit |
//! |---|---|
//! | control frame | 64 KiB |
//! | bulk frame | 64 KiB of log, 1 KiB otherwise; chunks follow raw |
//! | builders, attempts of one Hello | 1,024, 4,096 |
//! | streams at once | 2 control, 256 bulk |
//! | windows | 128 KiB a stream and 256 KiB a connection; bulk 1 and 2 MiB (a site's setting) |
//! | blob | 32 GiB |
//! | first frame, any frame, a whole Hello | 10 s, 10 s, 30 s |
//! | messages that wait for one peer | 1,024, then it is closed as overloaded |
#![forbid(unsafe_code)]

pub mod agent_to_coordinator;
pub mod bounded;
pub mod builder;
pub mod bulk;
#[cfg(feature = "client")]
pub mod client;
pub mod codec;
pub mod coordinator_to_agent;
pub mod digest;
#[doc(hidden)]
pub mod failpoint;
pub mod id;
pub mod outcome;
pub mod spec;
pub mod time;
pub mod version;
