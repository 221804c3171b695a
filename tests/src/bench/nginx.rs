//! The upload that people know: nginx takes a file by PUT over TLS 1.3 on
//! loopback, from curl. Owns starting and ending both; nothing here is judged.
//! Unlike ours it hashes nothing, syncs nothing and cannot go on after a cut.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::Context as _;

const NEEDED: &str = "apt-get install --no-install-recommends nginx-light curl";

/// A server with a directory of its own, ended when this is dropped.
pub(super) struct Nginx {
    directory: PathBuf,
    port: u16,
}

impl Nginx {
    /// # Errors
    /// If nginx is not there or does not start; the text says what to type.
    pub(super) fn start(directory: &Path) -> anyhow::Result<Self> {
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
        std::fs::create_dir_all(directory.join("files"))?;
        std::fs::write(directory.join("cert.pem"), made.cert.pem())?;
        std::fs::write(directory.join("key.pem"), made.signing_key.serialize_pem())?;
        std::fs::write(directory.join("nginx.conf"), configuration(directory, port))?;
        let server = Self {
            directory: directory.to_owned(),
            port,
        };
        server.command(&[])?;
        Ok(server)
    }

    /// How long curl takes to put this file there.
    ///
    /// # Errors
    /// If curl is not there or nginx refuses.
    pub(super) fn put(&self, source: &Path, name: &str) -> anyhow::Result<Duration> {
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--fail", "--insecure"])
            .args(["--tlsv1.3", "--write-out", "%{time_total}", "--upload-file"])
            .arg(source)
            .arg(format!("https://127.0.0.1:{}/{name}", self.port))
            .output()
            .with_context(|| format!("curl is needed: {NEEDED}"))?;
        let seconds: f64 = said(output)?.trim().parse().context("curl tells seconds")?;
        Ok(Duration::from_secs_f64(seconds))
    }

    fn command(&self, more: &[&str]) -> anyhow::Result<String> {
        let output = Command::new("nginx")
            .arg("-p")
            .arg(&self.directory)
            .arg("-c")
            .arg(self.directory.join("nginx.conf"))
            .args(more)
            .output()
            .with_context(|| format!("nginx is needed: {NEEDED}"))?;
        said(output)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        if let Err(error) = self.command(&["-s", "stop"]) {
            tracing::warn!(%error, "nginx did not end when told to");
        }
    }
}

/// What a program said on standard output, if it succeeded.
fn said(output: Output) -> anyhow::Result<String> {
    anyhow::ensure!(
        output.status.success(),
        "{}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}

fn configuration(directory: &Path, port: u16) -> String {
    let directory = directory.display();
    format!(
        "user root;
worker_processes 1;
pid {directory}/pid;
error_log {directory}/error.log;
events {{}}
http {{
    access_log off;
    client_max_body_size 0;
    client_body_temp_path {directory}/body;
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {directory}/cert.pem;
        ssl_certificate_key {directory}/key.pem;
        ssl_protocols TLSv1.3;
        root {directory}/files;
        location / {{ dav_methods PUT; }}
    }}
}}
"
    )
}
