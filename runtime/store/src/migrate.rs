//! Brings a database to this program's schema. Several hosts may do it at once: every statement can be repeated.

use clickhouse::{Client, Row, sql::Identifier};
use serde::{Deserialize, Serialize};

use crate::schema::{MIGRATIONS, MIGRATIONS_TABLE};

/// A row of `schema_migrations`, as it is written.
#[derive(Row, Serialize, Deserialize)]
struct Applied {
    name: String,
    number: u32,
}

/// Makes the database and its tables, as far as they are missing, and gives the server's version. `client` has no
/// database yet.
pub(crate) async fn prepare(client: &Client, database: &str) -> clickhouse::error::Result<String> {
    let version: String = client.query_raw("SELECT version()").fetch_one().await?;
    let made = client.query("CREATE DATABASE IF NOT EXISTS ?").bind(Identifier(database)).execute().await;
    if let Err(error) = made {
        // A user who may not make databases can still be given one.
        let exists = "SELECT count() FROM system.databases WHERE name = {name:String}";
        let count: u64 = client.query_raw(exists).param("name", database).fetch_one().await?;
        if count == 0 {
            return Err(error);
        }
    }
    let client = client.clone().with_database(database);
    client.query_raw(MIGRATIONS_TABLE).execute().await?;
    let applied: Vec<u32> =
        client.query_raw("SELECT DISTINCT number FROM schema_migrations").fetch_all().await?;
    if let Some(newer) = applied.iter().max().filter(|&&newest| newest > last()) {
        // Migrations only add, so this program goes on working beside the newer one.
        tracing::info!(found = newer, known = last(), database, "the schema is a newer release's");
    }
    for migration in MIGRATIONS.iter().filter(|migration| !applied.contains(&migration.number)) {
        for statement in migration.statements {
            client.query_raw(statement).execute().await?;
        }
        let mut insert = client.insert::<Applied>("schema_migrations").await?;
        insert.write(&Applied { name: migration.name.to_owned(), number: migration.number }).await?;
        insert.end().await?;
        tracing::info!(number = migration.number, name = migration.name, database, "schema migrated");
    }
    Ok(version)
}

/// How far a database is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema {
    /// Whether the database is there.
    pub exists: bool,
    /// The newest migration that was applied, 0 before the first.
    pub applied: u32,
    /// The newest one that this program knows.
    pub known: u32,
    /// Tables that applied migrations made and that are gone, each with its migration's number.
    pub lost: Vec<(&'static str, u32)>,
}

/// Reads how far a database is; makes nothing. `client` has no database yet.
pub(crate) async fn schema(client: &Client, database: &str) -> clickhouse::error::Result<Schema> {
    let mut schema = Schema { exists: false, applied: 0, known: last(), lost: Vec::new() };
    let exists = "SELECT count() FROM system.databases WHERE name = {name:String}";
    let count: u64 = client.query_raw(exists).param("name", database).fetch_one().await?;
    schema.exists = count > 0;
    let tables = "SELECT name FROM system.tables WHERE database = {name:String}";
    let tables: Vec<String> = client.query_raw(tables).param("name", database).fetch_all().await?;
    let is_there = |name: &str| tables.iter().any(|table| table == name);
    if !is_there("schema_migrations") {
        return Ok(schema);
    }
    let applied = "SELECT DISTINCT number FROM schema_migrations";
    let applied: Vec<u32> = client.clone().with_database(database).query_raw(applied).fetch_all().await?;
    schema.applied = applied.iter().copied().max().unwrap_or(0);
    let done = MIGRATIONS.iter().filter(|migration| applied.contains(&migration.number));
    let made = done.flat_map(|done| done.statements.iter().map(|statement| (statement, done.number)));
    let made = made.filter_map(|(statement, number)| Some((table(statement)?, number)));
    schema.lost = made.filter(|(name, _)| !is_there(name)).collect();
    Ok(schema)
}

/// The table that a statement makes.
fn table(statement: &'static str) -> Option<&'static str> {
    statement.trim().strip_prefix("CREATE TABLE IF NOT EXISTS")?.split_whitespace().next()
}

/// The newest migration.
fn last() -> u32 {
    MIGRATIONS.last().map_or(0, |migration| migration.number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_is_known_by_name() {
        let statements = MIGRATIONS.iter().flat_map(|migration| migration.statements);
        let tables: Vec<&str> = statements.filter_map(|statement| table(statement)).collect();
        let expected = ["workflows", "plugins", "runs", "attempts", "logs", "events", "sink_positions"];
        assert_eq!(tables, expected);
    }
}
