//! ClickHouse: whether rows can be stored there, and what its clock says.

use std::time::Duration;

use reipaz_store::{
    StoreError,
    examine::{self, Clock, Server},
};

use super::{Finding, Status};
use crate::{
    config::{ClickHouse, ClickHouseMode, Config},
    serve::clickhouse_child,
};

const SERVER: &str = "ClickHouse";
const DATABASE: &str = "ClickHouse database";
const RIGHTS: &str = "ClickHouse rights";
const CLOCK: &str = "clock";

/// Times of rows and of events no longer fit together.
const CLOCK_WARN: Duration = Duration::from_millis(500);
/// Something is broken.
const CLOCK_FAIL: Duration = Duration::from_secs(5);

pub(super) async fn examine(config: &Config) -> Vec<Finding> {
    let clickhouse = &config.clickhouse;
    match clickhouse.mode {
        ClickHouseMode::Off => {
            vec![Finding::ok(
                SERVER,
                "off: runs are served from memory only, and `reipaz sql` has nothing to ask",
            )]
        }
        ClickHouseMode::Embedded => vec![embedded(clickhouse).await],
        ClickHouseMode::External => external(clickhouse).await,
    }
}

async fn embedded(clickhouse: &ClickHouse) -> Finding {
    const EMBEDDED: &str = "ClickHouse, embedded";
    // A directory of its own: a running host's belongs to that.
    let dir = match tempfile::Builder::new().prefix("reipaz-doctor-").tempdir() {
        Ok(dir) => dir,
        Err(error) => {
            let detail = format!("not tried: no temporary directory ({error})");
            return Finding::warn(EMBEDDED, detail, "set TMPDIR to a directory that can be written");
        }
    };
    match examine::embedded(clickhouse.library.as_deref(), dir.path(), &clickhouse_child()).await {
        Ok((path, version)) => {
            Finding::ok(EMBEDDED, format!("version {version} loads from {}", path.display()))
        }
        Err(error) => Finding::warn(
            EMBEDDED,
            error.to_string(),
            format!(
                "runs go on without it, but no rows are stored: get it with `{}`, name a server (--clickhouse URL), or \
                 set clickhouse.mode = \"off\"",
                reipaz_store::library::SETUP_COMMAND
            ),
        ),
    }
}

async fn external(clickhouse: &ClickHouse) -> Vec<Finding> {
    let Some(url) = &clickhouse.url else {
        return vec![Finding::fail(
            SERVER,
            "no URL is configured",
            "set clickhouse.url, or give --clickhouse URL",
        )];
    };
    let (user, password) = (clickhouse.user.as_deref(), clickhouse.password.as_deref());
    match examine::server(url, &clickhouse.database, user, password).await {
        Ok(server) => server_findings(&server, url, &clickhouse.database),
        Err(error) => vec![unusable(&error, url)],
    }
}

/// A server that gives no answer.
fn unusable(error: &StoreError, url: &str) -> Finding {
    let mend = match error {
        StoreError::Refused(why) if !why.contains("DB::Exception") => {
            "what answers there is no ClickHouse: correct clickhouse.url (--clickhouse): its HTTP port, usually 8123"
        }
        StoreError::Refused(_) => {
            "correct clickhouse.user and REIPAZ_CLICKHOUSE_PASSWORD, or create that user in ClickHouse"
        }
        _ => {
            "start the server, open the way to it, or correct clickhouse.url (--clickhouse): its HTTP port, usually 8123"
        }
    };
    Finding::fail(SERVER, format!("{url}: {}", first_line(&error.to_string())), mend)
}

fn server_findings(server: &Server, url: &str, database: &str) -> Vec<Finding> {
    let about = format!("{url} answers, version {}, user {}", server.version, server.user);
    let clock = match &server.clock {
        Ok(clock) => clock_finding(clock),
        Err(error) => Finding::warn(CLOCK, format!("not compared: {error}"), "run it again"),
    };
    let mut findings = vec![Finding::ok(SERVER, about)];
    findings.extend(schema(server, database));
    findings.push(rights(server, database));
    findings.push(clock);
    findings
}

