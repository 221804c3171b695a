//! Frames over a stream: one direction's [`FrameSet`] in, another's out.
//!
//! Owns buffering and the time a frame may take once it has begun. Invariants:
//! a length is checked before anything of that size is allocated; a kind that
//! is not known is skipped and counted; nothing behind a frame is read, so
//! that raw bytes may follow one.

use std::marker::PhantomData;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::client::transport::{Closed, Receiver, Sender, StreamError};
use crate::codec::{self, CodecError, Expect, FrameSet, HEADER_BYTES, Header};
use crate::version::CloseCode;

/// A frame that has begun must be whole after this long.
pub const FRAME_TIME: Duration = Duration::from_secs(10);
/// A batch of frames must be taken by the peer's window after this long: who
/// does not read is closed, not waited for.
pub const WRITE_TIME: Duration = Duration::from_secs(30);
/// A buffer larger than this is given back when it is empty: ten thousand
/// idle connections must cost little.
const BUFFER_KEPT: usize = 1 << 10;

/// Why no frame came or went.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error(transparent)]
    Codec(#[from] CodecError),
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The peer finished the stream in the middle of a frame.
    #[error("the stream ended inside a frame")]
    Torn,
    #[error("the other side began a frame and did not finish it within {} s", FRAME_TIME.as_secs())]
    Slow,
    #[error("the other side takes nothing for {} s", WRITE_TIME.as_secs())]
    Stalled,
}

impl FrameError {
    /// The name under which a connection ends because of this; `None` where it
    /// is over already.
    #[must_use]
    pub const fn close_code(&self) -> Option<CloseCode> {
        match self {
            Self::Codec(CodecError::TooLong { .. }) => Some(CloseCode::TooLong),
            Self::Codec(CodecError::UnknownCritical { .. }) => Some(CloseCode::UnknownCritical),
            Self::Codec(CodecError::OutOfPlace { .. }) => Some(CloseCode::OutOfPlace),
            Self::Codec(CodecError::Malformed { .. } | CodecError::Trailing { .. })
            | Self::Torn => Some(CloseCode::Malformed),
            Self::Slow => Some(CloseCode::Silent),
            Self::Stalled => Some(CloseCode::Overloaded),
            Self::Stream(StreamError::Closed(_)) => None,
            Self::Stream(StreamError::Dropped { .. }) => Some(CloseCode::Done),
        }
    }

    /// Why the connection is over, if that is what this is.
    #[must_use]
    pub const fn closed(&self) -> Option<&Closed> {
        match self {
            Self::Stream(StreamError::Closed(closed)) => Some(closed),
            Self::Stream(StreamError::Dropped { .. })
            | Self::Codec(_)
            | Self::Torn
            | Self::Slow
            | Self::Stalled => None,
        }
    }
}

/// Sends frames; many may be put into one write.
#[derive(Debug)]
pub struct FrameSender<F> {
    stream: Sender,
    buffer: Vec<u8>,
    frames: PhantomData<fn(F)>,
}

impl<F: FrameSet> FrameSender<F> {
    #[must_use]
    pub const fn new(stream: Sender) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
            frames: PhantomData,
        }
    }

    /// Puts a frame behind those that wait for [`flush`](Self::flush).
    pub fn queue(&mut self, frame: &F) {
        frame.encode_into(&mut self.buffer);
    }

    /// As [`queue`](Self::queue), for frames that were encoded elsewhere.
    pub fn queue_encoded(&mut self, frames: &[u8]) {
        self.buffer.extend_from_slice(frames);
    }

    /// Bytes that wait for [`flush`](Self::flush).
    #[must_use]
    pub const fn queued_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Sends what was queued. Not safe to cancel.
    ///
    /// # Errors
    /// If the stream is over or the peer takes nothing.
    pub async fn flush(&mut self) -> Result<(), FrameError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let by = Instant::now() + WRITE_TIME;
        let sent = timeout_at(by, self.stream.send(&self.buffer)).await;
        self.buffer.clear();
        if self.buffer.capacity() > BUFFER_KEPT {
            self.buffer = Vec::new();
        }
        Ok(sent.map_err(|_| FrameError::Stalled)??)
    }

    /// Sends one frame now. Not safe to cancel.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    pub async fn send(&mut self, frame: impl Into<F>) -> Result<(), FrameError> {
        self.queue(&frame.into());
        self.flush().await
    }

    /// The stream itself, for raw bytes behind the frames.
    pub const fn raw(&mut self) -> &mut Sender {
        &mut self.stream
    }

    /// Says that no more frames follow.
    pub fn finish(&mut self) {
        self.stream.finish();
    }
}

