//! The plugin store: a small object is written, read and deleted again.

use std::time::Duration;

use object_store::{ObjectStore, ObjectStoreExt, path::Path as Place};

use super::Finding;
use crate::{
    catalog::{shared_folder, shared_store},
    config::Config,
};

const STORE: &str = "plugin store";
/// How long writing, reading and deleting may take together.
const WITHIN: Duration = Duration::from_secs(10);

pub(super) async fn examine(config: &Config) -> Option<Finding> {
    let Some(url) = &config.plugin_store else {
        return config.kafka.as_ref().map(|_| {
            Finding::warn(
                STORE,
                "not configured: hosts have the standard plugins only, and installing others is refused",
                "set plugin_store to what all hosts reach: \"s3://bucket/prefix\" or \"file:///mnt/plugins\"",
            )
        });
    };
    let refused = |error: Box<dyn std::error::Error>| {
        let mend = "write plugin_store = \"s3://bucket/prefix\" or \"file:///mnt/plugins\"";
        Finding::fail(STORE, format!("{url}: {error}"), mend)
    };
    match shared_folder(url) {
        Ok(Some(folder)) if !folder.exists() => {
            let mend = "a host makes the folder; if something shared is to be mounted there, mount it first";
            return Some(Finding::warn(STORE, format!("{} is not there", folder.display()), mend));
        }
        Ok(_) => {}
        Err(error) => return Some(refused(error)),
    }
    let (store, place) = match shared_store(url) {
        Ok(store) => store,
        Err(error) => return Some(refused(error)),
    };
    let place = place.join(format!("doctor-{}", uuid::Uuid::new_v4().simple()));
    let outcome = match tokio::time::timeout(WITHIN, probe(&*store, &place)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(format!("no answer within {} s", WITHIN.as_secs())),
    };
    Some(match outcome {
        Ok(()) => Finding::ok(STORE, format!("{url} can be written, read and deleted from")),
        Err(why) => Finding::fail(
            STORE,
            format!("{url} {why}"),
            "check the address, the AWS_* variables and what they allow; for a folder, its owner and mode",
        ),
    })
}

async fn probe(store: &dyn ObjectStore, place: &Place) -> Result<(), String> {
    const BODY: &[u8] = b"written by reipaz doctor; may be deleted";
    store.put(place, BODY.into()).await.map_err(|error| format!("cannot be written: {error}"))?;
    let read = async {
        let read = store.get(place).await?.bytes().await?;
        Ok::<_, object_store::Error>(read == BODY)
    };
    let read = match read.await {
        Ok(true) => Ok(()),
        Ok(false) => Err("gives back something else than was written".to_owned()),
        Err(error) => Err(format!("cannot be read: {error}")),
    };
    // Whatever came of reading.
    let deleted = store.delete(place).await;
    read?;
    deleted.map_err(|error| format!("cannot be deleted from (a probe is left: {place}): {error}"))
}

#[cfg(test)]
mod tests {
    use super::{super::Status, *};

    fn config(url: &str) -> Config {
        Config { plugin_store: Some(url.to_owned()), ..Config::default() }
    }

    #[tokio::test]
    async fn a_folder_is_probed_and_left_as_it_was() {
        let root = tempfile::tempdir().expect("a folder");
        let url = format!("file://{}", root.path().display());
        let found = examine(&config(&url)).await.expect("a finding");
        assert_eq!(found.status, Status::Ok, "{found:?}");
        assert_eq!(std::fs::read_dir(root.path()).expect("read").count(), 0);
        let found = examine(&config(&format!("{url}/away"))).await.expect("a finding");
        assert_eq!(found.status, Status::Warn, "{found:?}");
        assert!(!root.path().join("away").exists(), "nothing was made");
    }

    #[tokio::test]
    async fn what_is_no_store_fails_and_a_lone_host_needs_none() {
        for url in ["plugins", "file://relative/folder", "gopher://x/y"] {
            assert_eq!(examine(&config(url)).await.expect("a finding").status, Status::Fail, "{url}");
        }
        assert_eq!(examine(&Config::default()).await, None);
        let shared = Config { kafka: Some(crate::config::Kafka::default()), ..Config::default() };
        assert_eq!(examine(&shared).await.expect("a finding").status, Status::Warn);
    }
}
