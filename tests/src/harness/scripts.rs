//! Executable scripts, as operators put them beside an agent.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// Writes a script that may be run.
///
/// # Panics
/// If it cannot be written.
pub fn write_script(path: &Path, text: &str) {
    std::fs::write(path, text).expect("a script can be written");
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(path, mode).expect("a file's owner may say who runs it");
}
