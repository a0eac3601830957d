//! Random requests, each from what the ones before have led to. Each sequence has a namespace of its own on either server;
//! its answers are compared one by one, then what watches from its beginning tell.
//!
//! `SEED=n` runs that one sequence, `SEEDS=n` so many random ones. A sequence that differs is made as short as it can be.
use futures::{StreamExt, stream};
use proptest::{
    prelude::*,
    sample::select,
    strategy::ValueTree,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use serde_json::{Value, json};

use super::{
    Servers,
    objects::{self, Name},
    side::difference,
    step::{BEGIN, NAMESPACE, OTHER_UID, STALE, Step, UID, VERSION},
};
use crate::fake_apiserver::kinds::{CONFIG_MAPS, CONTROLLER_REVISIONS, Kind, LEASES, PODS, ROLLOUTS};

/// Seeds that are always run: numbers without a meaning, of which each change of the strategies makes other sequences.
const FIXED_SEEDS: std::ops::Range<u64> = 0..70;
/// Seeds that are new each time.
const RANDOM_SEEDS: usize = 30;
/// Tries to make a sequence that differs shorter.
const SHRINKS_MAX: usize = 30;

static KINDS: [&Kind; 5] = [&PODS, &ROLLOUTS, &CONTROLLER_REVISIONS, &LEASES, &CONFIG_MAPS];

/// 5 to 15 requests.
fn sequence() -> impl Strategy<Value = Vec<Step>> {
    proptest::collection::vec(step(), 5..=15)
}

fn step() -> impl Strategy<Value = Step> {
    // Few names, so that requests meet.
    let place = (select(&KINDS[..]), select(vec!["a", "b"]));
    place.prop_flat_map(|(kind, name)| {
        let create = create(kind, name);
        prop_oneof![
            4 => create,
            1 => Just(Step::get(kind, name)),
            1 => list(kind),
            4 => change(kind, name),
            2 => status(kind, name),
            1 => scale(name),
            3 => delete(kind, name),
        ]
    })
}

fn create(kind: &'static Kind, name: &'static str) -> impl Strategy<Value = Step> {
    (1..4_i64, naming(), flags()).prop_map(
        move |(variant, naming, [is_invalid, is_dry_run, is_kept, is_bound, has_uid])| {
            let mut object = if is_invalid && is_dry_run {
                objects::invalid(kind, name)
            } else {
                objects::valid(kind, name, variant)
            };
            if is_kept {
                object["metadata"]["finalizers"] = json!([objects::FINALIZER]);
            }
            if is_bound && *kind == PODS {
                // To a node that is not there: nobody runs it, and its end takes its grace. A node of each sequence's own,
                // because Pods of one that has been missing for 40 s are collected.
                object["spec"]["nodeName"] = json!(NAMESPACE);
            }
            if has_uid && is_invalid {
                object["metadata"]["uid"] = json!(OTHER_UID);
                object["metadata"]["generation"] = json!(7);
                object["metadata"]["creationTimestamp"] = json!("2020-01-01T00:00:00Z");
                object["status"] = json!({"replicas": 3});
            }
            naming.put_into(&mut object);
            let step = Step::create(kind, object);
            if is_dry_run { step.dry_run() } else { step }
        },
    )
}

fn naming() -> impl Strategy<Value = Name> {
    prop_oneof![
        12 => Just(Name::Own),
        2 => (0..10_000_u32).prop_map(Name::Generated),
        1 => (0..10_000_u32).prop_map(Name::GeneratedLong),
        1 => Just(Name::Both),
        1 => Just(Name::Neither),
    ]
}

fn list(kind: &'static Kind) -> impl Strategy<Value = Step> {
    select(vec![0, 1, 2]).prop_map(move |way| match way {
        0 => Step::list(kind),
        // Every namespace gets a ConfigMap of its own in a real cluster.
        1 if *kind != CONFIG_MAPS => Step::list(kind).query("limit", "1"),
        _ => Step::list(kind).query("resourceVersion", BEGIN).query("resourceVersionMatch", "Exact"),
    })
}

/// PUT, merge patch and JSON patch of the object itself.
fn change(kind: &'static Kind, name: &'static str) -> impl Strategy<Value = Step> {
    (1..4_i64, select(vec![0, 1, 2]), precondition(), edit(), flags()).prop_map(
        move |(variant, way, precondition, edit, flags)| {
            let step = match way {
                // Nobody of ours PUTs a Pod or a ControllerRevision.
                0 if [&ROLLOUTS, &LEASES, &CONFIG_MAPS].contains(&kind) => {
                    let mut object = objects::valid(kind, name, variant);
                    precondition.put_into(&mut object);
                    edit.put_into(kind, &mut object);
                    if edit == Edit::Unlabel {
                        object["metadata"]["labels"] = json!({});
                    }
                    Step::replace(kind, name, object)
                }
                1 if edit != Edit::Nothing => Step::json_patch(kind, name, edit.operations()),
                _ => {
                    let mut patch = json!({"metadata": {}});
                    if *kind != PODS {
                        let spec = objects::valid(kind, name, variant);
                        for field in ["spec", "data", "revision"].iter().filter(|field| !spec[**field].is_null()) {
                            // What a ControllerRevision holds does not change.
                            if !(*kind == CONTROLLER_REVISIONS && *field == "data") {
                                patch[field] = spec[*field].clone();
                            }
                        }
                    }
                    precondition.put_into(&mut patch);
                    edit.put_into(kind, &mut patch);
                    Step::merge(kind, name, patch)
                }
            };
            if flags[0] && flags[1] { step.dry_run() } else { step }
        },
    )
}

/// PUT and merge patch of the status.
fn status(kind: &'static Kind, name: &'static str) -> impl Strategy<Value = Step> {
    let kind = if *kind == PODS { &PODS } else { &ROLLOUTS };
    (0..4_i64, precondition(), flags()).prop_map(move |(count, precondition, [is_put, with_label, clears, ..])| {
        let status = if *kind == PODS {
            json!({"message": format!("message {count}")})
        } else {
            json!({"readyReplicas": count})
        };
        let mut object = json!({"metadata": {}});
        if is_put && *kind == ROLLOUTS {
            object = objects::valid(kind, name, count);
        }
        precondition.put_into(&mut object);
        object["status"] = if clears && *kind == ROLLOUTS { Value::Null } else { status };
        if with_label {
            object["metadata"]["labels"] = json!({"contract": "yes", "status": "seen"});
        }
        let step = if is_put && *kind == ROLLOUTS {
            Step::replace(kind, name, object)
        } else {
            Step::merge(kind, name, object)
        };
        step.subresource("status")
    })
}

/// Never to what it is already, see `NOT_ASKED`: other steps write fewer.
fn scale(name: &'static str) -> impl Strategy<Value = Step> {
    (4..1_000_i64, precondition(), flags()).prop_map(move |(replicas, precondition, [is_put, ..])| {
        let mut scale = json!({"spec": {"replicas": replicas}, "metadata": {}});
        precondition.put_into(&mut scale);
        let step = if is_put {
            scale["kind"] = json!("Scale");
            scale["apiVersion"] = json!("autoscaling/v1");
            scale["metadata"]["name"] = json!(name);
            scale["metadata"]["namespace"] = json!(NAMESPACE);
            Step::replace(&ROLLOUTS, name, scale)
        } else {
            Step::merge(&ROLLOUTS, name, scale)
        };
        step.subresource("scale")
    })
}

fn delete(kind: &'static Kind, name: &'static str) -> impl Strategy<Value = Step> {
    let grace = select(vec![None, None, Some(0), Some(5), Some(60)]);
    (select(vec!["", UID, OTHER_UID]), select(vec!["", VERSION, STALE]), grace, flags()).prop_map(
        move |(uid, version, grace, [is_dry_run, also, in_background, ..])| {
            let mut step = Step::delete_if(kind, name, uid, version);
            if let Some(seconds) = grace {
                step = step.options("gracePeriodSeconds", json!(seconds));
            }
            if in_background {
                step = step.options("propagationPolicy", json!("Background"));
            }
            if is_dry_run && also { step.dry_run() } else { step }
        },
    )
}

fn flags() -> impl Strategy<Value = [bool; 5]> {
    any::<[bool; 5]>()
}

/// What a write requires.
#[derive(Clone, Debug)]
struct Precondition {
    uid: Option<&'static str>,
    version: Option<&'static str>,
}

fn precondition() -> impl Strategy<Value = Precondition> {
    let uid = select(vec![None, None, Some(UID), Some(OTHER_UID)]);
    let version = select(vec![None, Some(VERSION), Some(VERSION), Some(VERSION), Some(STALE)]);
    (uid, version).prop_map(|(uid, version)| Precondition { uid, version })
}

impl Precondition {
    fn put_into(&self, object: &mut Value) {
        if let Some(uid) = self.uid {
            object["metadata"]["uid"] = json!(uid);
        }
        if let Some(version) = self.version {
            object["metadata"]["resourceVersion"] = json!(version);
        }
    }
}

/// What else a write changes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Edit {
    Nothing,
    Label,
    /// Lists and watches do not show it any more.
    Unlabel,
    Finalizer,
    NoFinalizer,
    /// What the server alone sets.
    ServersFields,
}

