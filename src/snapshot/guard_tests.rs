use k8s_openapi::api::core::v1::Pod;
use kube::{
    ResourceExt,
    api::{ObjectList, WatchEvent},
};

use super::*;

impl Bounded for Pod {}

#[test]
fn what_cannot_be_read_is_told_with_its_metadata_and_stops_nothing() {
    let told = |spec: &str| {
        let object = format!(r#"{{"spec":{spec},"metadata":{{"name":"web-0"}}}}"#);
        let event = format!(r#"{{"type":"ADDED","object":{object}}}"#);
        let event: WatchEvent<DeserializeGuard<Pod>> = serde_json::from_str(&event).unwrap();
        let WatchEvent::Added(pod) = event else { panic!("another event") };
        let list = format!(r#"{{"kind":"PodList","apiVersion":"v1","metadata":{{}},"items":[{object}]}}"#);
        let list: ObjectList<DeserializeGuard<Pod>> = serde_json::from_str(&list).unwrap();
        assert_eq!([pod.name_any(), list.items[0].name_any()], ["web-0", "web-0"]);
        pod.0.map(|pod| pod.spec.unwrap().node_name).map_err(|invalid| invalid.error)
    };
    assert_eq!(told(r#"{"nodeName":"n","containers":[]}"#).unwrap().as_deref(), Some("n"));
    let error = told(r#"{"containers":"none"}"#).unwrap_err();
    assert!(error.starts_with("invalid type: string \"none\", expected a sequence"), "{error}");
}

fn guarded(text: &str) -> DeserializeGuard<Pod> {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text:.200}"))
}

/// Times in managedFields come from the object's writers, and are nothing that Baton reads.
#[test]
fn managed_fields_are_skipped_whatever_they_say() {
    for fields in [
        r#"[{"manager":"p","operation":"Update","time":"9999-12-31T23:59:59Z"}]"#.to_owned(),
        r#"{"no":"list"}"#.to_owned(),
        format!("[{}]", "1,".repeat(OBJECT_BYTES_MAX) + "1"),
        format!("{}1{}", "[".repeat(1_000), "]".repeat(1_000)),
        "[1e400]".to_owned(),
    ] {
        let pod = guarded(&format!(
            r#"{{"metadata":{{"name":"web-0","managedFields":{fields}}},"spec":{{"containers":[]}}}}"#
        ));
        assert_eq!(pod.0.map(|pod| pod.metadata.name).map_err(|it| it.error), Ok(Some("web-0".into())), "{fields:.40}");
    }
}

#[test]
fn each_part_of_the_metadata_is_read_by_itself() {
    let deep = format!("{}1{}", "[".repeat(1_000), "]".repeat(1_000));
    for poison in [r#""x""#, "17", "null", "1e400", "[1]", r#"{"a":1}"#, &deep] {
        for part in ["labels", "annotations", "ownerReferences", "generation", "creationTimestamp", "deletionTimestamp"]
        {
            let text = format!(
                r#"{{"metadata":{{"name":"web-0","namespace":"shop","uid":"u","resourceVersion":"7","{part}":{poison}}},"spec":7}}"#
            );
            let pod = guarded(&text);
            assert!(pod.unreadable().is_some(), "{text:.200}");
            let known = [pod.namespace(), Some(pod.name_any()), pod.uid(), pod.resource_version()];
            assert_eq!(known.map(Option::unwrap), ["shop", "web-0", "u", "7"], "{text:.200}");
        }
    }
    let text = r#"{"metadata":{"labels":{"a":"b","c":7},"ownerReferences":[7,{"apiVersion":"v1","kind":"Pod","name":"a","uid":"u"}],
        "deletionTimestamp":"9999-12-31T23:59:59Z","name":7},"spec":7}"#;
    let pod = guarded(text);
    assert_eq!(pod.labels(), &[("a".to_owned(), "b".to_owned())].into());
    assert_eq!(pod.owner_references().len(), 1);
    assert_eq!(pod.meta().deletion_timestamp.as_ref().map(|time| time.0), Some(time::LATEST));
    assert_eq!(pod.meta().name, None);
    for text in ["7", "[]", "null", r#""x""#, r#"{"metadata":7}"#, r#"{"metadata":[]}"#] {
        assert!(guarded(text).unreadable().is_some(), "{text}");
    }
}

/// As a tree such an object takes hundreds of megabytes.
#[test]
fn a_large_object_is_left_as_text() {
    let pod = |bytes: usize| {
        let env = "x".repeat(bytes);
        let labels = format!(r#"{{"app":"web","baton.dev/rollout":"web","long":"{}"}}"#, "y".repeat(MAP_BYTES_MAX));
        guarded(&format!(
            r#"{{"metadata":{{"name":"web-0","labels":{labels}}},"spec":{{"containers":[],"nodeName":"{env}"}}}}"#
        ))
    };
    assert_eq!(pod(1_000).unreadable(), None);
    let large = pod(1_400_000);
    let error = large.unreadable().unwrap();
    assert!(error.starts_with("it is too large: 1431 KiB of JSON, where 256 KiB are read"), "{error}");
    assert_eq!(
        large.labels(),
        &[("baton.dev/rollout".to_owned(), "web".to_owned())].into(),
        "of many those that Baton writes"
    );
}
