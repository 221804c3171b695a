//! What a daemon is started inside of, when a test wants more than the plain
//! process: a host of a [`Network`](super::Network), a recorder, another run
//! of the kernel. The process that is started stays the daemon's own.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use super::network::Host;
use super::ordinary::Ordinary;

/// See the module.
#[derive(Clone, Debug)]
pub enum Around {
    Host(Host),
    Recorder(Recorder),
    /// The file that the process sees as the kernel's boot id.
    Boot(PathBuf),
    /// A kernel without pidfds; the program that takes them away.
    WithoutPidfds(PathBuf),
    /// A disk of its own at this place, of so many MiB.
    SmallDisk(PathBuf, u32),
    /// An ordinary user on a host that gives it nothing.
    Ordinary(Ordinary),
}

impl Around {
    #[must_use]
    pub fn wrap(&self, command: &Command) -> Command {
        match self {
            Self::Host(host) => host.runs(command),
            Self::Recorder(recorder) => recorder.records(command),
            Self::Boot(id) => booted_as(id, command),
            Self::WithoutPidfds(without) => {
                let mut poorer = Command::new(without);
                poorer.args(["pidfd", "--"]);
                passed_on(&mut poorer, command);
                poorer
            }
            Self::SmallDisk(place, size_mib) => on_small_disk(place, *size_mib, command),
            Self::Ordinary(ordinary) => ordinary.runs(command),
        }
    }
}

/// What is recorded: everything that changes files or makes changes durable.
const CALLS: &str = "openat,open,creat,lseek,write,writev,pwrite64,pwritev,pwritev2,ftruncate,\
    truncate,fallocate,fsync,fdatasync,syncfs,sync,rename,renameat,renameat2,unlink,unlinkat,\
    mkdir,mkdirat,rmdir,link,linkat,copy_file_range,sendfile,splice";
/// Longer than anything the daemons write at once.
const BYTES_MAX: &str = "4194304";

/// Records the file operations of processes and of all that they start.
#[derive(Clone, Debug)]
pub struct Recorder {
    directory: PathBuf,
    readers: Arc<Mutex<Vec<JoinHandle<String>>>>,
}

impl Recorder {
    /// Pipes of this recorder are made in `directory`.
    #[must_use]
    pub fn in_directory(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            readers: Arc::default(),
        }
    }

    fn records(&self, command: &Command) -> Command {
        let mut readers = self.readers.lock().expect("no holder panics");
        let pipe = self.directory.join(format!("recording-{}", readers.len()));
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe can be made");
        let from = pipe.clone();
        readers.push(std::thread::spawn(move || {
            let mut text = String::new();
            let mut lines = File::open(from).expect("the recorder's pipe is there");
            lines
                .read_to_string(&mut text)
                .expect("a recording is plain text");
            text
        }));
        let mut recorded = Command::new("strace");
        // The recorder is a grandchild: the daemon stays the child.
        recorded
            .args(["-D", "-f", "-ttt", "-y", "-xx", "-q", "-s", BYTES_MAX])
            .args(["-e", "signal=none", "-e"])
            .arg(format!("trace={CALLS}"))
            .arg("-o")
            .arg(&pipe)
            .arg("--");
        passed_on(&mut recorded, command);
        recorded
    }

    /// All recordings, once everything recorded has ended.
    ///
    /// # Panics
    /// If a recording cannot be read.
    #[must_use]
    pub fn recordings(&self) -> Vec<String> {
        let readers = std::mem::take(&mut *self.readers.lock().expect("no holder panics"));
        let texts = readers.into_iter().map(JoinHandle::join);
        texts
            .map(|text| text.expect("a recording can be read"))
            .collect()
    }
}

fn booted_as(id: &Path, command: &Command) -> Command {
    let mut booted = Command::new("unshare");
    booted
        .args(["--mount", "sh", "-c"])
        .arg("mount --bind \"$0\" /proc/sys/kernel/random/boot_id && exec \"$@\"")
        .arg(id);
    passed_on(&mut booted, command);
    booted
}

fn on_small_disk(place: &Path, size_mib: u32, command: &Command) -> Command {
    let mut poorer = Command::new("unshare");
    poorer
        .args(["--mount", "sh", "-c"])
        .arg(format!(
            "mkdir -p \"$0\" && mount -t tmpfs -o size={size_mib}m none \"$0\" && exec \"$@\""
        ))
        .arg(place);
    passed_on(&mut poorer, command);
    poorer
}

/// Hands the command's own program, arguments and environment on.
pub(super) fn passed_on(wrapper: &mut Command, command: &Command) {
    wrapper.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapper.env(name, value),
            None => wrapper.env_remove(name),
        };
    }
}
