//! Blobs by digest: uploads of inputs and downloads. Owns the bridge between
//! async bodies and blocking files; what is stored was verified in [`crate::blobs`].

use std::io::{self, Read};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use farmbell_protocol::digest::Digest;
use futures_util::{Stream, StreamExt};
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;

use super::caller::Operator;
use super::extract::Addressed;
use super::problem::{Result, internal, invalid, not_found};
use super::wire::{Code, Problem};
use super::{Api, blocking};
use crate::blobs::BlobError;
use crate::disk::DiskError;

/// The largest upload: more than any source package, less than most disks.
const UPLOAD_MAX: u64 = 64 << 30;
/// Pieces of a body that wait for the disk: a few, so that a fast sender over
/// a slow disk costs no memory.
const PIECES_WAITING: usize = 8;
/// Bytes read from a file at a time: well over what a socket takes at once.
const PIECE: usize = 256 << 10;

pub(super) async fn put(
    State(api): State<Api>,
    Operator(_): Operator,
    Addressed(digest): Addressed<String>,
    body: Body,
) -> Result<StatusCode> {
    let digest = parse(&digest)?;
    let (pieces, waiting) = mpsc::channel(PIECES_WAITING);
    let reader = PieceReader {
        waiting,
        piece: Bytes::new(),
        whole: false,
    };
    let blobs = api.blobs.clone();
    let storing = blocking(move || blobs.put_reader(reader, UPLOAD_MAX));
    let (stored, ()) = tokio::join!(storing, forward(body, pieces));
    let stored = stored?.map_err(|e| problem(&e))?;
    if stored.digest == digest {
        return Ok(StatusCode::CREATED);
    }
    Err(Problem::new(
        Code::Corrupt,
        format!("the bytes have BLAKE3 {}, not {digest}", stored.digest),
        "The file changed while it was sent, or was damaged on its way: send it again.",
    ))
}

/// Hands the body on piece by piece. If the reader is gone it has failed, and
/// says why itself.
async fn forward(body: Body, pieces: mpsc::Sender<io::Result<Option<Bytes>>>) {
    let mut stream = body.into_data_stream();
    while let Some(piece) = stream.next().await {
        let piece = piece.map(Some).map_err(io::Error::other);
        let failed = piece.is_err();
        if pieces.send(piece).await.is_err() || failed {
            return;
        }
    }
    // The end is said, so that a cut is never taken for it.
    if pieces.send(Ok(None)).await.is_err() {
        tracing::debug!("an upload's reader ended before its body");
    }
}

struct PieceReader {
    waiting: mpsc::Receiver<io::Result<Option<Bytes>>>,
    piece: Bytes,
    whole: bool,
}

impl Read for PieceReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() && !self.whole {
            match self.waiting.blocking_recv() {
                Some(Ok(Some(piece))) => self.piece = piece,
                Some(Ok(None)) => self.whole = true,
                Some(Err(e)) => return Err(e),
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        let length = buffer.len().min(self.piece.len());
        buffer[..length].copy_from_slice(&self.piece.split_to(length));
        Ok(length)
    }
}

/// Only operators: a digest alone does not tell whose bytes it names.
pub(super) async fn get(
    State(api): State<Api>,
    Operator(_): Operator,
    Addressed(digest): Addressed<String>,
) -> Result<Response> {
    let digest = parse(&digest)?;
    // Whoever looks whether it is here means to submit a job with it.
    let blobs = api.blobs.clone();
    blocking(move || blobs.claim(digest))
        .await?
        .map_err(|e| problem(&e))?;
    let (length, body) = open(&api, digest).await?;
    Ok((headers(length), Body::from_stream(body)).into_response())
}

/// A stored blob's length and its bytes.
pub(super) async fn open(
    api: &Api,
    digest: Digest,
) -> Result<(u64, impl Stream<Item = io::Result<Bytes>> + Send + use<>)> {
    let blobs = api.blobs.clone();
    let (file, length) = blocking(move || {
        let file = blobs.read(digest).map_err(|e| problem(&e))?;
        let length = file.metadata().map_err(|e| internal(&e))?.len();
        Ok::<_, Problem>((file, length))
    })
    .await??;
    let file = tokio::fs::File::from_std(file);
    let pieces = futures_util::stream::try_unfold(file, |mut file| async move {
        let mut piece = bytes::BytesMut::with_capacity(PIECE);
        let read = file.read_buf(&mut piece).await?;
        Ok((read > 0).then(|| (piece.freeze(), file)))
    });
    Ok((length, pieces))
}

pub(super) fn headers(length: u64) -> HeaderMap {
    HeaderMap::from_iter([
        (header::CONTENT_LENGTH, HeaderValue::from(length)),
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/octet-stream"),
        ),
        (
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ),
    ])
}

fn parse(digest: &str) -> Result<Digest> {
    digest
        .parse()
        .map_err(|e: farmbell_protocol::id::ParseIdError| invalid(e.to_string(), "Use b3sum."))
}

fn problem(e: &BlobError) -> Problem {
    match e {
        BlobError::Missing(digest) => not_found(format!("there is no blob {digest}"), "Upload it."),
        BlobError::Disk(DiskError::NoSpace { .. }) => Problem::new(
            Code::Unavailable,
            e.to_string(),
            "Free space on the coordinator's disk, then try again.",
        ),
        BlobError::Chunk(_)
        | BlobError::NoNodes(_)
        | BlobError::NotWhole { .. }
        | BlobError::TooLong(_)
        | BlobError::Source(_) => {
            Problem::new(Code::Corrupt, e.to_string(), "Send the bytes again.")
        }
        BlobError::Disk(DiskError::Io { .. }) => internal(e),
    }
}