fn edit() -> impl Strategy<Value = Edit> {
    use Edit::{Finalizer, Label, NoFinalizer, Nothing, ServersFields, Unlabel};
    select(vec![Nothing, Nothing, Label, Unlabel, Finalizer, NoFinalizer, NoFinalizer, ServersFields])
}

impl Edit {
    fn put_into(self, kind: &Kind, object: &mut Value) {
        let metadata = &mut object["metadata"];
        match self {
            Self::Nothing => {}
            Self::Label => metadata["labels"] = json!({"contract": "yes", "more": "label"}),
            Self::Unlabel => metadata["labels"] = json!({"contract": null}),
            Self::Finalizer => metadata["finalizers"] = json!([objects::FINALIZER]),
            Self::NoFinalizer => metadata["finalizers"] = json!([]),
            Self::ServersFields => {
                metadata["generation"] = json!(7);
                if *kind == ROLLOUTS {
                    object["status"] = json!({"readyReplicas": 9});
                }
            }
        }
    }

    fn operations(self) -> Value {
        let finalizers = "/metadata/finalizers";
        match self {
            Self::Nothing | Self::Label => json!([{"op": "add", "path": "/metadata/labels/more", "value": "json"}]),
            Self::Unlabel => json!([
                {"op": "test", "path": "/metadata/labels/contract", "value": "yes"},
                {"op": "remove", "path": "/metadata/labels/contract"},
            ]),
            Self::Finalizer => json!([{"op": "add", "path": finalizers, "value": [objects::FINALIZER]}]),
            Self::NoFinalizer => json!([{"op": "remove", "path": finalizers}]),
            Self::ServersFields => json!([{"op": "replace", "path": "/metadata/generation", "value": 7}]),
        }
    }
}