fn schema(server: &Server, database: &str) -> Vec<Finding> {
    let schema = match &server.schema {
        Ok(schema) => schema,
        Err(error) => {
            let user = &server.user;
            let detail = format!("{database} cannot be looked at: {}", first_line(&error.to_string()));
            return vec![Finding::fail(DATABASE, detail, format!("GRANT SELECT ON {database}.* TO {user}"))];
        }
    };
    let lost = schema.lost.iter().map(|(table, number)| {
        Finding::fail(
            DATABASE,
            format!("the table {database}.{table} is gone, which migration {number} made"),
            format!(
                "restore it from a backup; or, to have it made anew and empty, ALTER TABLE {database}.schema_migrations \
                 DELETE WHERE number = {number}, and start a host"
            ),
        )
    });
    let lost: Vec<Finding> = lost.collect();
    if !lost.is_empty() {
        return lost;
    }
    let (applied, known) = (schema.applied, schema.known);
    let detail = if !schema.exists {
        format!("{database} is not there yet; a host makes it")
    } else if applied == 0 {
        format!("{database} has no tables yet; a host makes them")
    } else if applied < known {
        format!("{database} is at migration {applied} of {known}; a host brings it forward when it starts")
    } else if applied > known {
        format!(
            "{database} is a newer release's (migration {applied}; this one knows {known}), which does no harm"
        )
    } else {
        format!("{database} is at migration {applied} of {known}")
    };
    vec![Finding::ok(DATABASE, detail)]
}

fn rights(server: &Server, database: &str) -> Finding {
    let user = &server.user;
    match &server.denied {
        Ok(denied) if denied.is_empty() => {
            Finding::ok(RIGHTS, format!("{user} may make tables, insert and select in {database}"))
        }
        Ok(denied) => {
            let denied = denied.join(", ");
            let detail = format!("{user} lacks {denied} on {database}");
            Finding::fail(RIGHTS, detail, format!("GRANT {denied} ON {database}.* TO {user}"))
        }
        Err(error) => Finding::warn(
            RIGHTS,
            format!("not checked: {}", first_line(&error.to_string())),
            format!(
                "see for yourself: SHOW GRANTS FOR {user}; hosts need SELECT, INSERT, CREATE TABLE ON {database}.*"
            ),
        ),
    }
}

fn clock_finding(clock: &Clock) -> Finding {
    let apart = clock.apart();
    let ms = clock.ahead_us / 1000;
    let detail = if apart < CLOCK_WARN {
        format!("ClickHouse's and this host's are {} ms apart", ms.abs())
    } else {
        let direction = if ms > 0 { "ahead of" } else { "behind" };
        format!("ClickHouse's is {} ms {direction} this host's", ms.abs())
    };
    let mend = "set both by NTP (`timedatectl set-ntp true`)";
    let status = match apart {
        apart if apart >= CLOCK_FAIL => Status::Fail,
        apart if apart >= CLOCK_WARN => Status::Warn,
        _ => return Finding::ok(CLOCK, detail),
    };
    Finding { mend: vec![mend.to_owned()], ..Finding::new(CLOCK, status, detail) }
}

/// ClickHouse's errors go on with traces and versions.
fn first_line(text: &str) -> &str {
    text.lines().find(|line| !line.trim().is_empty()).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use reipaz_store::Schema;

    use super::*;

    fn server() -> Server {
        let schema = Schema { exists: true, applied: 2, known: 2, lost: Vec::new() };
        Server {
            version: "26.5.3".into(),
            user: "reipaz".into(),
            schema: Ok(schema),
            denied: Ok(Vec::new()),
            clock: Ok(Clock { ahead_us: 1_000, uncertainty_us: 500 }),
        }
    }

    fn statuses(server: &Server) -> Vec<Status> {
        server_findings(server, "http://127.0.0.1:8123", "reipaz")
            .iter()
            .map(|finding| finding.status)
            .collect()
    }

    #[test]
    fn one_failure_hides_no_other() {
        assert_eq!(statuses(&server()), [Status::Ok; 4]);
        let mut sick = server();
        sick.schema = Err(StoreError::Refused("Code: 497".into()));
        sick.denied = Ok(vec!["INSERT"]);
        sick.clock = Ok(Clock { ahead_us: -6_000_000, uncertainty_us: 500 });
        assert_eq!(statuses(&sick), [Status::Ok, Status::Fail, Status::Fail, Status::Fail]);
    }

    #[test]
    fn a_clock_is_judged_by_what_is_certain() {
        let status = |ahead_us, uncertainty_us| clock_finding(&Clock { ahead_us, uncertainty_us }).status;
        assert_eq!(status(-499_000, 0), Status::Ok);
        assert_eq!(status(700_000, 300_000), Status::Ok);
        assert_eq!(status(-600_000, 10_000), Status::Warn);
        assert_eq!(status(5_100_000, 10_000), Status::Fail);
    }

    #[test]
    fn a_lost_table_is_told_with_what_makes_it_anew() {
        let mut sick = server();
        sick.schema = Ok(Schema { exists: true, applied: 2, known: 2, lost: vec![("runs", 1)] });
        let found = schema(&sick, "reipaz");
        assert_eq!(found[0].status, Status::Fail);
        assert!(found[0].mend[0].contains("DELETE WHERE number = 1"), "{found:?}");
    }
}
