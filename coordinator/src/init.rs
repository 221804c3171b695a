//! `farmbell-coordinator init`: makes what a coordinator needs before its
//! first start. Owns only the order; what is there already is kept.

use std::io::Write;
use std::path::Path;

use farmbell_protocol::client::identity::Identity;
use farmbell_protocol::client::quic::ServerKeys;

use crate::blobs::Blobs;
use crate::config::DEFAULT_STATE;
use crate::logs::Logs;
use crate::statedir::StateDir;
use crate::store::Sqlite;

/// # Errors
/// If the directory is in use, or anything in it cannot be made.
pub fn run(state: &StateDir) -> anyhow::Result<()> {
    let fresh = !state.store().exists();
    state.make()?;
    let locked = state.clone().lock()?;
    let identity = Identity::load_or_create(state.path())?;
    ServerKeys::load_or_create(&state.quic_keys())?;
    locked.api_token()?;
    Sqlite::open(&state.store())?;
    Blobs::open(&state.blobs())?;
    Logs::open(&state.logs())?;

    let path = state.path().display();
    let mut out = std::io::stdout().lock();
    if fresh {
        writeln!(out, "Made the coordinator's state in {path}.")?;
    } else {
        writeln!(
            out,
            "{path} is a coordinator's state already; nothing was changed."
        )?;
    }
    writeln!(out, "Its key is {}.", identity.key_hash())?;
    let serve = if state.path() == Path::new(DEFAULT_STATE) {
        "systemctl enable --now farmbell-coordinator".to_owned()
    } else {
        format!("farmbell-coordinator serve --state {path}")
    };
    writeln!(
        out,
        "\nNext:\n  {serve}\n  farmbell token create     on this host; then what it prints, on a builder"
    )?;
    Ok(())
}
