//! The network inside: loopback, and two ranges of addresses that are all this machine's own, so
//! that any Pod or Service address can be bound without further set-up. Spoken in rtnetlink, as
//! `ip` may be missing.
use std::{fs, net::Ipv4Addr, os::fd::AsRawFd};

use anyhow::{Context, Result};

use super::machine::Machine;
use super::nodes::NodesSpec;
use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket},
};

/// A new network namespace numbers its loopback interface so.
const LOOPBACK_INDEX: u32 = 1;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_CREATE: u16 = 0x400;
const NLMSG_ERROR: u16 = 2;
const IFF_UP: u32 = 1;
const AF_INET: u8 = 2;
/// The bridges of machines are numbered from here; indexes of interfaces can be asked for.
const BRIDGE_INDEX: u32 = 1000;

/// `ip link set lo up; ip route add local RANGE dev lo` for Services and for Pods that are processes; a bridge for the
/// Pods of each machine.
///
/// The API server's port is kept from clients: while it restarts, one that connects to it could be
/// given that very port to connect from, and would then talk to itself and keep the server out.
pub fn set_up(apiserver_port: u16, nodes: NodesSpec) -> Result<()> {
    fs::write("/proc/sys/net/ipv4/ip_local_reserved_ports", apiserver_port.to_string())
        .context("cannot reserve the API server's port")?;
    request(&link_up()).context("cannot bring the loopback interface up")?;
    for (range, prefix) in local_ranges(nodes) {
        request(&local_route(range, prefix)).with_context(|| format!("cannot make {range}/{prefix} local"))?;
    }
    if nodes.kubelet > 0 {
        fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("cannot have packets forwarded between machines")?;
    }
    nodes.machines().try_for_each(bridge)
}

/// All of 10.244.0.0/16 unless parts of it are behind bridges: what is local is not looked for elsewhere.
fn local_ranges(nodes: NodesSpec) -> Vec<(Ipv4Addr, u8)> {
    let services = (Ipv4Addr::new(10, 96, 0, 0), 16);
    if nodes.kubelet == 0 {
        return vec![services, (Ipv4Addr::new(10, 244, 0, 0), 16)];
    }
    let pods = nodes.process_networks().chain([255]).map(|network| (Ipv4Addr::new(10, 244, network as u8, 0), 24));
    [services].into_iter().chain(pods).collect()
}

/// `ip link add NAME address ADDRESS type bridge; ip addr add 10.244.N.1/24 dev NAME; ip link set NAME up`.
///
/// A bridge without an address of its own takes the lowest of its ports, and another one whenever that port comes or goes.
/// Pods that know the old one reach nothing for up to a minute then.
fn bridge(machine: Machine) -> Result<()> {
    let index = BRIDGE_INDEX + u32::from(machine.number);
    let [a, b, c, d] = machine.address().octets();
    let own = [0x02, 0, a, b, c, d]; // locally administered
    let made = request(&new_link(&machine.bridge(), "bridge", index, Some(own)));
    made.with_context(|| format!("cannot make the bridge of {}", machine.name()))?;
    request(&address(machine.address(), 24, index))
        .with_context(|| format!("cannot give {} an address", machine.name()))
}

/// Fails unless the kernel has the devices of machines; call in a network namespace that is of no use for anything else.
pub fn check_devices() -> Result<()> {
    for (kind, index) in [("bridge", 100), ("veth", 200)] {
        request(&new_link("check0", kind, index, None))
            .with_context(|| format!("this kernel makes no {kind} devices"))?;
        request(&message(RTM_DELLINK, 0, &link(index, false)))?;
    }
    Ok(())
}

fn link(index: u32, up: bool) -> Vec<u8> {
    let flags = if up { IFF_UP } else { 0 };
    let mut body = vec![0; 4]; // family, padding, type: any
    body.extend(index.to_ne_bytes());
    body.extend(flags.to_ne_bytes());
    body.extend(flags.to_ne_bytes()); // which of them change
    body
}