/// Where they differ first, in words.
async fn differs(servers: &Servers, namespace: &str, steps: &[Step]) -> Option<String> {
    let [mut fake, mut real] = servers.sides(namespace).await;
    for kind in KINDS {
        let list = Step::list(kind);
        futures::join!(fake.take(&list), real.take(&list));
    }
    for (index, step) in steps.iter().enumerate() {
        let (fake, real) = futures::join!(fake.take(step), real.take(step));
        if fake != real {
            return Some(format!("{}. {step}\n  {}", index + 1, difference(&fake, &real)));
        }
    }
    let end = KINDS.map(|kind| Step::watch(kind, BEGIN));
    let (fake, real) = futures::join!(fake.take_all(&end), real.take_all(&end));
    let (kind, (fake, real)) = KINDS.iter().zip(fake.iter().zip(&real)).find(|(_, (fake, real))| fake != real)?;
    Some(format!("the watch of {}\n  {}", kind.resource, difference(fake, real)))
}

fn tree(seed: u64) -> impl ValueTree<Value = Vec<Step>> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    sequence().new_tree(&mut TestRunner::new_with_rng(Config::default(), rng)).expect("a sequence")
}

/// The sequence of a seed that differs, as short as it was found.
async fn shortest(servers: &Servers, seed: u64, mut difference: String) -> String {
    let mut tree = tree(seed);
    let mut shortest = tree.current();
    let mut may_go_on = tree.simplify();
    for number in 0..SHRINKS_MAX {
        if !may_go_on {
            break;
        }
        let tried = differs(servers, &format!("sequence-{seed}-{number}"), &tree.current()).await;
        may_go_on = if let Some(tried) = tried {
            (difference, shortest) = (tried, tree.current());
            tree.simplify()
        } else {
            tree.complicate()
        };
    }
    let steps: Vec<String> = shortest.iter().map(ToString::to_string).collect();
    format!("{}\ndiffers at {difference}", steps.join("\n"))
}

