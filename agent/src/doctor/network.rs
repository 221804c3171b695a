//! Looks at the way to the coordinator: name, UDP, path MTU, buffers, the
//! handshake itself.

use std::fs;
use std::net::{SocketAddr, UdpSocket};

use farmbell_protocol::client::dial::dial;
use farmbell_protocol::client::identity::Identity;
use farmbell_protocol::client::quic::Profile;
use farmbell_protocol::client::session::Coordinator;
use farmbell_protocol::version::CloseCode;
use nix::sys::socket::{getsockopt, sockopt};

use super::Finding;
use crate::config::Config;
use crate::join::{CoordinatorFile, KnownError, identity_directory};

/// QUIC does not work below this.
const MTU_MIN: i32 = 1280;
/// Bursts of a transfer fit in this; the usual limit is a fifth of it.
const BUFFER_MIN: u64 = 1 << 20;

pub(super) async fn look(config: &Config) -> Vec<Finding> {
    let mut findings = vec![buffers()];
    let coordinator = match CoordinatorFile::at(&config.state).read() {
        Ok(coordinator) => coordinator,
        Err(error @ KnownError::NotJoined) => {
            let fix = "farmbell-agent join TOKEN";
            findings.push(Finding::failed("coordinator", error.to_string(), fix));
            return findings;
        }
        Err(error @ KnownError::Damaged { .. }) => {
            let fix = "remove the file and join again with a new token";
            findings.push(Finding::failed("coordinator", error.to_string(), fix));
            return findings;
        }
    };
    match tokio::net::lookup_host(&coordinator.address).await {
        Err(error) => findings.push(Finding::failed(
            "name resolution",
            format!("{}: {error}", coordinator.address),
            format!("getent hosts {}", host_of(&coordinator.address)),
        )),
        Ok(addresses) => {
            let addresses: Vec<SocketAddr> = addresses.collect();
            let shown: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
            findings.push(Finding::ok("name resolution", shown.join(", ")));
            findings.extend(addresses.first().map(|address| path_mtu(*address)));
            findings.push(reach(config, &coordinator).await);
        }
    }
    findings
}

fn host_of(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(host, _)| host)
}

fn buffers() -> Finding {
    let file = "/proc/sys/net/core/rmem_max";
    let max: u64 = fs::read_to_string(file)
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0);
    let found = format!("sockets may buffer {} KiB", max >> 10);
    if max < BUFFER_MIN {
        let fix = "sysctl -w net.core.rmem_max=4194304 net.core.wmem_max=4194304";
        return Finding::degraded(
            "socket buffers",
            format!("{found}: large transfers slow down"),
            fix,
        );
    }
    Finding::ok("socket buffers", found)
}

fn path_mtu(address: SocketAddr) -> Finding {
    let any = if address.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    };
    let mtu = UdpSocket::bind(any).and_then(|socket| {
        socket.connect(address)?;
        if address.is_ipv4() {
            Ok(getsockopt(&socket, sockopt::IpMtu)?)
        } else {
            Ok(MTU_MIN)
        }
    });
    match mtu {
        Ok(mtu) if mtu >= MTU_MIN => Finding::ok("path MTU", format!("at least {mtu} bytes")),
        Ok(mtu) => Finding::failed(
            "path MTU",
            format!("{mtu} bytes; QUIC needs {MTU_MIN}"),
            "ip link set dev DEVICE mtu 1500",
        ),
        Err(error) => Finding::failed(
            "path MTU",
            format!("no way to {address}: {error}"),
            format!("ip route get {}", address.ip()),
        ),
    }
}

async fn reach(config: &Config, coordinator: &Coordinator) -> Finding {
    let identity = match Identity::load_or_create(&identity_directory(&config.state)) {
        Ok(identity) => identity,
        Err(error) => {
            let fix = "remove the identity directory and join again";
            return Finding::failed("coordinator", error.to_string(), fix);
        }
    };
    let address = &coordinator.address;
    match dial(address, &identity, &coordinator.pins, Profile::Control).await {
        Ok(connection) => {
            let round_trip = connection.traffic().round_trip;
            connection.close(CloseCode::Done, "the doctor has seen enough");
            connection.drained().await;
            let found =
                format!("{address} answers in {round_trip:.1?} and shows the key it should");
            Finding::ok("coordinator", found)
        }
        Err(error) => Finding::failed(
            "coordinator",
            error.to_string(),
            format!(
                "let UDP to {address} through the firewalls between; on the coordinator: systemctl status farmbell-coordinator"
            ),
        ),
    }
}
