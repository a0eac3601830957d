//! Objects by key, one revision for all of them, and the changes that led here. Any revision since the last compaction can
//! be looked at: that is what consistent pages, exact lists and lagging servers are made of.
use std::{
    borrow::Cow,
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use serde_json::Value;

use super::{
    kinds::{ALL, Kind},
    object::{Object, meta_text},
    refusal::Refusal,
};

/// Objects of one kind by [`key`], in the order of a list.
pub type Table = BTreeMap<String, Arc<Object>>;

/// `namespace/name`, or `name` for what is in no namespace: sorted as the real one sorts.
pub fn key(kind: &Kind, namespace: &str, name: &str) -> String {
    if kind.is_namespaced { format!("{namespace}/{name}") } else { name.to_owned() }
}

/// What one write did.
#[derive(Clone, Debug)]
pub struct Change {
    pub revision: u64,
    pub kind: &'static Kind,
    pub key: String,
    /// None: created.
    pub before: Option<Arc<Object>>,
    /// As watches show it: after the write; for one that is gone, its last state under the revision of its end.
    pub object: Arc<Object>,
    pub is_gone: bool,
}

impl Change {
    /// The object after the write.
    pub fn after(&self) -> Option<&Arc<Object>> {
        (!self.is_gone).then_some(&self.object)
    }
}

/// The objects.
pub struct Store {
    revision: u64,
    compacted: u64,
    tables: Vec<Table>,
    log: VecDeque<Change>,
    history_max: usize,
}

impl Store {
    /// Nothing, at this revision. At most `history_max` changes are remembered.
    pub fn new(revision: u64, history_max: usize) -> Self {
        let tables = ALL.map(|_| Table::new()).into();
        Self { revision, compacted: revision, tables, log: VecDeque::new(), history_max }
    }

    /// That of the last write, of any kind.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Objects of a kind, as they are now.
    pub fn table(&self, kind: &Kind) -> &Table {
        &self.tables[kind.index()]
    }

    /// One object, as it is now.
    pub fn get(&self, kind: &Kind, namespace: &str, name: &str) -> Option<&Arc<Object>> {
        self.table(kind).get(&key(kind, namespace, name))
    }

    /// Objects of a kind, as they were at `revision`.
    ///
    /// # Errors
    /// 410 for what is compacted.
    pub fn at(&self, kind: &Kind, revision: u64) -> Result<Cow<'_, Table>, Refusal> {
        if revision >= self.revision {
            return Ok(Cow::Borrowed(self.table(kind)));
        }
        self.check_kept(revision)?;
        let mut table = self.table(kind).clone();
        let later = self.log.iter().rev().take_while(|change| change.revision > revision);
        for change in later.filter(|change| change.kind == kind) {
            match &change.before {
                Some(before) => table.insert(change.key.clone(), before.clone()),
                None => table.remove(&change.key),
            };
        }
        Ok(Cow::Owned(table))
    }

    /// Changes of a kind after `revision`.
    ///
    /// # Errors
    /// 410 for what is compacted.
    pub fn since(&self, kind: &Kind, revision: u64) -> Result<impl Iterator<Item = &Change>, Refusal> {
        self.check_kept(revision)?;
        let begin = self.log.partition_point(|change| change.revision <= revision);
        Ok(self.log.range(begin..).filter(move |change| change.kind == kind))
    }

    fn check_kept(&self, revision: u64) -> Result<(), Refusal> {
        if revision < self.compacted {
            let (wanted, oldest) = (revision, self.compacted);
            return Err(Refusal::expired(format!("too old resource version: {wanted} ({oldest})")));
        }
        Ok(())
    }

    /// Forgets what led to `revision`.
    pub fn compact(&mut self, revision: u64) {
        self.compacted = self.compacted.max(revision.min(self.revision));
        let forgotten = self.log.partition_point(|change| change.revision <= self.compacted);
        self.log.drain(..forgotten);
    }

    /// Writes an object, at a revision of its own.
    pub fn put(&mut self, kind: &'static Kind, value: Value) -> Change {
        self.revision += 1;
        let key = key(kind, meta_text(&value, "namespace"), meta_text(&value, "name"));
        let object = Object::new(value, self.revision);
        let is_new = !self.table(kind).contains_key(&key);
        let object = Arc::new(if is_new && kind.is_custom { object.filled() } else { object });
        let before = self.tables[kind.index()].insert(key.clone(), object.clone());
        self.remember(Change { revision: self.revision, kind, key, before, object, is_gone: false })
    }

    /// Takes an object away, at a revision of its own.
    pub fn remove(&mut self, kind: &'static Kind, key: &str) -> Option<Change> {
        let last = self.table(kind).get(key)?.value().clone();
        self.remove_as(kind, key, last)
    }

    /// The same, with a last state that differs from what was stored.
    pub fn remove_as(&mut self, kind: &'static Kind, key: &str, last: Value) -> Option<Change> {
        let before = self.tables[kind.index()].remove(key)?;
        self.revision += 1;
        let object = Arc::new(Object::new(last, self.revision));
        let (revision, key) = (self.revision, key.to_owned());
        Some(self.remember(Change { revision, kind, key, before: Some(before), object, is_gone: true }))
    }

    fn remember(&mut self, change: Change) -> Change {
        self.log.push_back(change.clone());
        if self.log.len() > self.history_max {
            self.compact(self.revision - self.history_max as u64);
        }
        change
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fake_apiserver::kinds::{CONFIG_MAPS, PODS};

    fn map(name: &str, data: i32) -> Value {
        json!({"metadata": {"namespace": "shop", "name": name}, "data": data})
    }

    fn shown(store: &Store, revision: u64) -> Vec<String> {
        let table = store.at(&CONFIG_MAPS, revision).unwrap();
        table.values().map(|object| format!("{}={}@{}", object.name(), object["data"], object.revision())).collect()
    }

    #[test]
    fn every_revision_can_be_looked_at_until_it_is_compacted() {
        let mut store = Store::new(100, 50);
        store.put(&CONFIG_MAPS, map("a", 1));
        store.put(&PODS, map("a", 0));
        store.put(&CONFIG_MAPS, map("b", 1));
        store.put(&CONFIG_MAPS, map("a", 2));
        store.remove(&CONFIG_MAPS, "shop/a");
        assert_eq!(shown(&store, 100), Vec::<String>::new());
        assert_eq!(shown(&store, 102), ["a=1@101"]);
        assert_eq!(shown(&store, 103), ["a=1@101", "b=1@103"]);
        assert_eq!(shown(&store, 104), ["a=2@104", "b=1@103"]);
        assert_eq!(shown(&store, 105), ["b=1@103"]);
        store.compact(103);
        assert_eq!(store.at(&CONFIG_MAPS, 102).unwrap_err().code, 410);
        assert_eq!(shown(&store, 103), ["a=1@101", "b=1@103"]);
        let told: Vec<_> = store.since(&CONFIG_MAPS, 103).unwrap().map(|c| (c.revision, c.is_gone)).collect();
        assert_eq!(told, [(104, false), (105, true)]);
    }

    #[test]
    fn the_past_is_bounded() {
        let mut store = Store::new(0, 10);
        for data in 0..100 {
            store.put(&CONFIG_MAPS, map("a", data));
        }
        assert_eq!(store.since(&CONFIG_MAPS, 90).unwrap().count(), 10);
        assert_eq!(store.at(&CONFIG_MAPS, 89).unwrap_err().code, 410);
    }
}
