//! Where the API listens: a Unix socket and loopback TCP. Owns the socket file.

use std::future::Future;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;

use super::caller::Peer;
use super::limited::Limited;
use super::{Api, metrics, pages, router};

/// Everyone may connect and read; the kernel says who may do more.
const SOCKET_MODE: u32 = 0o666;

/// Binds the Unix socket, in place of one that an earlier life left behind.
/// The caller holds the state directory's lock, so no other life is there.
///
/// # Errors
/// If the path is in use by something that is no socket, or cannot be made.
pub fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path)?,
        Ok(_) => {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                format!("{} is there and is no socket; move it away", path.display()),
            ));
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE))?;
    Ok(listener)
}

/// Serves both until `stop`. Requests that are being answered then are cut;
/// whoever asked tries again, with the same idempotency key.
///
/// # Errors
/// If accepting connections fails for good.
pub async fn serve(
    api: Api,
    unix: UnixListener,
    tcp: TcpListener,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let (viewers, live) = pages::viewers();
    let observed = metrics::Observed::default();
    let router = router(api.clone(), viewers, observed.clone());
    // They end with this function; a panic of theirs ends nothing else.
    let mut tasks = JoinSet::new();
    tasks.spawn(metrics::observe(observed, api.farm.ledger()));
    tasks.spawn(live.run(api));
    let local = axum::serve(
        Limited::new(unix),
        router.clone().into_make_service_with_connect_info::<Peer>(),
    );
    let remote = axum::serve(
        Limited::new(tcp),
        router.into_make_service_with_connect_info::<Peer>(),
    );
    tokio::select! {
        ended = local.into_future() => ended,
        ended = remote.into_future() => ended,
        () = stop => Ok(()),
    }
}
