//! The network inside: loopback, and two ranges of addresses that are all this machine's own, so
//! that any Pod or Service address can be bound without further set-up. Spoken in rtnetlink, as
//! `ip` may be missing.
use std::{fs, net::Ipv4Addr, os::fd::AsRawFd};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket},
};

/// A new network namespace numbers its loopback interface so.
const LOOPBACK_INDEX: u32 = 1;

const RTM_NEWLINK: u16 = 16;
const RTM_NEWROUTE: u16 = 24;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_CREATE: u16 = 0x400;
const NLMSG_ERROR: u16 = 2;
const IFF_UP: u32 = 1;

/// `ip link set lo up; ip route add local RANGE/16 dev lo` for Pods and Services.
///
/// The API server's port is kept from clients: while it restarts, one that connects to it could be
/// given that very port to connect from, and would then talk to itself and keep the server out.
pub fn set_up(apiserver_port: u16) -> Result<()> {
    fs::write("/proc/sys/net/ipv4/ip_local_reserved_ports", apiserver_port.to_string())
        .context("cannot reserve the API server's port")?;
    request(&link_up()).context("cannot bring the loopback interface up")?;
    for range in [Ipv4Addr::new(10, 244, 0, 0), Ipv4Addr::new(10, 96, 0, 0)] {
        request(&local_route(range, 16)).with_context(|| format!("cannot make {range}/16 local"))?;
    }
    Ok(())
}

fn link_up() -> Vec<u8> {
    let mut body = vec![0; 4]; // family, padding, type: any
    body.extend(LOOPBACK_INDEX.to_ne_bytes());
    body.extend(IFF_UP.to_ne_bytes()); // flags
    body.extend(IFF_UP.to_ne_bytes()); // which of them change
    message(RTM_NEWLINK, 0, &body)
}

fn local_route(range: Ipv4Addr, prefix_length: u8) -> Vec<u8> {
    const AF_INET: u8 = 2;
    const RT_TABLE_LOCAL: u8 = 255;
    const RTPROT_BOOT: u8 = 3;
    const RT_SCOPE_HOST: u8 = 254;
    const RTN_LOCAL: u8 = 2;
    const RTA_DST: u16 = 1;
    const RTA_OIF: u16 = 4;
    let mut body =
        vec![AF_INET, prefix_length, 0, 0, RT_TABLE_LOCAL, RTPROT_BOOT, RT_SCOPE_HOST, RTN_LOCAL, 0, 0, 0, 0];
    for (kind, value) in [(RTA_DST, range.octets()), (RTA_OIF, LOOPBACK_INDEX.to_ne_bytes())] {
        body.extend(8_u16.to_ne_bytes()); // length: this header and the value
        body.extend(kind.to_ne_bytes());
        body.extend(value);
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
