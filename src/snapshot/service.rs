//! The Services that a Rollout switches (strategy BlueGreen), reduced to what decisions need.
use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::api::names;

/// The Services that a Rollout names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Services {
    /// activeService.
    pub active: ServiceSeen,
    /// previewService; Unknown where none is named.
    pub preview: ServiceSeen,
    /// Another Rollout that names one of them.
    pub claimed_by: Option<String>,
    /// By name, those that the Rollout has named before, as status says, and that no other names now.
    pub former: BTreeMap<String, ServiceSeen>,
}

/// What is known of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ServiceSeen {
    /// It has not been read, or may not be; or our own last write to it has not come back yet.
    #[default]
    Unknown,
    /// There is none of this name.
    Missing,
    /// It.
    Seen(Service),
}

/// A Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Object name.
    pub name: String,
    /// Object uid.
    pub uid: String,
    /// Object resourceVersion.
    pub resource_version: String,
    /// spec.selector.
    pub selector: BTreeMap<String, String>,
    /// Name of the Rollout that may switch it, from the annotation.
    pub rollout: Option<String>,
    /// The last switch, from the annotations.
    pub switched: Option<Switched>,
}

/// When a Service was switched, and from which revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Switched {
    /// Name of the ControllerRevision that it selected before.
    pub from: String,
    /// When.
    pub at: Timestamp,
}

impl ServiceSeen {
    /// It, where it is known.
    pub fn seen(&self) -> Option<&Service> {
        if let Self::Seen(service) = self { Some(service) } else { None }
    }
}

impl Service {
    /// Name of the revision whose Pods it selects; None while it selects those of any.
    pub fn revision(&self) -> Option<&str> {
        self.selector.get(names::LABEL_REVISION).map(String::as_str)
    }
}
