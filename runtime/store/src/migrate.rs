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

/// The newest migration.
fn last() -> u32 {
    MIGRATIONS.last().map_or(0, |migration| migration.number)
}
