//! The workflows of a world, in a real catalogue over records in memory. What another host has just published is there once
//! the records are read to their end.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use bytes::Bytes;
use reipaz_core::{json::Json, plan::Plan};
use reipaz_journal::JournalError;
use reipaz_simulation::{Random, workflow};
use serde_json::json;
use tokio::sync::watch;

use crate::catalog::{Binaries, Catalog};

/// How many there are.
const COUNT: usize = 2;

/// See the module.
pub(super) struct Workflows {
    pub(super) catalog: Arc<Catalog>,
    known: Vec<(Arc<Plan>, Json)>,
}

impl Workflows {
    pub(super) fn new(random: &mut Random) -> Self {
        let (mut known, mut records) = (Vec::new(), Records::default());
        for number in 0..COUNT {
            let mut pinned = workflow(random, number);
            // The seed of a task's run, which jitter is drawn from, is really random.
            pinned.document["defaults"] = json!({ "retry": { "jitter": "none" } });
            if let Some(steps) = pinned.document["steps"].as_object_mut() {
                steps.values_mut().for_each(|step| step["retry"]["jitter"] = "none".into());
            }
            let plan = Arc::new(pinned.compile().unwrap());
            let record = json!({ "name": plan.name, "version": 1, "pinned": pinned, "created_at": "2026-01-01T00:00:00Z" });
            let key = format!("workflow/{}/0000000001", plan.name);
            let late = random.percent(30);
            let records = if late { &mut records.late } else { &mut records.here };
            records.get_mut().unwrap().insert(key, Bytes::from(record.to_string()));
            known.push((plan, pinned.canonical()));
        }
        let binaries = Binaries::new(std::env::temp_dir(), None, false).unwrap();
        let catalog = Catalog::open(Arc::new(records), binaries, BTreeMap::new()).unwrap();
        Self { catalog: Arc::new(catalog), known }
    }

    pub(super) fn plans(&self) -> Vec<Arc<Plan>> {
        self.known.iter().map(|(plan, _)| Arc::clone(plan)).collect()
    }

    /// As the journal keeps it.
    pub(super) fn pinned(&self, plan: &Plan) -> Json {
        let found = self.known.iter().find(|(known, _)| known.digest == plan.digest);
        Arc::clone(&found.unwrap().1)
    }
}

#[derive(Default)]
struct Records {
    here: Mutex<BTreeMap<String, Bytes>>,
    /// Not here before the next [`reipaz_journal::Catalog::sync`].
    late: Mutex<BTreeMap<String, Bytes>>,
}

#[async_trait]
impl reipaz_journal::Catalog for Records {
    async fn put(&self, key: &str, value: Bytes) -> Result<(), JournalError> {
        self.here.lock().unwrap().insert(key.to_owned(), value);
        Ok(())
    }

    async fn insert(&self, key: &str, value: Bytes) -> Result<Option<Bytes>, JournalError> {
        self.put(key, value).await.map(|()| None)
    }

    fn get(&self, key: &str) -> Option<Bytes> {
        self.here.lock().unwrap().get(key).cloned()
    }

    fn entries(&self) -> Vec<(String, Bytes)> {
        self.here.lock().unwrap().clone().into_iter().collect()
    }

    async fn sync(&self) -> Result<(), JournalError> {
        self.here.lock().unwrap().append(&mut self.late.lock().unwrap());
        Ok(())
    }

    fn changes(&self) -> watch::Receiver<u64> {
        watch::channel(0).1
    }
}
