//! Who asks. Owns the rules: on the Unix socket the kernel says who it is
//! (root, the coordinator's own user and the group `farmbell` are operators);
//! on loopback TCP everyone reads, and whoever shows the API token operates.
//!
//! Invariant: nothing that changes the farm can be called without an
//! [`Operator`], and only this file makes one.

use std::convert::Infallible;

use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::extract::{FromRequestParts, Request};
use axum::http::header::{AUTHORIZATION, HOST};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::serve::IncomingStream;
use farmbell_farm::event::Actor;
use farmbell_protocol::bounded::Text;
use nix::unistd::{Group, Uid, User, geteuid};
use subtle::ConstantTimeEq;
use tokio::net::{TcpListener, UnixListener};

use super::Api;
use super::limited::Limited;
use super::wire::{Code, Problem};

/// The group whose members operate the farm.
const OPERATORS: &str = "farmbell";

/// Where a connection comes from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Peer {
    /// As the kernel vouches for it; nobody where it does not.
    Local(Option<Uid>, Option<nix::unistd::Gid>),
    Tcp,
}

impl Connected<IncomingStream<'_, Limited<UnixListener>>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Limited<UnixListener>>) -> Self {
        match stream.io().io().peer_cred() {
            Ok(peer) => Self::Local(
                Some(Uid::from_raw(peer.uid())),
                Some(nix::unistd::Gid::from_raw(peer.gid())),
            ),
            Err(_) => Self::Local(None, None),
        }
    }
}

impl Connected<IncomingStream<'_, Limited<TcpListener>>> for Peer {
    fn connect_info(_: IncomingStream<'_, Limited<TcpListener>>) -> Self {
        Self::Tcp
    }
}

/// Anyone; operators see private jobs, too.
#[derive(Clone, Debug)]
pub(super) enum Caller {
    Operator(Actor),
    Reader,
}

/// Someone who may change the farm.
#[derive(Clone, Debug)]
pub(super) struct Operator(pub(super) Actor);

impl Caller {
    pub(super) const fn sees_private(&self) -> bool {
        match self {
            Self::Operator(_) => true,
            Self::Reader => false,
        }
    }
}

impl FromRequestParts<Api> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Infallible> {
        let caller = match parts.extensions.get::<ConnectInfo<Peer>>() {
            Some(ConnectInfo(Peer::Local(uid, gid))) => local(*uid, *gid).await,
            Some(ConnectInfo(Peer::Tcp)) if shows_token(&parts.headers, &api.api_token) => {
                Some(actor("token:api"))
            }
            Some(ConnectInfo(Peer::Tcp)) | None => None,
        };
        Ok(caller.map_or(Self::Reader, Self::Operator))
    }
}

impl FromRequestParts<Api> for Operator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        match Caller::from_request_parts(parts, api).await {
            Ok(Caller::Operator(actor)) => Ok(Self(actor)),
            Ok(Caller::Reader) => Err(refuse(parts)),
            Err(never) => match never {},
        }
    }
}

fn refuse(parts: &Parts) -> Problem {
    if let Some(ConnectInfo(Peer::Local(..))) = parts.extensions.get() {
        return Problem::new(
            Code::Forbidden,
            "you may look at this farm, but not change it",
            format!("Be root, or a member of the group {OPERATORS}: adduser USER {OPERATORS}"),
        );
    }
    let (cause, code) = if parts.headers.contains_key(AUTHORIZATION) {
        ("the API token shown is not this farm's", Code::Forbidden)
    } else {
        (
            "over TCP, changing the farm needs its API token",
            Code::Unauthorized,
        )
    };
    let fix = "Send 'Authorization: Bearer TOKEN' with the coordinator's file api.token \
               (farmbell --token-file FILE), or use its Unix socket.";
    Problem::new(code, cause, fix)
}

fn shows_token(headers: &HeaderMap, token: &str) -> bool {
    headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "))
        .is_some_and(|shown| shown.trim().as_bytes().ct_eq(token.as_bytes()).into())
}

/// The operator behind a local connection. Users and groups may come over a
/// network, so they are asked for off the async threads.
async fn local(uid: Option<Uid>, gid: Option<nix::unistd::Gid>) -> Option<Actor> {
    let uid = uid?;
    let found = tokio::task::spawn_blocking(move || {
        let name = match User::from_uid(uid) {
            Ok(Some(user)) => user.name,
            Ok(None) | Err(_) => format!("uid {uid}"),
        };
        let member = || match Group::from_name(OPERATORS) {
            Ok(Some(group)) => Some(group.gid) == gid || group.mem.contains(&name),
            Ok(None) | Err(_) => false,
        };
        (uid.is_root() || uid == geteuid() || member()).then(|| actor(&name))
    });
    found.await.ok().flatten()
}

fn actor(name: &str) -> Actor {
    Actor {
        name: Text::cut(name),
    }
}

/// Refuses requests over TCP that a stranger's web page may have made: its own
/// host name was made to point here (DNS rebinding), or it posts from another
/// origin.
pub(super) async fn same_site(
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
    next: Next,
) -> Response {
    let trusted = match peer {
        Peer::Local(..) => true,
        Peer::Tcp => request.headers().contains_key(AUTHORIZATION) || is_address(request.headers()),
    };
    if trusted {
        return next.run(request).await;
    }
    Problem::new(
        Code::Forbidden,
        "the request names this host by a name that anyone could have pointed here",
        "Use an address, for example http://127.0.0.1:8442; a proxy has to set Host so.",
    )
    .into_response()
}

fn is_address(headers: &HeaderMap) -> bool {
    let Some(uri) = headers
        .get(HOST)
        .and_then(|host| host.to_str().ok())
        .and_then(|host| format!("http://{host}/").parse::<Uri>().ok())
    else {
        return false;
    };
    uri.host().is_some_and(|host| {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        bare == "localhost" || bare.parse::<std::net::IpAddr>().is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: axum::http::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    #[test]
    fn only_the_whole_token_counts() {
        let shown = |value| shows_token(&headers(AUTHORIZATION, value), "secret");
        assert!(shown("Bearer secret"));
        assert!(!shown("Bearer secre"));
        assert!(!shown("Bearer "));
        assert!(!shown("Basic secret"));
    }

    #[test]
    fn a_name_that_was_pointed_here_is_no_address() {
        let is = |host| is_address(&headers(HOST, host));
        assert!(is("127.0.0.1:8442") && is("[::1]:8442") && is("localhost"));
        assert!(!is("evil.example:8442") && !is("127.0.0.1.evil.example"));
    }
}
