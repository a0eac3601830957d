//! The endpoints that requests may go to: those of a Service that are ready, followed by watch as a proxy does.
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use anyhow::{Result, bail};
use futures::StreamExt;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{
    Api, ResourceExt,
    runtime::watcher::{self, Event},
};
use tokio::sync::watch;

/// Pause before a watch that ended with an error is begun anew.
const RETRY: Duration = Duration::from_millis(200);

/// One address that answers for the Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    pub address: SocketAddr,
    /// Name of the Pod behind it; empty when not known.
    pub pod: String,
}

/// All ready endpoints, sorted.
pub type Endpoints = Arc<[Endpoint]>;

/// Publishes the ready endpoints of `service` whenever they change. What is known stays while the API server is away.
/// Ends only with an error: an address outside the test networks.
pub async fn follow(api: Api<EndpointSlice>, service: &str, publish: watch::Sender<Endpoints>) -> Result<()> {
    let config = watcher::Config::default().labels(&format!("kubernetes.io/service-name={service}"));
    loop {
        let mut slices = BTreeMap::new();
        let mut listed = BTreeMap::new();
        let mut events = pin!(watcher::watcher(api.clone(), config.clone()));
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => {
                    listed.clear();
                    continue;
                }
                Ok(Event::InitApply(slice)) => {
                    listed.insert(slice.name_any(), slice);
                    continue;
                }
                Ok(Event::InitDone) => slices = std::mem::take(&mut listed),
                Ok(Event::Apply(slice)) => {
                    slices.insert(slice.name_any(), slice);
                }
                Ok(Event::Delete(slice)) => {
                    slices.remove(&slice.name_any());
                }
                // A watcher does not recover from every error by itself (410 at the start of a watch): list anew.
                Err(error) => {
                    eprintln!("load: watch of EndpointSlices: {error}");
                    break;
                }
            }
            let ready = ready(slices.values())?;
            publish.send_if_modified(|known| {
                let changed = **known != *ready;
                *known = ready;
                changed
            });
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// The ready endpoints of all slices, each address once.
fn ready<'a>(slices: impl Iterator<Item = &'a EndpointSlice>) -> Result<Endpoints> {
    let mut ready = BTreeMap::new();
    for slice in slices {
        let Some(port) = slice.ports.iter().flatten().find_map(|port| port.port) else { continue };
        for endpoint in slice.endpoints.iter().flatten() {
            // Absent means unknown, which consumers are to take for ready.
            if endpoint.conditions.as_ref().and_then(|conditions| conditions.ready) == Some(false) {
                continue;
            }
            let pod = endpoint.target_ref.as_ref().and_then(|target| target.name.clone()).unwrap_or_default();
            for address in &endpoint.addresses {
                let address = SocketAddr::new(address.parse()?, u16::try_from(port)?);
                check(address)?;
                ready.insert(address, Endpoint { address, pod: pod.clone() });
            }
        }
    }
    Ok(ready.into_values().collect())
}

/// Requests go to loopback and to the Pod network of a test cluster, and to nothing else.
pub fn check(address: SocketAddr) -> Result<()> {
    let allowed = match address.ip() {
        IpAddr::V4(ip) => ip.is_loopback() || ip.octets()[..2] == Ipv4Addr::new(10, 244, 0, 0).octets()[..2],
        IpAddr::V6(ip) => ip.is_loopback(),
    };
    if !allowed {
        bail!("{address} is neither loopback nor in 10.244.0.0/16: load goes to test networks only");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn slice(endpoints: &serde_json::Value) -> EndpointSlice {
        serde_json::from_value(json!({
            "metadata": {"name": "web-abc"},
            "addressType": "IPv4",
            "ports": [{"port": 8080}],
            "endpoints": endpoints,
        }))
        .unwrap()
    }

    #[test]
    fn only_ready_endpoints_get_requests() {
        let slice = slice(&json!([
            {"addresses": ["10.244.0.3"], "conditions": {"ready": true}, "targetRef": {"kind": "Pod", "name": "web-3-a"}},
            {"addresses": ["10.244.0.2"]},
            {"addresses": ["10.244.0.1"], "conditions": {"ready": false, "serving": true, "terminating": true}},
        ]));
        let found: Vec<_> = ready([&slice].into_iter()).unwrap().iter().map(|it| it.address.to_string()).collect();
        assert_eq!(found, ["10.244.0.2:8080", "10.244.0.3:8080"]);
    }

    #[test]
    fn addresses_of_other_networks_are_refused() {
        for (address, allowed) in [
            ("127.0.0.1:80", true),
            ("127.8.0.1:80", true),
            ("[::1]:80", true),
            ("10.244.7.9:80", true),
            ("10.245.0.1:80", false),
            ("10.24.4.1:80", false),
            ("192.168.1.1:80", false),
            ("93.184.216.34:443", false),
        ] {
            assert_eq!(check(address.parse().unwrap()).is_ok(), allowed, "{address}");
        }
        assert!(ready([&slice(&json!([{"addresses": ["192.168.1.1"]}]))].into_iter()).is_err());
    }
}
