//! Which file of the library imports which: layers inside `plan/rollout`, and no circles.
use std::collections::{BTreeMap, BTreeSet};

use crate::{architecture::unfold, sources};

/// Layers of the planner of Rollouts, the lowest first. Each may import only itself and those before it.
const ROLLOUT_LAYERS: &[&str] = &["time", "policy", "pod", "run", "verdict", "memory", "work"];
const ROLLOUT: &str = "plan::rollout";

/// Two files may need each other: a type and its parts. Three are a knot.
const CIRCLE_MAX: usize = 2;

type Graph = BTreeMap<String, BTreeSet<String>>;

#[test]
fn layers_of_the_rollout_planner_import_only_what_is_below() {
    let layer = |module: &str| {
        let rest = module.strip_prefix(ROLLOUT)?.strip_prefix("::")?;
        let name = rest.split("::").next()?;
        ROLLOUT_LAYERS.iter().position(|layer| *layer == name)
    };
    let graph = imports();
    let wrong: Vec<_> = graph
        .iter()
        .flat_map(|(from, all)| all.iter().map(move |to| (from, to)))
        .filter(|(from, to)| layer(from).zip(layer(to)).is_some_and(|(from, to)| from < to))
        .map(|(from, to)| format!("{from} imports {to}, which stands above it: {}", ROLLOUT_LAYERS.join(" < ")))
        .collect();
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
    let known = graph.keys().filter(|module| layer(module).is_some()).count();
    assert!(known > 30, "{known} files of {ROLLOUT} are in a layer");
}

#[test]
fn no_three_files_import_each_other_in_a_circle() {
    let graph = imports();
    let ties = |circle: &Vec<String>| {
        let imports = |from: &String| graph[from].iter().filter(|to| circle.contains(to)).cloned().collect::<Vec<_>>();
        circle.iter().map(|from| format!("  {from} imports {}", imports(from).join(", "))).collect::<Vec<_>>()
    };
    let wrong: Vec<_> = circles(&graph)
        .into_iter()
        .filter(|circle| circle.len() > CIRCLE_MAX)
        .map(|circle| format!("{} files need each other:\n{}", circle.len(), ties(&circle).join("\n")))
        .collect();
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

/// The modules of src by their paths, each with those that it names. Tests are left out.
fn imports() -> Graph {
    let sources: Vec<_> = sources::rust().into_iter().filter(|source| source.is_in("src")).collect();
    let module = |path: &str| {
        let path = path.strip_prefix("src/")?.strip_suffix(".rs")?;
        let is_test = path.split('/').any(|part| part == "tests" || part == "bin")
            || ["tests", "_world", "scripted"].iter().any(|end| path.ends_with(end));
        let path = path.strip_suffix("/mod").unwrap_or(path);
        (!is_test && path != "lib").then(|| path.replace('/', "::"))
    };
    let modules: BTreeSet<String> = sources.iter().filter_map(|source| module(&source.path)).collect();
    let codes: BTreeMap<String, String> =
        sources.iter().filter_map(|source| Some((module(&source.path)?, code(&source.text)))).collect();
    let shown: BTreeMap<String, String> = codes.iter().flat_map(|(name, code)| re_exports(name, code)).collect();
    let of = |(name, code): (&String, &String)| {
        let found = paths(name, code).filter_map(|path| home(&path, &modules, &shown));
        (name.clone(), found.filter(|found| found != name).collect())
    };
    codes.iter().map(of).collect()
}

/// `(name as it is seen, name as it is defined)` of what a module shows of others: `pub use self::call::Calls`.
fn re_exports(module: &str, code: &str) -> Vec<(String, String)> {
    let is_shown = |at: &usize| {
        let before = code[..*at].trim_end();
        before.ends_with("pub") || ["(crate)", "(super)"].iter().any(|end| before.ends_with(end))
    };
    let begins_absolute = |path: &str| ["crate::", "super::", "self::"].iter().any(|start| path.starts_with(start));
    let shown = code.match_indices("use ").filter(|(at, _)| is_shown(at)).filter_map(|(at, found)| {
        let path = code[at + found.len()..].split(';').next()?;
        Some(if begins_absolute(path) { path.to_owned() } else { format!("self::{path}") })
    });
    let named = shown.flat_map(|path| paths(module, &path).collect::<Vec<_>>());
    named.filter_map(|path| Some((format!("{module}::{}", path.rsplit("::").next()?), path.clone()))).collect()
}

/// The module in which what a path names is defined.
fn home(path: &str, modules: &BTreeSet<String>, shown: &BTreeMap<String, String>) -> Option<String> {
    let module = longest_module(path, modules)?;
    let item = path[module.len()..].trim_start_matches("::").split("::").next().unwrap_or_default();
    match shown.get(&format!("{module}::{item}")) {
        Some(defined) if !item.is_empty() && defined != path => home(defined, modules, shown),
        _ => Some(module),
    }
}

/// Without comments and modules of tests, in one line.
fn code(text: &str) -> String {
    let mut kept = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if line == "#[cfg(test)]" && lines.peek().is_some_and(|next| next.contains("mod ") && next.ends_with('{')) {
            for line in lines.by_ref() {
                if line == "}" {
                    break;
                }
            }
            continue;
        }
        kept.push_str(line.split("//").next().unwrap_or_default().trim());
        kept.push(' ');
    }
    kept
}

