//! Looks at ClickHouse as an operator's doctor does: who answers, what this user may do, how far the schema is, and what
//! its clock says. Nothing is made or changed.

use std::{
    path::Path,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use clickhouse::Client;

use crate::{
    embedded::Engine,
    error::{StoreError, with_sources},
    library,
    migrate::{self, Schema},
    reconnect,
};

/// How long one question to a server may take.
const WITHIN: Duration = Duration::from_secs(5);
/// How long the embedded engine may take to load and to answer: half a gigabyte comes from the disk.
const ENGINE_WITHIN: Duration = Duration::from_secs(60);
/// The clock is asked so often; the quickest answer counts.
const CLOCK_QUESTIONS: usize = 3;
/// What a host does in its database.
const NEEDED: [&str; 3] = ["SELECT", "INSERT", "CREATE TABLE"];

/// A server as it answers.
#[derive(Debug)]
pub struct Server {
    /// Its version.
    pub version: String,
    /// Whom it takes us for.
    pub user: String,
    /// How far the database is.
    pub schema: Result<Schema, StoreError>,
    /// What this user may not do of what a host does; an error where the server cannot be asked.
    pub denied: Result<Vec<&'static str>, StoreError>,
    /// How its clock differs from ours.
    pub clock: Result<Clock, StoreError>,
}

/// How another clock differs from this host's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// How far it is ahead of ours, microseconds; negative: behind.
    pub ahead_us: i64,
    /// How far that may be wrong: half of what the question took, microseconds.
    pub uncertainty_us: u64,
}

impl Clock {
    /// How far the clocks are apart at least.
    pub fn apart(&self) -> Duration {
        Duration::from_micros(self.ahead_us.unsigned_abs().saturating_sub(self.uncertainty_us))
    }
}

/// Asks a server.
pub async fn server(
    url: &str,
    database: &str,
    user: Option<&str>,
    password: Option<&str>,
) -> Result<Server, StoreError> {
    let client = reconnect::external(url, user, password);
    let who = client.query_raw("SELECT version(), currentUser()").fetch_one::<(String, String)>();
    let (version, user) = bounded(who).await?;
    let (schema, denied, clock) =
        tokio::join!(bounded(migrate::schema(&client, database)), denied(&client, database), clock(&client),);
    Ok(Server { version, user, schema, denied, clock })
}

async fn bounded<T>(question: impl Future<Output = clickhouse::error::Result<T>>) -> Result<T, StoreError> {
    match tokio::time::timeout(WITHIN, question).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(clickhouse::error::Error::BadResponse(message))) => Err(StoreError::Refused(message)),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(StoreError::Timeout { seconds: WITHIN.as_secs() }),
    }
}

async fn denied(client: &Client, database: &str) -> Result<Vec<&'static str>, StoreError> {
    let mut denied = Vec::new();
    for right in NEEDED {
        let question = format!("CHECK GRANT {right} ON {}.*", quoted(database));
        if bounded(client.query_raw(&question).fetch_one::<u8>()).await? == 0 {
            denied.push(right);
        }
    }
    Ok(denied)
}

/// A name between backquotes.
fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`"))
}

async fn clock(client: &Client) -> Result<Clock, StoreError> {
    let mut best: Option<Clock> = None;
    for _ in 0..CLOCK_QUESTIONS {
        let (wall, began) = (SystemTime::now(), Instant::now());
        let question = client.query_raw("SELECT toUnixTimestamp64Micro(now64(6))").fetch_one::<i64>();
        let theirs = bounded(question).await?;
        let half = began.elapsed() / 2;
        let ours = wall.duration_since(UNIX_EPOCH).unwrap_or_default() + half;
        let micros = |duration: Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        let clock = Clock { ahead_us: theirs - micros(ours), uncertainty_us: micros(half).unsigned_abs() };
        if best.is_none_or(|best| clock.uncertainty_us < best.uncertainty_us) {
            best = Some(clock);
        }
    }
    best.ok_or(StoreError::Unavailable("its clock was not asked".to_owned()))
}

/// Loads the embedded engine as a host does, with `dir` (which should be empty) as its directory, and gives the path of
/// its library and its version. `child` is what [`crate::Target::Embedded`] takes.
pub async fn embedded(
    configured: Option<&Path>,
    dir: &Path,
    child: &[std::ffi::OsString],
) -> Result<(std::path::PathBuf, String), StoreError> {
    let unavailable = |why: String| StoreError::Unavailable(why);
    let path = library::find(configured).map_err(|error| unavailable(error.to_string()))?;
    let ask = async {
        let engine =
            Engine::start(child, &path, dir).await.map_err(|error| unavailable(error.to_string()))?;
        let client = reconnect::embedded(&engine);
        let version = client.query_raw("SELECT version()").fetch_one::<String>().await;
        engine.stop().await;
        version.map_err(|error| unavailable(with_sources(&error)))
    };
    let seconds = ENGINE_WITHIN.as_secs();
    let version = tokio::time::timeout(ENGINE_WITHIN, ask).await;
    let version = version.map_err(|_| StoreError::Timeout { seconds })??;
    Ok((path, version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_are_apart_by_what_the_question_cannot_explain() {
        let clock = |ahead_us, uncertainty_us| Clock { ahead_us, uncertainty_us }.apart();
        assert_eq!(clock(700_000, 100_000), Duration::from_millis(600));
        assert_eq!(clock(-700_000, 100_000), Duration::from_millis(600));
        assert_eq!(clock(50_000, 100_000), Duration::ZERO);
    }

    #[test]
    fn a_name_cannot_end_its_quotes() {
        assert_eq!(quoted("a`b"), "`a\\`b`");
    }
}
