//! The `farmbell` command as a story types it. Owns the calling and the reading
//! of what it said; never speaks to the coordinator another way.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// The command, set up for one coordinator.
#[derive(Clone, Debug)]
pub struct Cli {
    program: PathBuf,
    socket: PathBuf,
}

/// What a command said, and how it ended.
#[derive(Debug)]
pub struct Said {
    pub line: String,
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Cli {
    #[must_use]
    pub fn new(program: PathBuf, socket: PathBuf) -> Self {
        Self { program, socket }
    }

    /// The command with these arguments, for the caller to start.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg("--socket")
            .arg(&self.socket)
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    /// Runs the command to its end.
    #[must_use]
    pub fn run(&self, arguments: &[&str]) -> Said {
        Said::by(self.command(arguments))
    }

    /// Runs a command that must succeed, and reads its JSON.
    ///
    /// # Panics
    /// If it fails or prints something else.
    #[must_use]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let mut all = vec!["--output", "json"];
        all.extend(arguments);
        let said = self.run(&all).succeeds();
        said.json()
    }

    /// A fresh token, as `token create` prints it.
    #[must_use]
    pub fn token(&self, arguments: &[&str]) -> String {
        let mut all = vec!["token", "create"];
        all.extend(arguments);
        let value = self.json(&all);
        text(&value, "token")
    }

    /// Submits one job that runs a shell script, and gives its id.
    #[must_use]
    pub fn submit_script(&self, arguments: &[&str], script: &str) -> String {
        self.submit(arguments, &["sh", "-c", script])
    }

    /// Submits one job that runs this command, and gives its id.
    #[must_use]
    pub fn submit(&self, arguments: &[&str], command: &[&str]) -> String {
        let mut all = vec!["submit"];
        all.extend(arguments);
        all.push("--");
        all.extend(command);
        let value = self.json(&all);
        text(&value["jobs"][0], "id")
    }

    /// Waits for the job's verdict, and gives it as `job show` tells it.
    ///
    /// # Panics
    /// If it has none after all.
    #[must_use]
    pub fn verdict(&self, job: &str) -> Value {
        drop(self.run(&["job", "wait", job]));
        self.json(&["job", "show", job])
    }

    /// The stored log of a job's newest attempt.
    #[must_use]
    pub fn log(&self, job: &str) -> String {
        self.run(&["logs", job]).succeeds().stdout
    }

    /// Fetches a job's artifacts into a directory.
    pub fn fetch(&self, job: &str, directory: &Path) {
        let directory = directory.to_str().expect("test directories are plain");
        self.run(&["artifact", "get", job, "-d", directory])
            .succeeds();
    }
}

impl Said {
    /// # Panics
    /// If the command cannot be started.
    #[must_use]
    pub fn by(mut command: Command) -> Self {
        let line = format!("{command:?}");
        Self::of(command.output().expect("a command can be started"), &line)
    }

    /// What a command that ran already said.
    #[must_use]
    pub fn of(output: Output, line: &str) -> Self {
        let Output {
            status,
            stdout,
            stderr,
        } = output;
        Self {
            line: line.to_owned(),
            code: status.code(),
            stdout: String::from_utf8_lossy(&stdout).into_owned(),
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
        }
    }

    /// # Panics
    /// Unless the command ended with 0.
    pub fn succeeds(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self
    }

    /// # Panics
    /// Unless the command failed and its error names each of `words`.
    pub fn fails_naming(self, words: &[&str]) -> Self {
        assert_ne!(self.code, Some(0), "{self:#?}");
        for word in words {
            let found = self.stderr.contains(word) || self.stdout.contains(word);
            assert!(found, "{word:?} is not named: {self:#?}");
        }
        self
    }

    /// # Panics
    /// If the output is not JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("no JSON ({error}): {self:#?}"))
    }
}

/// A field that must be there and be text.
///
/// # Panics
/// If it is not.
#[must_use]
pub fn text(value: &Value, field: &str) -> String {
    value[field]
        .as_str()
        .unwrap_or_else(|| panic!("no text {field:?} in {value:#}"))
        .to_owned()
}
