//! Hosts in network namespaces of their own, joined by a router that drops
//! what a test tells it to. Owns making and removing them; what runs on a
//! host is its daemon's.
//!
//! ```text
//! host 0 (coordinator) ──e0 h0── router ──h1 e0── host 1 (agent)
//!        10.77.0.2                       └─h2 e0── host 2 (agent)
//! ```
//!
//! The router translates the agents' addresses, as a NAT would. The addresses
//! exist in these namespaces only, so runs do not see each other.

use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, bail};

use super::around::passed_on;

/// What makes the tools appear; who is not root needs `sudo` before it.
const MEND: &str = "as root, type: bash packaging/setup debs iproute2 nftables conntrack";
/// The router's rules, before any fault.
const RULES: &str = "
table ip faults {
  counter dropped { }
  chain forward { type filter hook forward priority 0; }
  chain translate { type nat hook postrouting priority 100
    ip saddr != 10.77.0.0/24 masquerade random
  }
}
";

/// Makes names unique within this process.
static MADE: AtomicU32 = AtomicU32::new(0);

/// The namespaces; they go when this is dropped.
#[derive(Debug)]
pub struct Network {
    router: String,
    hosts: Vec<Host>,
}

/// One host: where its daemon runs, and under which address.
#[derive(Clone, Debug)]
pub struct Host {
    namespace: String,
    number: u8,
    /// The last part of its address.
    part: u8,
}

impl Network {
    /// A router and this many hosts.
    ///
    /// # Errors
    /// If namespaces cannot be made here; the text names the command that
    /// mends it.
    pub fn of(hosts: u8) -> anyhow::Result<Self> {
        let made = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("farmbell-{}-{made}", std::process::id());
        let mut network = Self {
            router: format!("{name}-r"),
            hosts: Vec::new(),
        };
        network
            .make(&name, hosts)
            .with_context(|| format!("network namespaces cannot be made here; {MEND}"))?;
        Ok(network)
    }

    fn make(&mut self, name: &str, hosts: u8) -> anyhow::Result<()> {
        ip(&["netns", "add", &self.router])?;
        on_router(self, "ip", &["link", "set", "lo", "up"], "")?;
        let forward = "echo 1 > /proc/sys/net/ipv4/ip_forward";
        on_router(self, "sh", &["-c", forward], "")?;
        for number in 0..hosts {
            let host = Host {
                namespace: format!("{name}-{number}"),
                number,
                part: 2,
            };
            ip(&["netns", "add", &host.namespace])?;
            // From here on it is removed with the network.
            self.hosts.push(host.clone());
            self.join(&host)?;
        }
        on_router(self, "nft", &["-f", "-"], RULES)
    }

    fn join(&self, host: &Host) -> anyhow::Result<()> {
        let (namespace, port) = (host.namespace.as_str(), format!("h{}", host.number));
        let router = self.router.as_str();
        let gateway = format!("{}/24", host.gateway());
        ip(&[
            "-n", namespace, "link", "add", "e0", "type", "veth", "peer", "name", &port, "netns",
            router,
        ])?;
        ip(&["-n", router, "addr", "add", &gateway, "dev", &port])?;
        ip(&["-n", router, "link", "set", &port, "up"])?;
        ip(&["-n", namespace, "link", "set", "lo", "up"])?;
        ip(&["-n", namespace, "link", "set", "e0", "up"])?;
        host.take_address()
    }

    #[must_use]
    pub fn host(&self, number: usize) -> Host {
        self.hosts[number].clone()
    }

    /// Everything of the agents' that matches is dropped without a word, both
    /// ways, until [`heal`](Self::heal).
    ///
    /// # Errors
    /// If the router refuses the rule.
    pub fn drop_what(&self, matches: &str) -> anyhow::Result<()> {
        let rule = format!("add rule ip faults forward {matches} counter name dropped drop\n");
        on_router(self, "nft", &["-f", "-"], &rule)
    }

