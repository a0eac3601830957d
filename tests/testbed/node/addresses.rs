//! The addresses of a node's Pods.
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    str::FromStr,
    sync::{Mutex, PoisonError},
};

use anyhow::{Context, Result};

use super::store::PodDir;

/// The range a node takes its Pods' addresses from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodCidr {
    network: u32,
    prefix_length: u32,
}

impl FromStr for PodCidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('/').and_then(|(address, length)| {
            let network = address.parse::<Ipv4Addr>().ok()?.to_bits();
            let prefix_length = length.parse().ok().filter(|length| (16..=30).contains(length))?;
            (network.trailing_zeros() >= 32 - prefix_length).then_some(Self { network, prefix_length })
        });
        parsed.ok_or_else(|| format!("{text:?} is not a network such as 10.244.1.0/24"))
    }
}

impl PodCidr {
    /// How many Pods can have an address: all but the network's own, the node's and the broadcast one.
    pub fn size(self) -> u32 {
        (1 << (32 - self.prefix_length)) - 3
    }

    fn nth(self, index: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network + 2 + index)
    }
}

/// Which addresses are taken. A freed one comes round last, so that a connection to a Pod that is
/// gone does not reach another soon.
pub struct Addresses {
    cidr: PodCidr,
    taken: Mutex<(u32, BTreeSet<Ipv4Addr>)>,
}

impl Addresses {
    /// `known`: the Pods of an earlier run of the node, which keep their addresses.
    pub fn new(cidr: PodCidr, known: &[PodDir]) -> Self {
        let addresses = known.iter().filter_map(|dir| std::fs::read_to_string(dir.address_file()).ok()?.parse().ok());
        Self { cidr, taken: Mutex::new((0, addresses.collect())) }
    }

    /// The Pod's address: the one it has had, or a free one.
    pub fn take(&self, dir: &PodDir) -> Result<Ipv4Addr> {
        let file = dir.address_file();
        if let Ok(text) = std::fs::read_to_string(&file) {
            return text.parse().with_context(|| format!("{} is damaged", file.display()));
        }
        let address = self.free_one().context("no address is free on this node")?;
        std::fs::write(&file, address.to_string()).with_context(|| format!("cannot write {}", file.display()))?;
        Ok(address)
    }

    fn free_one(&self) -> Option<Ipv4Addr> {
        let mut guard = self.lock();
        let (next, taken) = &mut *guard;
        let size = self.cidr.size();
        let index =
            (0..size).map(|step| (*next + step) % size).find(|index| !taken.contains(&self.cidr.nth(*index)))?;
        *next = index + 1;
        taken.insert(self.cidr.nth(index));
        Some(self.cidr.nth(index))
    }

    pub fn release(&self, address: IpAddr) {
        if let IpAddr::V4(address) = address {
            self.lock().1.remove(&address);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (u32, BTreeSet<Ipv4Addr>)> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freed_address_comes_round_last() {
        let addresses = Addresses::new("10.244.1.0/29".parse().unwrap(), &[]);
        let take = || addresses.free_one().map(|address| address.octets()[3]);
        assert_eq!([take(), take()], [Some(2), Some(3)]);
        addresses.release([10, 244, 1, 2].into());
        let take = || addresses.free_one().map(|address| address.octets()[3]);
        assert_eq!([take(), take(), take(), take(), take()], [Some(4), Some(5), Some(6), Some(2), None]);
    }

    #[test]
    fn only_networks_are_ranges() {
        for bad in ["10.244.1.1/24", "10.244.1.0", "10.244.0.0/8", "x/24", "10.244.1.0/31"] {
            assert!(bad.parse::<PodCidr>().is_err(), "{bad}");
        }
    }
}
