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
use super::process::sleeps_of;
use super::row::{Mark, Row};

/// A ping and its acknowledgement every 10 s at most, in packets a minute.
const KEEP_ALIVES_A_MINUTE: f64 = 12.0;
/// A ping or an acknowledgement alone, sealed, is shorter than this.
const KEEP_ALIVE_BYTES: u16 = 64;
/// One keep-alive: the timer, the acknowledgement, and their own timers.
const SLEEPS_PER_KEEP_ALIVE: f64 = 8.0;
/// Until what the start brought is over, an unused bulk connection too.
const SETTLE: Duration = Duration::from_secs(20);
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
    let agent = farm.agents.first().context("there is one agent")?;
    let agent = agent.daemon.pid().context("it runs")?;
    let coordinator = farm.coordinator.daemon.pid().context("it runs")?;
    drop(capture(&ports, SETTLE).context("capturing packets needs root")?);

    let before = (sleeps_of(agent)?, sleeps_of(coordinator)?);
    let sizes = capture(&ports, time)?;
    let after = (sleeps_of(agent)?, sleeps_of(coordinator)?);
    Ok(rows(time, &sizes, [after.0 - before.0, after.1 - before.1]))
}

fn rows(time: Duration, sizes: &[u16], [agent, coordinator]: [u32; 2]) -> Vec<Row> {
    let minutes = time.as_secs_f64() / 60.0;
    let count = |number: usize| u32::try_from(number).map_or(f64::INFINITY, f64::from);
    let others = sizes
        .iter()
        .filter(|size| **size > KEEP_ALIVE_BYTES)
        .count();
    let keep_alives = count(sizes.len() - others) / 2.0;
    let longest = sizes.iter().max().copied().unwrap_or(0);
    let seconds = time.as_secs();
    let row = |id, what: &str, unit, median, most, note| Row {
        id,
        what: what.to_owned(),
        unit,
        median,
        p99: None,
        runs: 1,
        floor: None,
        mark: Mark::AtMost(most),
        note,
    };
    let per_keep_alive = |sleeps: u32| f64::from(sleeps) / keep_alives.max(1.0);
    let note = |sleeps: u32| format!("{sleeps} in {seconds} s, over all threads");
    vec![
        row(
            "idle-wire",
            "packets of an idle agent that are no keep-alives",
            "",
            count(others),
            0.0,
            format!(
                "the longest of all has {longest} bytes; up to {KEEP_ALIVE_BYTES} is a keep-alive"
            ),
        ),
        row(
            "idle-wire",
            "packets per idle agent and minute",
            "/min",
            count(sizes.len()) / minutes,
            KEEP_ALIVES_A_MINUTE,
            format!(
                "{} packets in {seconds} s; keep-alives are 2 per 10 to 15 s",
                sizes.len()
            ),
        ),
        row(
            "idle-wakes",
            "times the idle agent went to sleep again, per keep-alive",
            "",
            per_keep_alive(agent),
            SLEEPS_PER_KEEP_ALIVE,
            note(agent),
        ),
        row(
            "idle-wakes",
            "the same of the coordinator, per keep-alive of its one agent",
            "",
            per_keep_alive(coordinator),
            SLEEPS_PER_KEEP_ALIVE,
            note(coordinator),
        ),
    ]
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