    /// # Errors
    /// If the router refuses.
    pub fn heal(&self) -> anyhow::Result<()> {
        on_router(
            self,
            "nft",
            &["flush", "chain", "ip", "faults", "forward"],
            "",
        )
    }

    /// How many packets the router dropped so far.
    ///
    /// # Errors
    /// If the router does not say.
    pub fn dropped(&self) -> anyhow::Result<u64> {
        let said = self
            .router_command("nft", &["list", "counter", "ip", "faults", "dropped"])
            .output()?;
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        let mut words = text.split_ascii_whitespace();
        let packets = words.by_ref().find(|word| *word == "packets");
        packets
            .and_then(|_| words.next()?.parse().ok())
            .with_context(|| format!("no counter in: {text}"))
    }

    /// Pulls a host's plug, or puts it in again, at the router's end.
    ///
    /// # Errors
    /// If the router refuses.
    pub fn plug(&self, number: usize, state: Plug) -> anyhow::Result<()> {
        let port = format!("h{number}");
        let state = match state {
            Plug::In => "up",
            Plug::Out => "down",
        };
        on_router(self, "ip", &["link", "set", &port, state], "")
    }

    /// Forgets which outer port stands for whom: the next packet of each agent
    /// seems to come from somewhere else.
    ///
    /// # Errors
    /// If the router refuses.
    pub fn rebind(&self) -> anyhow::Result<()> {
        on_router(self, "conntrack", &["-F"], "")
    }

    /// Gives a host another address.
    ///
    /// # Errors
    /// If the host refuses it.
    pub fn readdress(&mut self, number: usize) -> anyhow::Result<()> {
        let host = &mut self.hosts[number];
        host.part = if host.part < 250 { host.part + 1 } else { 2 };
        host.take_address()
    }

    fn router_command(&self, program: &str, arguments: &[&str]) -> Command {
        inside(&self.router, Command::new(program).args(arguments))
    }
}

/// Whether a cable is in its socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plug {
    In,
    Out,
}

impl Host {
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, self.number, self.part)
    }

    fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, self.number, 1)
    }

    /// The command, to run on this host.
    #[must_use]
    pub fn runs(&self, command: &Command) -> Command {
        inside(&self.namespace, command)
    }

    fn take_address(&self) -> anyhow::Result<()> {
        let (namespace, gateway) = (self.namespace.as_str(), self.gateway().to_string());
        let address = format!("{}/24", self.address());
        ip(&["-n", namespace, "addr", "flush", "dev", "e0"])?;
        ip(&["-n", namespace, "addr", "add", &address, "dev", "e0"])?;
        ip(&["-n", namespace, "route", "add", "default", "via", &gateway])
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let hosts = self.hosts.iter().map(|host| host.namespace.as_str());
        for namespace in hosts.chain([self.router.as_str()]) {
            // It may never have been made; who reads this has an error already.
            drop(ip(&["netns", "del", namespace]));
        }
    }
}

/// `ip netns exec` would hide the control groups; only the network is changed
/// here, and the process stays the one that was started.
fn inside(namespace: &str, command: &Command) -> Command {
    let mut inside = Command::new("nsenter");
    inside
        .arg(format!("--net=/run/netns/{namespace}"))
        .arg("--");
    passed_on(&mut inside, command);
    inside
}

fn ip(arguments: &[&str]) -> anyhow::Result<()> {
    done(Command::new("ip").args(arguments), "")
}

fn on_router(
    network: &Network,
    program: &str,
    arguments: &[&str],
    input: &str,
) -> anyhow::Result<()> {
    done(&mut network.router_command(program, arguments), input)
}

fn done(command: &mut Command, input: &str) -> anyhow::Result<()> {
    let line = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| line.clone())?;
    let mut stdin = child.stdin.take().context("its input is piped")?;
    std::io::Write::write_all(&mut stdin, input.as_bytes())?;
    drop(stdin);
    let said = child.wait_with_output()?;
    if !said.status.success() {
        bail!("{line}: {}", String::from_utf8_lossy(&said.stderr).trim());
    }
    Ok(())
}