#[tokio::test(flavor = "multi_thread")]
async fn random_sequences() {
    let servers = Servers::start().await;
    let wanted: Option<u64> = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let count = std::env::var("SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(RANDOM_SEEDS);
    let random: Vec<u64> = (0..count).map(|_| fastrand::u64(1_000..1_000_000_000)).collect();
    println!("random seeds: {random:?}");
    let seeds: Vec<u64> = wanted.map_or_else(|| FIXED_SEEDS.chain(random).collect(), |seed| vec![seed]);
    let servers = &servers;
    // Answers follow from the requests, so a difference comes again; what a controller of the real server did meanwhile (the
    // Pod garbage collector ends terminating Pods without a node every 20 s) does not.
    let runs = stream::iter(seeds).map(|seed| async move {
        let steps = tree(seed).current();
        let once = differs(servers, &format!("sequence-{seed}"), &steps).await?;
        println!("SEED={seed} differs, and is tried once more: {once}");
        differs(servers, &format!("sequence-{seed}-again"), &steps).await.map(|difference| (seed, difference))
    });
    let wrong: Vec<(u64, String)> = runs.buffer_unordered(8).filter_map(|wrong| async { wrong }).collect().await;
    let Some((seed, difference)) = wrong.first() else { return };
    let all: Vec<String> = wrong.iter().map(|(seed, difference)| format!("SEED={seed}: {difference}")).collect();
    let shortest = shortest(servers, *seed, difference.clone()).await;
    panic!(
        "{} sequences differ\n\n{}\n\nSEED={seed}, as short as it was found:\n{shortest}",
        all.len(),
        all.join("\n\n")
    );
}

/// The comparison sees what it is meant to see.
#[test]
fn sequences_are_of_every_kind_and_way() {
    let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]));
    let steps: Vec<Step> = (0..400).flat_map(|_| sequence().new_tree(&mut runner).unwrap().current()).collect();
    let has = |what: &dyn Fn(&Step) -> bool| steps.iter().filter(|step| what(step)).count() > 20;
    for kind in KINDS {
        for word in ["create", "patch", "delete", "list"] {
            assert!(has(&|step| *step.kind == *kind && step.verb.as_str() == word), "{kind:?} {word}");
        }
    }
    for word in
        [STALE, OTHER_UID, UID, VERSION, "dryRun", "finalizers", "gracePeriodSeconds", "nodeName", "generateName"]
    {
        assert!(has(&|step| step.to_string().contains(word)), "{word}");
    }
}
