//! Whose Services a Rollout may switch: those whose annotation `baton.dev/rollout` names it.
use serde_json::json;

use super::fixture::{Fixture, say};
use crate::{
    plan::{Plan, rollout::plan},
    snapshot::ServiceSeen,
};

fn blue_green(slots: &str) -> Fixture {
    let settings = json!({"activeService": "web", "previewService": "web-preview"});
    let spec = json!({"strategy": {"type": "BlueGreen", "blueGreen": settings}});
    let opened = slots.split_whitespace().count() as i32;
    Fixture::new(slots, 'b', spec).serving(Some('a')).opened(opened).settled()
}

fn does(fixture: &Fixture) -> String {
    say(&Plan { hold: None, ..plan(&fixture.snapshot) })
}

fn permit(seen: &mut ServiceSeen, rollout: Option<&str>) {
    let ServiceSeen::Seen(service) = seen else { unreachable!() };
    service.rollout = rollout.map(str::to_owned);
}

/// F8: nothing is written to a Service whose annotation does not name the Rollout, and it says how to permit that.
#[test]
fn a_service_is_switched_only_where_its_annotation_permits_it() {
    let mut fixture = blue_green("ab ab");
    assert_eq!(does(&fixture), "Service web: a → b; Service web-preview: b");
    let services = fixture.snapshot.services.clone();
    permit(&mut fixture.snapshot.services.active, None);
    assert_eq!(
        fixture.looks(),
        "hold ServiceInvalid: Service web has no annotation baton.dev/rollout, so that Rollout web may not switch it; \
         to permit that: kubectl annotate service web baton.dev/rollout=web -n shop"
    );
    permit(&mut fixture.snapshot.services.active, Some("payments"));
    let ServiceSeen::Seen(service) = &mut fixture.snapshot.services.active else { unreachable!() };
    service.selector.remove("baton.dev/revision");
    fixture.snapshot.rollout.status.as_mut().unwrap().services.clear();
    assert_eq!(plan(&fixture.snapshot).memory.services, ["web-preview"]);
    assert_eq!(
        fixture.looks(),
        "hold ServiceInvalid: Service web names another Rollout in its annotation baton.dev/rollout, so that Rollout web \
         may not switch it; to permit that: kubectl annotate service web baton.dev/rollout=web --overwrite -n shop"
    );
    fixture.snapshot.services = services;
    permit(&mut fixture.snapshot.services.preview, None);
    assert!(fixture.looks().starts_with("hold ServiceInvalid: Service web-preview has no annotation"));

    // Before a second set is made, and for the first set too.
    let mut begins = blue_green("a a");
    permit(&mut begins.snapshot.services.active, None);
    assert!(begins.looks().starts_with("hold ServiceInvalid: Service web has no annotation"), "{}", begins.looks());
    let mut first = blue_green("b b");
    first.snapshot.revisions.iter_mut().for_each(|revision| revision.completed_at = None);
    permit(&mut first.snapshot.services.active, None);
    assert!(!does(&first).contains("Service"), "{}", does(&first));
}

/// F8: a Service that the Rollout has named, but may not switch, is not let go either; unless it selects a version of the Rollout.
#[test]
fn what_is_let_go_was_its_own() {
    let left = |selects: char, rollout: Option<&str>| {
        let mut fixture = Fixture::new("a a", 'a', json!({})).serving(Some(selects));
        let mut seen = std::mem::take(&mut fixture.snapshot.services).active;
        permit(&mut seen, rollout);
        fixture.snapshot.services.former = [("web".to_owned(), seen)].into();
        does(&fixture.settled())
    };
    assert_eq!(left('a', None), "Service web: any", "the manifest without the annotation was applied first");
    assert_eq!(left('x', Some("web")), "Service web: any");
    assert_eq!(left('x', None), "");
    assert_eq!(left('x', Some("payments")), "");
}
