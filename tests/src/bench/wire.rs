//! What an idle farm says: every packet between the coordinator and its agents,
//! captured on the loopback device. Needs root.

use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, setsockopt, socket,
    sockopt,
};
use nix::sys::time::TimeVal;

use super::Plan;
use super::row::{Mark, Row};

/// A ping and its acknowledgement every 10 s at most, in packets a minute.
const KEEP_ALIVES_A_MINUTE: f64 = 12.0;
const UDP: u8 = 17;
const ETHERNET_HEADER: usize = 14;
const PORTS_AT: usize = ETHERNET_HEADER + 20;

pub(super) fn measure(plan: &Plan) -> anyhow::Result<Vec<Row>> {
    let time = Duration::from_secs(if plan.short { 30 } else { 120 });
    let farm = plan.farm(4);
    let ports = [
        farm.coordinator.address("control").port(),
        farm.coordinator.address("bulk").port(),
    ];
    let sizes = capture(&ports, time).context("capturing packets needs root")?;
    let minutes = time.as_secs_f64() / 60.0;
    let packets = u32::try_from(sizes.len())?;
    let longest = sizes.iter().max().copied().unwrap_or(0);
    Ok(vec![Row {
        id: "idle-wire",
        what: "packets per idle agent and minute".to_owned(),
        unit: "/min",
        median: f64::from(packets) / minutes,
        p99: None,
        runs: 1,
        floor: None,
        mark: Mark::AtMost(KEEP_ALIVES_A_MINUTE),
        note: format!(
            "{packets} packets in {} s, the longest of {longest} bytes; keep-alives are 2 per 10 to 15 s",
            time.as_secs()
        ),
    }])
}

/// The UDP payload sizes of packets from or to these ports.
fn capture(ports: &[u16], time: Duration) -> anyhow::Result<Vec<u16>> {
    let capture = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::EthAll,
    )?;
    let until = Instant::now() + time;
    let mut sizes = Vec::new();
    let mut packet = [0; 2048];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(sizes);
        }
        let left = TimeVal::new(
            libc::time_t::try_from(left.as_secs())?,
            libc::suseconds_t::from(left.subsec_micros().max(1)),
        );
        setsockopt(&capture, sockopt::ReceiveTimeout, &left)?;
        let (length, from) = match recvfrom::<LinkAddr>(capture.as_raw_fd(), &mut packet) {
            Ok(received) => received,
            Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => continue,
            Err(error) => return Err(error.into()),
        };
        // Loopback shows each packet twice: as it leaves and as it comes.
        let leaves = from.is_some_and(|from| from.pkttype() == libc::PACKET_OUTGOING);
        if !leaves && let Some(size) = udp_payload(&packet[..length], ports) {
            sizes.push(size);
        }
    }
}

/// The payload size of an IPv4 UDP packet from or to one of the ports.
fn udp_payload(packet: &[u8], ports: &[u16]) -> Option<u16> {
    const PROTOCOL_AT: usize = ETHERNET_HEADER + 9;
    const HEADER: u16 = 8;
    if *packet.get(PROTOCOL_AT)? != UDP {
        return None;
    }
    let number = |at: usize| Some(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]));
    let (from, to) = (number(PORTS_AT)?, number(PORTS_AT + 2)?);
    let ours = ports.contains(&from) || ports.contains(&to);
    ours.then(|| number(PORTS_AT + 4))
        .flatten()
        .map(|length| length.saturating_sub(HEADER))
}
