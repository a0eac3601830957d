//! I4: Whose an object is, by its metadata.
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::api::names;

/// The Rollout that controls an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner {
    /// Its name; its namespace is the object's own.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

/// In place of an owner's uid: no object has it.
pub const ORPHANED: &str = "";

/// The Rollout that controls an object, by its controller ownerRef; labels say nothing about ownership.
pub fn owner(metadata: &ObjectMeta) -> Option<Owner> {
    let controller = controller(metadata)?;
    is_rollout(controller).then(|| Owner { name: controller.name.clone(), uid: controller.uid.clone() })
}

/// The Rollout that a Pod or ControllerRevision was part of before the Rollout was deleted without it (`--cascade=orphan`): it
/// has the label and no controller. Filed under the Rollout of that name and [`ORPHANED`].
pub fn orphaned_by(metadata: &ObjectMeta) -> Option<Owner> {
    let is_controlled = controller(metadata).is_some();
    let name = metadata.labels.as_ref()?.get(names::LABEL_ROLLOUT).filter(|name| !is_controlled && !name.is_empty())?;
    Some(Owner { name: name.clone(), uid: ORPHANED.to_owned() })
}

/// The ownerRef of the object's controller, of any kind.
pub fn controller(metadata: &ObjectMeta) -> Option<&OwnerReference> {
    metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

fn is_rollout(owner: &OwnerReference) -> bool {
    let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
    owner.kind == "Rollout" && group == names::GROUP
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_controller_reference_to_our_group_makes_an_owner() {
        let reference = |api_version: &str, controller: bool| ObjectMeta {
            owner_references: Some(vec![OwnerReference {
                api_version: api_version.into(),
                kind: "Rollout".into(),
                name: "web".into(),
                uid: "u1".into(),
                controller: Some(controller),
                ..Default::default()
            }]),
            ..Default::default()
        };
        assert_eq!(owner(&reference("baton.dev/v1alpha1", true)), Some(Owner { name: "web".into(), uid: "u1".into() }));
        assert_eq!(owner(&reference("argoproj.io/v1alpha1", true)), None);
        assert_eq!(owner(&reference("baton.dev/v1alpha1", false)), None);
    }

    #[test]
    fn an_orphan_has_the_label_and_no_controller() {
        let metadata = |labels: &[(&str, &str)], owners: &[(&str, bool)]| ObjectMeta {
            labels: Some(labels.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()),
            owner_references: Some(
                owners
                    .iter()
                    .map(|(kind, controller)| OwnerReference {
                        kind: (*kind).into(),
                        controller: Some(*controller),
                        ..Default::default()
                    })
                    .collect(),
            ),
            ..Default::default()
        };
        let orphan = Some(Owner { name: "web".into(), uid: ORPHANED.into() });
        assert_eq!(orphaned_by(&metadata(&[("baton.dev/rollout", "web")], &[])), orphan);
        assert_eq!(orphaned_by(&metadata(&[("baton.dev/rollout", "web")], &[("ConfigMap", false)])), orphan);
        assert_eq!(orphaned_by(&metadata(&[("baton.dev/rollout", "web")], &[("ReplicaSet", true)])), None);
        assert_eq!(orphaned_by(&metadata(&[("app", "web")], &[])), None);
    }
}
