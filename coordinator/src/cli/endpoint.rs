//! Where the coordinator is. Owns the search order; on the coordinator's own
//! host nothing has to be configured.
//!
//! `--url`, else `--socket`, else the first socket of [`SOCKETS`] that exists;
//! one that is typed goes before the other from the environment.

use std::path::PathBuf;

use clap::ArgMatches;
use clap::parser::ValueSource;

use super::exit::{Failure, Result};

/// Where packages and a coordinator run by hand put their socket.
const SOCKETS: [&str; 2] = [
    "/run/farmbell/farmbell.sock",
    "/var/lib/farmbell/coordinator/farmbell.sock",
];

/// The HTTP port that a URL without one means.
const DEFAULT_PORT: u16 = 8442;

/// Options that say where the coordinator is.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct EndpointArgs {
    /// The coordinator's Unix socket
    #[arg(
        long,
        global = true,
        env = "FARMBELL_SOCKET",
        value_name = "PATH",
        help_heading = "Coordinator"
    )]
    pub socket: Option<PathBuf>,
    /// The coordinator's address, for example http://127.0.0.1:8442
    #[arg(
        long,
        global = true,
        env = "FARMBELL_URL",
        value_name = "URL",
        help_heading = "Coordinator"
    )]
    pub url: Option<String>,
    /// A file with the API token that writing through --url needs
    #[arg(
        long,
        global = true,
        env = "FARMBELL_TOKEN_FILE",
        value_name = "FILE",
        help_heading = "Coordinator"
    )]
    pub token_file: Option<PathBuf>,
}

impl EndpointArgs {
    /// Forgets what only the environment says where something else was typed.
    pub(super) fn prefer_typed(&mut self, matches: &ArgMatches) {
        let typed = |id| matches.value_source(id) == Some(ValueSource::CommandLine);
        if typed("socket") && !typed("url") {
            self.url = None;
        }
    }
}

/// A way to the coordinator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Unix(PathBuf),
    Tcp {
        host: String,
        port: u16,
        token: Option<String>,
    },
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Tcp { host, port, .. } => write!(f, "http://{host}:{port}"),
        }
    }
}

impl Endpoint {
    pub(super) fn find(args: &EndpointArgs) -> Result<Self> {
        if let Some(url) = &args.url {
            let token = match &args.token_file {
                Some(path) => Some(
                    std::fs::read_to_string(path)
                        .map_err(|e| Failure::file(path, &e))?
                        .trim()
                        .to_owned(),
                ),
                None => None,
            };
            return parse_url(url, token);
        }
        let socket = args
            .socket
            .clone()
            .or_else(|| SOCKETS.iter().map(PathBuf::from).find(|path| path.exists()));
        Ok(Self::Unix(socket.unwrap_or_else(|| SOCKETS[0].into())))
    }
}

fn parse_url(url: &str, token: Option<String>) -> Result<Endpoint> {
    let wrong = |why: &str| {
        Failure::usage(
            format!("--url {url}: {why}"),
            "Give the address as http://HOST:PORT, for example http://127.0.0.1:8442.",
        )
    };
    let uri: hyper::Uri = url.parse().map_err(|e| wrong(&format!("{e}")))?;
    match uri.scheme_str() {
        Some("http") => {}
        Some(other) => return Err(wrong(&format!("the scheme {other} is not spoken here"))),
        None => return Err(wrong("it has no scheme")),
    }
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err(wrong("it has a path"));
    }
    let host = uri.host().ok_or_else(|| wrong("it has no host"))?;
    Ok(Endpoint::Tcp {
        host: host.to_owned(),
        port: uri.port_u16().unwrap_or(DEFAULT_PORT),
        token,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_read_or_refused_with_its_fault() {
        let endpoint = parse_url("http://[::1]:9/", None).unwrap();
        assert_eq!(endpoint.to_string(), "http://[::1]:9");
        assert!(matches!(
            parse_url("http://farm", None).unwrap(),
            Endpoint::Tcp {
                port: DEFAULT_PORT,
                ..
            }
        ));
        for (url, fault) in [
            ("https://farm", "https"),
            ("farm:8442", "scheme"),
            ("http://farm/x", "path"),
        ] {
            let failure = parse_url(url, None).unwrap_err();
            assert!(failure.cause.contains(fault), "{}", failure.cause);
        }
    }
}