/// Absolute paths that this module names with `crate`, `super` or `self`; groups in braces are unfolded.
fn paths<'c>(module: &'c str, code: &'c str) -> impl Iterator<Item = String> + 'c {
    let begins = |start: &'static str| code.match_indices(start).map(move |(at, _)| (at, start));
    let found = ["crate::", "super::", "self::"]
        .into_iter()
        .flat_map(begins)
        .filter(|(at, _)| !code[..*at].ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | ':' | '$')));
    found.flat_map(move |(at, start)| {
        let mut base: Vec<&str> = if start == "crate::" { Vec::new() } else { module.split("::").collect() };
        let mut rest = &code[at..];
        rest = rest.strip_prefix("crate::").or_else(|| rest.strip_prefix("self::")).unwrap_or(rest);
        while let Some(up) = rest.strip_prefix("super::") {
            base.pop();
            rest = up;
        }
        let base = base.join("::");
        let text: String = rest.chars().filter(|c| !c.is_whitespace()).take(4_000).collect();
        unfold(&text).into_iter().map(move |path| format!("{base}::{path}").trim_start_matches("::").to_owned())
    })
}

fn longest_module(path: &str, modules: &BTreeSet<String>) -> Option<String> {
    let mut path = path;
    loop {
        if modules.contains(path) {
            return Some(path.to_owned());
        }
        path = path.rsplit_once("::")?.0;
    }
}

/// Sets of modules each of which reaches all others of its set, larger than one.
fn circles(graph: &Graph) -> Vec<Vec<String>> {
    let reached: BTreeMap<&str, BTreeSet<&str>> =
        graph.keys().map(|from| (from.as_str(), reach(graph, from))).collect();
    let mut found = BTreeSet::new();
    for (from, all) in &reached {
        let circle: Vec<String> = all
            .iter()
            .filter(|to| reached.get(**to).is_some_and(|back| back.contains(from)))
            .map(|to| (*to).to_owned())
            .collect();
        if circle.len() > 1 {
            found.insert(circle);
        }
    }
    found.into_iter().collect()
}

fn reach<'g>(graph: &'g Graph, from: &'g str) -> BTreeSet<&'g str> {
    let mut found = BTreeSet::new();
    let mut due = vec![from];
    while let Some(next) = due.pop() {
        for to in graph.get(next).into_iter().flatten() {
            if found.insert(to.as_str()) {
                due.push(to);
            }
        }
    }
    found
}

mod rules {
    use super::*;

    #[test]
    fn paths_are_made_absolute() {
        let code = "use super::{a::B, c}; use crate::api::{X, y::Z}; fn f() { super::super::up::g(); self::own::h() }";
        let found: Vec<_> = paths("plan::rollout::work", code).collect();
        let expected = [
            "api::X",
            "api::y::Z",
            "plan::rollout::a::B",
            "plan::rollout::c",
            "plan::up::g",
            "plan::rollout::work::own::h",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn circles_are_found() {
        let edges = [("a", "b"), ("b", "c"), ("c", "a"), ("c", "d"), ("d", "e"), ("e", "d"), ("f", "a")];
        let mut graph = Graph::new();
        for (from, to) in edges {
            graph.entry(from.into()).or_default().insert(to.into());
        }
        assert_eq!(circles(&graph), [vec!["a", "b", "c"], vec!["d", "e"]]);
    }
}