/// Receives frames.
#[derive(Debug)]
pub struct FrameReceiver<F> {
    stream: Receiver,
    /// The bytes of the frame that is being read, header included.
    buffer: Vec<u8>,
    filled: usize,
    began: Option<Instant>,
    skipped: u64,
    received: u64,
    frames: PhantomData<fn() -> F>,
}

impl<F: FrameSet> FrameReceiver<F> {
    #[must_use]
    pub const fn new(stream: Receiver) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
            filled: 0,
            began: None,
            skipped: 0,
            received: 0,
            frames: PhantomData,
        }
    }

    /// The next frame, or `None` at the stream's end. Safe to cancel: what was
    /// read stays. Waits for a first byte without limit; the rest of its frame
    /// has [`FRAME_TIME`].
    ///
    /// # Errors
    /// If the stream is over in any other way, or what comes is no frame.
    pub async fn next(&mut self) -> Result<Option<F>, FrameError> {
        loop {
            if !self.fill(HEADER_BYTES).await? {
                return Ok(None);
            }
            let header = Header::read(*self.buffer.first_chunk().expect("the header was filled"));
            let wanted = codec::expect::<F>(header)?;
            let (Expect::Body(length) | Expect::Skip(length)) = wanted;
            self.fill(HEADER_BYTES + length).await?;
            let frame = match wanted {
                Expect::Body(_) => Some(F::decode(header.kind, &self.buffer[HEADER_BYTES..])?),
                Expect::Skip(_) => None,
            };
            self.start_over();
            match frame {
                Some(frame) => return Ok(Some(frame)),
                None => self.skipped += 1,
            }
        }
    }

    /// As [`next`](Self::next), where the end of the stream is out of place.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub async fn expect_next(&mut self) -> Result<F, FrameError> {
        self.next().await?.ok_or(FrameError::Torn)
    }

    /// Frames of unknown kinds so far: a newer peer's.
    #[must_use]
    pub const fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Bytes of all frames so far.
    #[must_use]
    pub const fn received_bytes(&self) -> u64 {
        self.received
    }

    /// The stream itself, for raw bytes behind the last frame.
    pub const fn raw(&mut self) -> &mut Receiver {
        &mut self.stream
    }

    /// Reads until the buffer holds `need` bytes; `false` where the stream
    /// ended before the first of a frame.
    async fn fill(&mut self, need: usize) -> Result<bool, FrameError> {
        if self.buffer.len() < need {
            self.buffer.resize(need, 0);
        }
        while self.filled < need {
            let space = &mut self.buffer[self.filled..need];
            let read = match self.began {
                None => self.stream.receive(space).await?,
                Some(began) => timeout_at(began + FRAME_TIME, self.stream.receive(space))
                    .await
                    .map_err(|_| FrameError::Slow)??,
            };
            match read {
                Some(count) => {
                    self.filled += count;
                    self.received += count as u64;
                }
                None if self.filled == 0 => return Ok(false),
                None => return Err(FrameError::Torn),
            }
            self.began.get_or_insert_with(Instant::now);
        }
        Ok(true)
    }

    fn start_over(&mut self) {
        self.filled = 0;
        self.began = None;
        self.buffer.clear();
        if self.buffer.capacity() > BUFFER_KEPT {
            self.buffer = Vec::new();
        }
    }
}