fn new_link(name: &str, kind: &str, index: u32, own: Option<[u8; 6]>) -> Vec<u8> {
    const IFLA_ADDRESS: u16 = 1;
    const IFLA_IFNAME: u16 = 3;
    const IFLA_LINKINFO: u16 = 18;
    const IFLA_INFO_KIND: u16 = 1;
    let mut body = link(index, true);
    body.extend(attribute(IFLA_IFNAME, format!("{name}\0").as_bytes()));
    if let Some(own) = own {
        body.extend(attribute(IFLA_ADDRESS, &own));
    }
    body.extend(attribute(IFLA_LINKINFO, &attribute(IFLA_INFO_KIND, kind.as_bytes())));
    message(RTM_NEWLINK, NLM_F_CREATE, &body)
}

fn address(address: Ipv4Addr, prefix_length: u8, index: u32) -> Vec<u8> {
    const IFA_ADDRESS: u16 = 1;
    const IFA_LOCAL: u16 = 2;
    let mut body = vec![AF_INET, prefix_length, 0, 0];
    body.extend(index.to_ne_bytes());
    body.extend(attribute(IFA_LOCAL, &address.octets()));
    body.extend(attribute(IFA_ADDRESS, &address.octets()));
    message(RTM_NEWADDR, NLM_F_CREATE, &body)
}

/// Length (this header and the value), kind, value; filled up to four bytes.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut attribute = Vec::new();
    attribute.extend((4 + value.len() as u16).to_ne_bytes());
    attribute.extend(kind.to_ne_bytes());
    attribute.extend(value);
    attribute.resize(attribute.len().next_multiple_of(4), 0);
    attribute
}

fn link_up() -> Vec<u8> {
    message(RTM_NEWLINK, 0, &link(LOOPBACK_INDEX, true))
}

fn local_route(range: Ipv4Addr, prefix_length: u8) -> Vec<u8> {
    const RT_TABLE_LOCAL: u8 = 255;
    const RTPROT_BOOT: u8 = 3;
    const RT_SCOPE_HOST: u8 = 254;
    const RTN_LOCAL: u8 = 2;
    const RTA_DST: u16 = 1;
    const RTA_OIF: u16 = 4;
    let mut body =
        vec![AF_INET, prefix_length, 0, 0, RT_TABLE_LOCAL, RTPROT_BOOT, RT_SCOPE_HOST, RTN_LOCAL, 0, 0, 0, 0];
    for (kind, value) in [(RTA_DST, range.octets()), (RTA_OIF, LOOPBACK_INDEX.to_ne_bytes())] {
        body.extend(attribute(kind, &value));
    }
    message(RTM_NEWROUTE, NLM_F_CREATE, &body)
}

fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    message.extend((16 + body.len() as u32).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend((NLM_F_REQUEST | NLM_F_ACK | flags).to_ne_bytes());
    message.extend([0; 8]); // sequence, port: one request a socket
    message.extend(body);
    message
}

fn request(message: &[u8]) -> Result<()> {
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    let kernel = NetlinkAddr::new(0, 0);
    sendto(socket.as_raw_fd(), message, &kernel, MsgFlags::empty())?;
    let mut answer = [0; 4096];
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    outcome(&answer[..length])
}

/// An answer is a header (its type in bytes 4..6) and a negated error number, 0 for success.
fn outcome(answer: &[u8]) -> Result<()> {
    let field = |from: usize, to: usize| answer.get(from..to).context("rtnetlink answer cut short");
    let kind = u16::from_ne_bytes(field(4, 6)?.try_into()?);
    anyhow::ensure!(kind == NLMSG_ERROR, "unexpected rtnetlink answer {kind}");
    match i32::from_ne_bytes(field(16, 20)?.try_into()?) {
        0 => Ok(()),
        error => Err(Errno::from_raw(-error).into()),
    }
}
